"""Identifies the state of a model by its step and a digest of its weights, so that an older one is recognised."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
RUN, STATE = "run.json", "trainer_state.json"


def read_state(model: str | Path) -> Record | None:
    """The state of a model in a folder (of a run, a checkpoint, an adapter or any other); None for one on the Hub.

    Returns:
        {"step": optimizer steps behind it, None if nobody says so; "weights": the digest of its weights; "bytes": their
        size}; JSON-able.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return None
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}:{path.stat().st_size};".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "step": _step(folder / STATE, "global_step"),
        "weights": total.hexdigest() if files else None,
        "bytes": sum(path.stat().st_size for path in files),
    }


def newest_step(run: Path) -> int | None:
    """How far a run has come: the highest step that any file in its folder speaks of."""
    steps = [_step(run / STATE, "global_step"), _step(run / RUN, "steps")]
    steps += [_step(path, "global_step") for path in run.glob(f"checkpoint-*/{STATE}")]
    return max((step for step in steps if step is not None), default=None)


def is_outdated(state: Mapping[str, Any] | None, run: Path) -> str | None:
    """Why a state that was looked at is not the one that a run is in now, in words; None if it is, or nobody can say.

    Args:
        state: what `read_state` returned then (the field `state` of a result in evaluation.json).
        run: the run's output folder.
    """
    if not state or state.get("weights") is None:
        return None
    then, now = state.get("step"), newest_step(run)
    if isinstance(then, int) and now is not None and then != now:
        return f"it is of step {then}, and the run is at step {now}"
    if (read_state(run) or {}).get("weights") != state["weights"]:
        return "the weights are others now"
    return None


def _step(path: Path, key: str) -> int | None:
    try:
        step = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) else None
