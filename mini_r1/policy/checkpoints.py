"""Checkpoints: which one a run resumes from, whether it is complete, and whether this launch can resume from it.

Transformers takes the folder with the highest number, complete or not, and where the optimizer's files are not those it
looks for it continues without them and says nothing. Here a checkpoint is used only if everything in it is there.
The last file of a checkpoint is our manifest, `complete.json`: processes, and the size of every file. A checkpoint
without one (an earlier version's, one copied from the Hub) is judged by its files alone.
"""

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from mini_r1.policy.weights import missing_weights
from mini_r1.program.problems import UserError

if TYPE_CHECKING:  # which takes seconds to import, and the preflight needs this module too
    pass

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"
STATE = "trainer_state.json"
TORCH, ZERO, ZERO3, FSDP = "PyTorch", "DeepSpeed ZeRO-1/2", "DeepSpeed ZeRO-3", "FSDP"


Decision = TypeVar("Decision")


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be resumed; the message names it, the reason and the fix."""


class DiskFullError(UserError, RuntimeError):
    """The output folder's disk is full; the message names the folder and the space needed."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        step: optimizer steps behind it.
        engine: what wrote the optimizer: TORCH (one process or DDP), ZERO, ZERO3 or FSDP.
        processes: how many processes wrote it.
    """

    folder: Path
    step: int
    engine: str
    processes: int


def choose_checkpoint(training: TrainingArguments) -> Checkpoint | None:
    """The checkpoint to resume: the one that the user names, else the newest complete one in the output folder.

    A newer one that is not complete is skipped with a warning. All processes must call this.

    Raises:
        CheckpointError: the named one is not complete, or this launch can't resume the one chosen.
    """
    return decide_for_all(training, lambda: _choose(training))


def decide_for_all(training: TrainingArguments, decide: Callable[[], Decision]) -> Decision:
    """Let the main process decide for all, so that no two processes can differ; all of them must call this.

    Raises:
        UserError: what `decide` raised; in the other processes a CheckpointError with the same words.
    """
    choice: list[Any] = [None, None]
    problem: UserError | None = None
    if training.process_index == 0:
        try:
            choice[0] = decide()
        except UserError as error:
            choice[1], problem = str(error), error
    if training.world_size > 1:
        broadcast_object_list(choice)
    decision, words = choice
    if words is not None:
        raise problem or CheckpointError(words)
    return cast(Decision, decision)


def _choose(training: TrainingArguments) -> Checkpoint | None:
    if training.resume_from_checkpoint:
        folder = Path(training.resume_from_checkpoint)
        if gap := missing(folder):
            raise CheckpointError(
                f"resume_from_checkpoint={str(folder)!r} is not complete (missing: {gap}). Name another checkpoint, or "
                f"leave the key out to resume the newest complete one in {training.output_dir!r}"
            )
        chosen = read_checkpoint(folder)
    else:
        newest = newest_complete(Path(str(training.output_dir)))
        if newest is None:
            return None
        chosen = newest
    if not _converted(chosen, training):
        _check_fits(chosen, engine_of(training), training.world_size)
    return chosen


def newest_complete(output: Path) -> Checkpoint | None:
    """The newest complete checkpoint in a run's folder, with a warning for each newer one that is skipped."""
    for folder in reversed(checkpoint_folders(output)):
        gap = missing(folder)
        if gap is None:
            return read_checkpoint(folder)
        logger.warning("%s is not complete (missing: %s): skipped, the one before it is used", folder, gap)
    return None


