"""Checkpoints: which one a run resumes from, whether it is complete, and whether this launch can resume from it.

Transformers takes the folder with the highest number, complete or not, and where the optimizer's files are not those it
looks for it continues without them and says nothing. Here a checkpoint is used only if everything in it is there: its
last file is our manifest, `complete.json`, with the step, the engine, the processes and the size of every file.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from mini_r1.program.problems import UserError

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"
STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
TORCH, ZERO, ZERO3, FSDP = ENGINES = "PyTorch", "DeepSpeed ZeRO-1/2", "DeepSpeed ZeRO-3", "FSDP"

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
    named = training.resume_from_checkpoint
    chosen = read_checkpoint(Path(named)) if named else newest_complete(Path(str(training.output_dir)))
    if chosen and not _converted(chosen, training):
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
    found = output.glob("checkpoint-*")
    numbered = [(int(match[1]), path) for path in found if (match := CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(numbered) if path.is_dir()]


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: it is not complete.
    """
    if gap := missing(folder):
        raise CheckpointError(
            f"{folder} is not complete (missing: {gap}). Name another checkpoint, or start a new run from its weights: "
            f"model_name_or_path={folder} and another output_dir"
        )
    manifest = _manifest(folder)
    return Checkpoint(folder, manifest["step"], manifest["engine"], manifest["processes"])


def missing(folder: Path) -> str | None:
    """What is missing in a checkpoint to resume it, in words; None if it is complete."""
    if not folder.is_dir():
        return "the folder itself"
    try:
        manifest = _manifest(folder)
        sizes = {name: int(size) for name, size in manifest["files"].items()}
        readable = manifest["engine"] in ENGINES and manifest["step"] >= 0 and manifest["processes"] > 0
    except FileNotFoundError:
        return f"{MANIFEST}, which Mini-R1 writes last: it was interrupted, or another program wrote the checkpoint"
    except (ValueError, KeyError, AttributeError, TypeError):
        readable = False
    if not readable:
        return f"a readable {MANIFEST}"
    for name, size in sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if there != size or not (folder / name).is_file():
            return f"{name} ({there:,} of {size:,} bytes are there)"
    return None if any("optim" in name for name in sizes) else "the optimizer, which save_only_model leaves out"


def _manifest(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


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
    # DeepSpeed names the folder of its shards in the file `latest`.
    shards = checkpoint.folder / (checkpoint.folder / "latest").read_text().strip() if both_deepspeed else None
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


def write_manifest(folder: Path, step: int, engine: str, processes: int, more: Mapping[str, Any] | None = None) -> None:
    """List every file of a checkpoint with its size, and `more`; the file appears complete or not at all."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    draft = folder / f"{MANIFEST}.part"
    manifest = {"step": step, "engine": engine, "processes": processes, **(more or {}), "files": files}
    draft.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
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
