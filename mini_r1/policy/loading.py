"""Loads a policy for use rather than for training: from a folder or the Hub, a full model or an adapter."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mini_r1.machine.kernels import leave_out_cudnn
from mini_r1.policy.checkpoints import CHECKPOINT, checkpoint_folders
from mini_r1.program.problems import UserError, first_line

RUNS = Path("runs")  # where the recipes put their runs
# Folders that are never a Hub user's name in this project, whether they are there or not.
LOCAL_FOLDERS = (RUNS.name, "assets", "models")
MODEL_FILES = ("config.json", "adapter_config.json")
MOST_LISTED = 10

# What the libraries raise for a model that is missing, damaged, unknown to them or in want of a package.
LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


class ModelError(UserError, ValueError):
    """There is no such model, or it can't be loaded."""


def resolve_model(name: str) -> str:
    """Check the name of a model without the network: a folder that holds one, or what can be a Hub id.

    A name is taken for a mistyped folder, not for a Hub id, where it is written like a path, starts with a folder of
    runs, or resembles a run; so that a slip costs no minute of vain requests.

    Raises:
        ModelError: naming the models that are there, the likeliest first.

    Returns:
        the name for `load_tokenizer` and `load_model`, `~` expanded.
    """
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises for an unknown ~user)
    if os.path.isdir(folder):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        if not _holds_model(folder):
            raise ModelError(f"{name!r} holds no model (no {' or '.join(MODEL_FILES)}){_suggest(name, folder)}")
        return str(folder)
    if os.path.exists(folder):  # noqa: PTH110
        raise ModelError(f"{name!r} is a file; a model is the folder that holds its config.json")
    if _written_as_a_path(name):
        raise ModelError(f"there is no model folder {name!r} (looked in {Path.cwd()}){_suggest(name, folder)}")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a Hub id{_suggest(name, folder)}") from None
    if _resembles_a_run(name):
        raise ModelError(f"there is no model folder {name!r} (a Hub id is USER/MODEL){_suggest(name, folder)}")
    return name


def load_tokenizer(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; padding falls back to the end token where it defines none.

    Raises:
        ModelError: if it has none, or none that can be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=trust_remote_code
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"cannot load the tokenizer of {model!r}: {_why(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model on the GPU in its own precision, or on the CPU in float32.

    Raises:
        ModelError: if it has none, or none that can be loaded.
    """
    leave_out_cudnn()
    device, dtype = ("cuda", "auto") if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, trust_remote_code=trust_remote_code
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"cannot load the model {model!r}: {_why(error)}") from error
    return cast(Any, loaded).to(device)


def _holds_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in MODEL_FILES)


def _written_as_a_path(name: str) -> bool:
    """Whether nobody would write a Hub id (`user/model`, or `model` for a few old ones) in this way."""
    parts = Path(name).parts or (name,)
    return (
        name.startswith((".", "/", "~"))
        or name.endswith("/")
        or "\\" in name
        or len(parts) > 2
        or CHECKPOINT.fullmatch(parts[-1]) is not None
        or parts[0] in LOCAL_FOLDERS
        or (len(parts) == 2 and any(_is_run(path) for path in _folders_in(Path(parts[0]))))
    )


def _resembles_a_run(name: str) -> bool:
    """Whether `name` is a slip for a model in our own folders, with the folder or without it."""
    ours = [str(path) for where in LOCAL_FOLDERS for path in _models_in(Path(where))]
    known = ours if "/" in name else [Path(path).name for path in ours]
    return bool(get_close_matches(name.lower(), [path.lower() for path in known], cutoff=0.85))


def _is_run(folder: Path) -> bool:
    """Whether a run of this project wrote `folder`, rather than a download."""
    return (folder / "run.json").is_file() or bool(checkpoint_folders(folder))


def _folders_in(folder: Path) -> list[Path]:
    """Its subfolders, checkpoint-9 before checkpoint-10; none where it can't be read."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir()]
    except (OSError, ValueError):
        return []
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _models_near(folder: Path) -> Iterator[Path]:
    """The models in `folder`, beside it, beside its run and in our own folders, nearest first, perhaps repeated."""
    for where in (folder, folder.parent, folder.parent.parent, *map(Path, LOCAL_FOLDERS)):
        yield from _models_in(where)


def _models_in(folder: Path) -> Iterator[Path]:
    for child in _folders_in(folder):
        # A run that has not finished holds no model itself, but its checkpoints do.
        yield from [model for model in (child, *reversed(checkpoint_folders(child))) if _holds_model(model)][:1]


def _suggest(name: str, folder: Path) -> str:
    """The end of an error message: what was meant, if one model is much like it, and what there is."""
    models = list(dict.fromkeys(str(path) for path in _models_near(folder)))
    if not models:
        return f"; there is no model in {folder.parent} or {RUNS} either: check the path, or train one with `make aha`"
    by_name = {Path(model).name: model for model in reversed(models)}
    likely = get_close_matches(str(folder), models, n=1, cutoff=0.7)
    likely += [by_name[match] for match in get_close_matches(folder.name, by_name, n=1, cutoff=0.7)]
    meant = f"; did you mean {likely[0]}?" if likely else ""
    more = f" and {len(models) - MOST_LISTED} more" if len(models) > MOST_LISTED else ""
    return f"{meant or ';'} models here: {', '.join(models[:MOST_LISTED])}{more}"


def _why(error: BaseException) -> str:
    if "trust_remote_code" in str(error):  # the library's first line does not say how
        return "it comes with Python code of its own; look at that, then allow it (--trust-remote-code)"
    return first_line(error)