def checkpoint_folders(output: Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, oldest step first."""
    numbered = [(int(match[1]), path) for path in output.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered) if path.is_dir()]


_NAME = re.compile(r"checkpoint-(\d+)")


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a complete checkpoint says of itself."""
    step = int(json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"])
    return Checkpoint(folder, step, _engine_in(folder), _processes(folder))


def missing(folder: Path) -> str | None:
    """What is missing in a checkpoint to resume it, in words; None if it is complete."""
    if not folder.is_dir():
        return "the folder itself"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {folder / name: int(size) for name, size in manifest["files"].items()}
    except FileNotFoundError:
        return _missing_files(folder)
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"a readable {MANIFEST}"
    for path, size in sizes.items():
        if not path.is_file() or path.stat().st_size != size:
            there = path.stat().st_size if path.is_file() else 0
            return f"{path.relative_to(folder)} ({there:,} of {size:,} bytes are there)"
    return _missing_files(folder)


def _missing_files(folder: Path) -> str | None:
    """The first thing that is not there or was cut off; written in this order: weights, optimizer, RNG, state."""
    tests = (_missing_weights, _missing_optimizer, _missing_random_state, _missing_state)
    return next((gap for test in tests if (gap := test(folder))), None)


def _missing_weights(folder: Path) -> str | None:
    if _engine_in(folder) in (ZERO3, FSDP):
        return None  # their own files hold the weights
    return missing_weights(folder)


def _missing_optimizer(folder: Path) -> str | None:
    engine = _engine_in(folder)
    if engine == FSDP:
        sharded = any(folder.glob("optimizer_*/.metadata"))  # .metadata is the last that distributed checkpoints write
        return (
            None if sharded or (folder / "optimizer.bin").is_file() else "the optimizer (optimizer_0 or optimizer.bin)"
        )
    if engine == TORCH:
        wanted = [folder / "optimizer.pt", folder / "scheduler.pt"]
    elif not (folder / "latest").is_file():
        return "the file latest"
    else:
        wanted = _deepspeed_files(folder, engine)
    return next((str(path.relative_to(folder)) for path in wanted if not _torch_complete(path)), None)


def _missing_random_state(folder: Path) -> str | None:
    processes = _processes(folder)
    names = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    return next((name for name in names if not _torch_complete(folder / name)), None)


def _missing_state(folder: Path) -> str | None:
    try:
        int(json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"a readable {STATE}"
    return None


def _engine_in(folder: Path) -> str:
    """Which engine wrote a checkpoint, by the names of its files."""
    if (folder / "latest").is_file() or any(folder.glob("global_step*")):
        shards = _deepspeed_folder(folder)
        return ZERO3 if any(shards.glob("zero_pp_rank_*_model_states.pt")) else ZERO
    if any(folder.glob("pytorch_model_fsdp*")):
        return FSDP
    return TORCH


def _deepspeed_folder(folder: Path) -> Path:
    """Where DeepSpeed put its shards; `latest`, which it writes last, names it."""
    latest = folder / "latest"
    return (
        folder / latest.read_text(encoding="utf-8").strip() if latest.is_file() else next(folder.glob("global_step*"))
    )


def _deepspeed_files(folder: Path, engine: str) -> list[Path]:
    """The files of all processes: the model's parts and the optimizer's."""
    shards, ranks = _deepspeed_folder(folder), range(_processes(folder))
    # The names of the optimizer's parts start with its precision.
    prefix = "bf16_" if any(shards.glob("bf16_zero_pp_rank_*_optim_states.pt")) else ""
    models = [f"zero_pp_rank_{rank}_mp_rank_00" for rank in ranks] if engine == ZERO3 else ["mp_rank_00"]
    names = [f"{model}_model_states.pt" for model in models]
    names += [f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in ranks]
    return [shards / name for name in names]


def _processes(folder: Path) -> int:
    """How many processes wrote a checkpoint: by the manifest, else one more than the highest rank in a file's name."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return int(json.loads(manifest.read_text(encoding="utf-8"))["processes"])
    names = [path.name for path in folder.rglob("*") if path.suffix in (".pt", ".pth")]
    ranks = [int(match[1]) for name in names if (match := re.search(r"(?:rng_state|pp_rank)_(\d+)", name))]
    return max(ranks, default=0) + 1


def _torch_complete(path: Path) -> bool:
    """Whether a `torch.save` file is complete: it is a zip archive, whose directory comes last."""
    return path.is_file() and zipfile.is_zipfile(path)


def engine_of(training: TrainingArguments) -> str:
    """What this launch trains with, in the same terms."""
    if training.deepspeed_plugin is not None:
        return ZERO3 if training.deepspeed_plugin.zero_stage == 3 else ZERO
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true") or training.fsdp:
        return FSDP
    return TORCH


def _converted(checkpoint: Checkpoint, training: TrainingArguments) -> bool:
    """Whether DeepSpeed will load the checkpoint's universal form, which fits any number of processes and stage."""
    plugin = training.deepspeed_plugin
    wanted = plugin is not None and plugin.hf_ds_config.get_value("checkpoint", {}).get("load_universal", False)
    return bool(wanted) and (checkpoint.folder / "latest_universal").is_file()


def _check_fits(checkpoint: Checkpoint, engine: str, processes: int) -> None:
    """Refuse a checkpoint whose optimizer or random state this launch could not take up."""
    if (checkpoint.engine, checkpoint.processes) == (engine, processes):
        return
    both_deepspeed = {checkpoint.engine, engine} <= {ZERO, ZERO3}
    shards = _deepspeed_folder(checkpoint.folder) if both_deepspeed else None
    convert = (
        f"convert it (python -m deepspeed.checkpoint.ds_to_universal --input_folder {shards} --output_folder "
        f'{shards}_universal, then "checkpoint": {{"load_universal": true}} in the DeepSpeed configuration), or '
        if both_deepspeed
        else ""
    )
    raise CheckpointError(
        f"{checkpoint.folder} was written by {_launch(checkpoint.engine, checkpoint.processes)}, this launch is "
        f"{_launch(engine, processes)}: optimizer and random state would be lost. Launch as before, or {convert}start "
        f"a new run from its weights: model_name_or_path={checkpoint.folder} and another output_dir"
    )


def _launch(engine: str, processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''} with {engine}"


def write_manifest(folder: Path, processes: int, more: Mapping[str, Any] | None = None) -> None:
    """List every file of a checkpoint with its size, and `more`; the file appears complete or not at all."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    draft = folder / f"{MANIFEST}.part"
    draft.write_text(
        json.dumps({"processes": processes, **(more or {}), "files": files}, indent=2) + "\n", encoding="utf-8"
    )
    draft.rename(folder / MANIFEST)


def disk_full_error(output: Path, step: int, model: Any) -> DiskFullError:
    """What to tell the user when writing at `step` failed, after removing the checkpoint that was half written."""
    failed = output / f"checkpoint-{step}"
    if failed.is_dir() and missing(failed):
        shutil.rmtree(failed, ignore_errors=True)
    last = newest_complete(output)
    needed = folder_bytes(last.folder) if last else _estimated_bytes(model)
    resumes = f"the same command then resumes from {last.folder}" if last else "no checkpoint was written yet"
    return DiskFullError(
        f"the disk of {output} is full at step {step}: {shutil.disk_usage(output).free / 1e6:,.0f} MB are free, a "
        f"checkpoint takes about {needed / 1e6:,.0f} MB. Free space there, lower save_total_limit or set another "
        f"output_dir; {resumes}"
    )


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _estimated_bytes(model: Any) -> int:
    """Weights, and two float32 moments of Adam for those that are trained."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.element_size(), p.requires_grad) for p in model.parameters()]
    return sum(count * (width + (8 if trained else 0)) for count, width, trained in sizes)
