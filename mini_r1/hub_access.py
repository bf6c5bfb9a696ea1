"""Whether the Hub will take what a run pushes: there is a token, it is valid, and it may write. It is never shown."""

from typing import Any

import httpx
from huggingface_hub import HfApi, get_token
from trl import GRPOConfig

from mini_r1.problems import Problem

TOKENS_PAGE = "https://huggingface.co/settings/tokens"


def check_hub_access(training: GRPOConfig) -> tuple[str | None, Problem | None]:
    """Ask the Hub who we are, if the recipe pushes.

    Returns:
        a line that names the account and its permission (None if nothing is pushed), and what is wrong, if anything.
    """
    if not training.push_to_hub:
        return None, None
    token = training.hub_token or get_token()
    if not token:
        fix = f"make one at {TOKENS_PAGE} and set HF_TOKEN or run `hf auth login`; or set push_to_hub: false"
        return None, Problem("HF_TOKEN", "not set", "a token with write permission", fix)
    try:
        account: dict[str, Any] = HfApi().whoami(token=token)
    except (httpx.HTTPError, OSError) as error:
        return None, _rejected(error)
    return _check_permission(account, training.hub_model_id)


def _rejected(error: Exception) -> Problem:
    response = getattr(error, "response", None)
    if response is not None and response.status_code in (401, 403):
        fix = f"make a new one with write permission at {TOKENS_PAGE}, or set push_to_hub: false"
        return Problem("HF_TOKEN", "rejected by the Hub", "a valid token with write permission", fix)
    fix = "check the network (HF_ENDPOINT, proxy), or set push_to_hub: false"
    return Problem("push_to_hub", "true, but the Hub can't be reached", "a Hub that answers", fix)


def _check_permission(account: dict[str, Any], repository: str | None) -> tuple[str | None, Problem | None]:
    name = str(account.get("name"))
    token = (account.get("auth") or {}).get("accessToken") or {}
    role = str(token.get("role", "unknown"))
    owner = repository.split("/")[0] if repository and "/" in repository else name
    organisations = {str(org.get("name")) for org in account.get("orgs", [])}
    if owner not in {name, *organisations}:
        allowed = f"a repository of {name} or of {', '.join(sorted(organisations)) or 'no organisation'}"
        return None, Problem("hub_model_id", repository, allowed, f"set hub_model_id: {name}/NAME, or leave it out")
    if not _may_write(role, token, owner):
        fix = f"make one with write permission at {TOKENS_PAGE}, or set push_to_hub: false"
        return None, Problem("HF_TOKEN", f"a {role} token of {name}", f"a token that may write to {owner}", fix)
    return f"pushes as {name} ({role} token) to {repository or f'{name}/(name of the output folder)'}", None


def _may_write(role: str, token: dict[str, Any], owner: str) -> bool:
    if role != "fineGrained":
        return role == "write"
    rights = token.get("fineGrained") or {}
    scoped = [
        s for s in rights.get("scoped", []) if str((s.get("entity") or {}).get("name", "")).split("/")[0] == owner
    ]
    return any("repo.write" in scope.get("permissions", []) for scope in scoped)
