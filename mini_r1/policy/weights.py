"""Whether the files of a model's weights are present and complete, read from their headers without loading them."""

import hashlib
import json
import struct
from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec"
PATTERNS = ("*.safetensors", "pytorch_model*.bin")
PIECES, PIECE_BYTES = 64, 4096


def missing_weights(folder: Path) -> str | None:
    """What is missing of the weights in a model's folder, as the end of "missing: ..."; None if nothing.

    Files in PyTorch's older format are only looked for, since their length says nothing.
    """
    weights = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    for pointer in weights:
        if _begins(pointer, POINTER):
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
    cut = (path for path in weights if path.suffix == ".safetensors" and not safetensors_complete(path))
    return next((f"the end of {path.name}" for path in cut), None)


def safetensors_complete(path: Path) -> bool:
    """Whether a file has the length that its header says (https://huggingface.co/docs/safetensors#format)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        length = struct.unpack("<Q", start)[0]
        if length > size:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return bool(size == 8 + length + end)


def _begins(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def sample_digest(folder: Path) -> str:
    """A short text that is another one for weights that were trained or replaced; "" where there are none.

    Of each file its name, its size and 64 pieces of it are read, which takes no time at any size.
    """
    weights = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    total = hashlib.blake2b(digest_size=8)
    for path in weights:
        size = path.stat().st_size
        total.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for piece in range(PIECES):
                file.seek(piece * max(0, size - PIECE_BYTES) // (PIECES - 1))
                total.update(file.read(PIECE_BYTES))
    return total.hexdigest() if weights else ""
