"""Keeps tokens out of logs, cards, samples and records: what looks like one, or is known to be one, is replaced."""

import logging
import os
import re
from typing import Any

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


def protect_logs() -> None:
    """Redact every log record of this process, whichever library it comes from (`mini_r1.failures` does its own).

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
