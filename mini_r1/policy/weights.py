"""A model's weight files: whether they are complete, and which state of the model they are. No weights are loaded."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

POINTER = b"version https://git-lfs.github.com/spec"
PATTERNS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
RUN, STATE = "run.json", "trainer_state.json"
PIECES, PIECE_BYTES = 64, 4096


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in PATTERNS for path in folder.glob(pattern))


def missing_weights(folder: Path) -> str | None:
    """What is missing of the weights in a model's folder, as the end of "missing: ..."; None if nothing.

    Files in PyTorch's older format are only looked for, since their length says nothing.
    """
    weights = _weights(folder)
    for pointer in weights:
        with pointer.open("rb") as file:
            start = file.read(len(POINTER))
        if start == POINTER:
            return f"the content of {pointer.name}, which is a Git LFS pointer (`git lfs pull` fetches the file)"
    for index in sorted(folder.glob("*.index.json")):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return f"a readable {index.name}"
        if absent := sorted(names - {path.name for path in weights}):
            return absent[0]
    if not weights:
        return "the weights (*.safetensors)"
    cut = (path for path in weights if path.suffix == ".safetensors" and not _is_complete(path))
    return next((f"the end of {path.name}" for path in cut), None)


def _is_complete(path: Path) -> bool:
    """Whether a file has the length that its header says, which safetensors checks when it opens one."""
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def sample_digest(folder: Path) -> str:
    """A short text that is another one for weights that were trained or replaced; "" where there are none.

    Of each file its name, its size and 64 pieces of it are read, which takes no time at any size.
    """
    weights = _weights(folder)
    total = hashlib.blake2b(digest_size=8)
    for path in weights:
        size = path.stat().st_size
        total.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for piece in range(PIECES):
                file.seek(piece * max(0, size - PIECE_BYTES) // (PIECES - 1))
                total.update(file.read(PIECE_BYTES))
    return total.hexdigest() if weights else ""


def read_state(model: str | Path) -> dict[str, Any] | None:
    """The state of a model in a folder (of a run, a checkpoint, an adapter or any other); None for one on the Hub.

    Returns:
        {"step": optimizer steps behind it, None if nobody says so; "weights": the digest of its weights}; JSON-able.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return None
    files = _weights(folder)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}:{path.stat().st_size};".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "step": _step(folder / STATE, "global_step"),
        "weights": total.hexdigest() if files else None,
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
