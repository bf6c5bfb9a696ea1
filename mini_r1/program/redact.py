"""Keeps tokens out of logs, cards, samples and records: replaces any text that is or looks like a token."""

import argparse
import logging
import os
import re
import shlex
from typing import Any

from mini_r1.program.problems import UserError

REDACTED = "[REDACTED]"
SHORTEST = 8  # a shorter value is no token, and would blot out ordinary words
_IN_THE_ENVIRONMENT = re.compile(r"(^|_)(TOKEN|API_KEY|SECRET)$")
_SHAPES = (
    re.compile(r"\bhf_(?:oauth_|jwt_)?[A-Za-z0-9]{8,}"),
    re.compile(r"(?<=Bearer )[^\s'\"]+"),
    re.compile(r"(?<=://)[^\s/@:]{1,256}:[^\s/@]{1,256}(?=@)"),  # user:password in an address
)
# What a secret is called, before its value: in a flag, an assignment, YAML, JSON or an address.
_NAME = (
    r"(?:[\w-]*[_-])?(?:api[_-]?keys?|(?<!eos_)(?<!bos_)(?<!pad_)(?<!unk_)token|password|passwd|secret|access[_-]key)"
)
_VALUE = r"""(?:\[[^\]]*\]|"[^"]+"|'[^']+'|[^\s'",&;]+)"""  # a list is one value
_NAMED = (
    re.compile(rf"(--{_NAME}(?:=|[ ]+|', '))({_VALUE})", re.IGNORECASE),
    re.compile(rf"(\b{_NAME}['\"]?(?:=|: ))({_VALUE})", re.IGNORECASE),
    re.compile(r"(\bauthorization['\"]?(?:=|: )['\"]?(?:(?:basic|bearer) )?)([^\s'\",]+)", re.IGNORECASE),
)
_known: set[str] = set()


def remember(*secrets: str | None) -> None:
    """Redact these texts from now on, whatever they look like; the parts around white space in them too."""
    parts = [part for secret in secrets if secret for part in (secret, secret.strip(), *secret.split())]
    _known.update(part for part in parts if len(part) >= SHORTEST)


def redact(text: str) -> str:
    """Return the text without tokens.

    >>> redact("python run.py --hub_token hf_abcdefghijkl --seed 1")
    'python run.py --hub_token [REDACTED] --seed 1'
    """
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    for shape in _SHAPES:
        text = shape.sub(REDACTED, text)
    for named in _NAMED:
        text = named.sub(rf"\1{REDACTED}", text)
    return text


def take_api_key(server_arguments: str | None) -> tuple[tuple[str, ...], str | None]:
    """Split `vllm_server_args` into words without `--api-key` and its values, and the first of those; all are secret.

    Raises:
        UserError: if there is no value, or a quotation mark has no partner.

    >>> take_api_key("--api-key sk-123 --seed 1")
    (('--seed', '1'), 'sk-123')
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--api-key", "--api_key", nargs="+", action="extend", default=[])
    try:
        given, others = parser.parse_known_args(shlex.split(server_arguments or ""))
    except argparse.ArgumentError:
        raise UserError("vllm_server_args has --api-key without a value. Fix: give it one, or leave it out") from None
    except ValueError as error:
        raise UserError(f"vllm_server_args can't be read ({error}). Fix: close the quotes") from None
    remember(*given.api_key)
    return tuple(others), next(iter(given.api_key), None)


def protect_logs() -> None:
    """Redact every log record of this process, whichever library it comes from (`failures` does its own).

    Done where records are made, since transformers, huggingface_hub and vLLM each have handlers of their own, which a
    filter of ours would not reach.
    """
    remember(*(value for name, value in os.environ.items() if _IN_THE_ENVIRONMENT.search(name)))
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    make = logging.getLogRecordFactory()

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg, record.args = redact(_message(record)), ()
        if record.exc_info:  # a formatter takes the text if there is one
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # wrong arguments: what logging itself would only complain about
        return f"{record.msg} {record.args}"
