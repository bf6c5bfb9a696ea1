"""Whether the Hub answers and would accept a push: the token must be valid and have write access. It is never shown."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import httpx
from huggingface_hub import HfApi, constants, get_token
from trl import GRPOConfig

from mini_r1.program.causes import LOG_IN, describe
from mini_r1.program.problems import Problem, first_line
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.runs.holdout import DataSettings
from mini_r1.tasks.registry import TaskError

logger = logging.getLogger(__name__)

NEEDED, NO_PUSH = "a token with write permission", "or set push_to_hub: false"
ANSWER_SECONDS = 5.0


def uses_hub(model: str, script: ScriptArguments) -> bool:
    """Whether a run reads anything from the Hub or its cache."""
    if not Path(model).is_dir():
        return True
    try:
        settings = DataSettings.of(script)
        return settings.make_task().is_on_hub(settings.dataset)
    except TaskError:  # which the preflight has more to say of
        return False


def _answers() -> bool:
    if constants.is_offline_mode():  # no request at all
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except httpx.HTTPError:
        return False
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # of a proxy or an endpoint that can't be used
        logger.warning("%s", describe(error))
        return False
    return True


@contextmanager
def offline_if_unreachable() -> Iterator[bool]:
    """Ask once whether the Hub answers; where it does not, use its cache only, instead of trying for a minute per file.

    The two libraries read their setting when imported, hence the change of theirs.
    """
    if _answers():
        yield True
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield False
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def stored_token() -> str | None:
    """The token of HF_TOKEN or `hf auth login`; none where the place of the latter can't be read."""
    try:
        return get_token()
    except OSError:  # such as another user's home
        return None


def check_hub_access(training: GRPOConfig) -> tuple[str | None, Problem | None]:
    """Ask the Hub who we are, if the recipe pushes.

    Returns:
        a line that names the account and its permission (None if nothing is pushed), and what is wrong, if anything.
    """
    if not training.push_to_hub:
        return None, None
    token = training.hub_token or stored_token()
    if not token:
        return None, Problem("HF_TOKEN", "not set", NEEDED, f"{LOG_IN}, {NO_PUSH}", "push_to_hub is true")
    try:
        account: dict[str, Any] = HfApi().whoami(token=token)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        return None, _rejected(error)
    return _check_permission(account, training.hub_model_id)


def _rejected(error: Exception) -> Problem:
    response = getattr(error, "response", None)
    if response is not None and response.status_code in (401, 403):
        cause = f"the Hub rejects it (status {response.status_code})"
        return Problem("HF_TOKEN", "set", NEEDED, f"{LOG_IN}, {NO_PUSH}", cause)
    fix = f"check the network (HF_ENDPOINT, proxy), {NO_PUSH}"
    return Problem("push_to_hub", "true", "a Hub that answers", fix, f"it can't be reached ({first_line(error)})")


def _check_permission(account: dict[str, Any], repository: str | None) -> tuple[str | None, Problem | None]:
    name = str(account.get("name"))
    token = (account.get("auth") or {}).get("accessToken") or {}
    role = str(token.get("role", "unknown"))
    owner = repository.split("/")[0] if repository and "/" in repository else name
    organisations = {str(org.get("name")) for org in account.get("orgs", [])}
    if owner not in {name, *organisations}:
        allowed = f"a repository of {name} or of {', '.join(sorted(organisations)) or 'no organisation'}"
        fix, cause = f"set hub_model_id: {name}/NAME, or leave it out", f"the token is one of {name}"
        return None, Problem("hub_model_id", repository, allowed, fix, cause)
    if not _may_write(role, token, owner):
        fix, cause = f"{LOG_IN}, {NO_PUSH}", f"it may not write to {owner}"
        return None, Problem("HF_TOKEN", f"a {role} token of {name}", NEEDED, fix, cause)
    return f"pushes as {name} ({role} token) to {repository or f'{name}/(name of the output folder)'}", None


def _may_write(role: str, token: dict[str, Any], owner: str) -> bool:
    if role != "fineGrained":
        return role == "write"
    rights = token.get("fineGrained") or {}
    return any(
        str((scope.get("entity") or {}).get("name", "")).split("/")[0] == owner
        and "repo.write" in scope.get("permissions", [])
        for scope in rights.get("scoped", [])
    )
