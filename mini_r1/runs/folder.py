"""What a run's output folder holds, and what its content means for the run that is about to use it.

Nothing in it is ever replaced unasked: a folder is empty, or it holds this very run, which is resumed or has nothing
left to do; anything else (another run, the base model, somebody's model) is refused before it is touched. Reads a few
small files only, so that the preflight can ask as well.
"""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import TrainingArguments
from trl import GRPOConfig, ModelConfig

from mini_r1.policy.checkpoints import MANIFEST, STATE, checkpoint_folders, missing
from mini_r1.program.problems import Problem, ProblemError
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import plan_batches
from mini_r1.runs.identity import PATHS, Change, RunRecord, changes, find_record
from mini_r1.runs.lock import LOCK
from mini_r1.runs.records import EVALUATION, RUN, read_object

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "adapter_model.bin", "*.gguf")
OURS = frozenset({LOCK, RUN, STATE, "README.md", EVALUATION, "report", "runs", "completion_samples", "error.log"})


class OutputError(ProblemError):
    """An output folder that this run must not use; the message says what it holds and what to do."""

    def __init__(self, output: Path, allowed: str, fix: str, cause: str) -> None:
        super().__init__(Problem("output_dir", output, allowed, fix, cause))


@dataclass(frozen=True)
class Standing:
    """How the run of a recipe stands in its output folder.

    Attributes:
        words: that, for people.
        finished: whether nothing is left to train.
        checkpoint: the folder to resume from, if there is one.
        notes: what is to be said before it is resumed, a line each.
        seconds: the time that the run has taken so far.
        began: the record that it began with, where there is one.
    """

    words: str
    finished: bool = False
    checkpoint: Path | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    began: RunRecord | None = None


def output_path(training: TrainingArguments) -> Path:
    """Where everything of a run goes, as transformers reads it: `~` is the home folder."""
    return Path(os.path.expanduser(str(training.output_dir or "trainer_output")))  # noqa: PTH111


def examine_output(
    script: ScriptArguments, training: GRPOConfig, model: ModelConfig, record: RunRecord, processes: int
) -> Standing:
    """Look at the output folder of a recipe.

    Args:
        training: as read or as built.
        record: that of the recipe (`mini_r1.runs.identity.record_run`).
        processes: how many train.

    Raises:
        ProblemError: if the folder holds something that this run would replace or falsify, no step is asked for, or
            `resume_from_checkpoint` names something incomplete.
    """
    output = output_path(training)
    _check_length(training)
    _check_usable(output)
    _check_apart(output, script, model)
    _check_made_here(output)
    if training.resume_from_checkpoint:
        return _resume(output, _named(training, output), training, record)
    done = _finished_step(output)
    asked = _steps_asked(training, record, output, processes)
    folder = next((path for path in reversed(checkpoint_folders(output)) if missing(path) is None), None)
    if done is not None and (asked is None or asked <= done):
        _compare(output, output, f"a finished run of {done} steps", record)
        return Standing(f"a finished run of {done} steps: nothing left to train", finished=True)
    if folder is not None:
        return _resume(output, folder, training, record)
    if done is not None:
        raise OutputError(
            output,
            "a checkpoint to train on from",
            f"start a new run from its weights: model_name_or_path={output} and another output_dir",
            f"it holds a finished run of {done} steps without a checkpoint, and {asked} steps are asked for",
        )
    others = sorted(path.name for path in output.iterdir() if path.name not in OURS) if output.is_dir() else []
    beside = f", beside files of others, which stay: {', '.join(others[:5])}" if others else ""
    return Standing(f"no run yet{beside}")


def _check_length(training: GRPOConfig) -> None:
    """Refuse a recipe that asks for no step at all."""
    or_leave_out = ", or leave it out to train num_train_epochs"
    if training.max_steps == 0:
        raise ProblemError(Problem("max_steps", 0, "at least one step", f"set max_steps: 1 or more{or_leave_out}"))
    if training.num_iterations < 1:
        allowed = "at least one pass over each generation batch"
        raise ProblemError(Problem("num_iterations", training.num_iterations, allowed, "set num_iterations: 1 or more"))
    if training.max_steps < 0 and not training.num_train_epochs > 0:
        allowed = "more than 0, or max_steps"
        raise ProblemError(Problem("num_train_epochs", training.num_train_epochs, allowed, "set max_steps"))


# --- what must not be touched --------------------------------------------------------------------------------------


def _check_usable(output: Path) -> None:
    """Refuse a file, and a folder that can't be made or written."""
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(output, "a folder", "name another one", f"{there} is a file")
    try:  # not os.access, which lets root write anywhere, even in /proc
        with TemporaryDirectory(dir=there, prefix=".writable-"):
            pass
    except OSError as error:
        cause = f"{there} can't be written ({error.strerror})"
        raise OutputError(output, "a folder that can be written", "name another one", cause) from error


def _check_apart(output: Path, script: ScriptArguments, model: ModelConfig) -> None:
    """Refuse to write into what the run is made from, by whatever path it is named."""
    for key in sorted(PATHS):
        value = getattr(model, key, None) or getattr(script, key, None)
        source = Path(os.path.expanduser(str(value or "")))  # noqa: PTH111
        if not value or not source.is_dir() or not output.is_dir():
            continue
        if output.resolve() == source.resolve() or output.resolve() in source.resolve().parents:
            inside = "" if output.resolve() == source.resolve() else "inside it is "
            raise OutputError(
                output,
                f"another folder than {key}, which the run would replace",
                "set another output_dir",
                f"{inside}{key}={value}",
            )


def _check_made_here(output: Path) -> None:
    """Refuse a folder with a model that no run of this project made."""
    found = sorted(path.name for pattern in WEIGHTS for path in output.glob(pattern))
    record = find_record(output)
    checkpoints = checkpoint_folders(output)
    ours = (output / LOCK).exists() or any((path / MANIFEST).exists() for path in checkpoints)
    wanted, fix = "an empty folder, or one of a run", "set another output_dir"
    if found and not (record and record.data):
        raise OutputError(output, wanted, fix, f"it holds a model that no run of Mini-R1 made ({found[0]})")
    if checkpoints and not ours:
        name = checkpoints[-1].name
        fix += f"; to begin from the weights there, with model_name_or_path={checkpoints[-1]}"
        raise OutputError(output, wanted, fix, f"it holds a checkpoint that no run of Mini-R1 made ({name})")


# --- a run that is there -------------------------------------------------------------------------------------------


def _named(training: GRPOConfig, output: Path) -> Path:
    folder = Path(str(training.resume_from_checkpoint))
    if gap := missing(folder):
        fix = f"name another one, or leave the key out to resume from the newest complete one in {output}; to begin "
        fix += f"from its weights, set model_name_or_path: {folder} and another output_dir"
        cause = f"it is not complete (missing: {gap})"
        raise ProblemError(Problem("resume_from_checkpoint", folder, "a complete checkpoint", fix, cause))
    return folder


def _resume(output: Path, folder: Path, training: GRPOConfig, record: RunRecord) -> Standing:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    step, steps = int(state["global_step"]), int(state.get("max_steps") or 0)
    of = f" of {steps}" if steps else ""
    harmless, known = _compare(output, folder, f"a run at step {step}{of}", record)
    notes = [f"{change}, from here on" for change in harmless]
    if known is None:
        notes = [f"{folder} has no record of its settings (an earlier version wrote it): they are not compared"]
    manifest = read_object(folder / MANIFEST)
    return Standing(
        f"a run at step {step}{of}, which is resumed from {folder}",
        checkpoint=folder,
        notes=notes,
        seconds=float(manifest.get("seconds") or 0.0),
        began=known,
    )


def _compare(output: Path, folder: Path, what: str, record: RunRecord) -> tuple[list[Change], RunRecord | None]:
    """The harmless changes since a run began, and its record.

    Raises:
        ProblemError: for a change that decides the result.
    """
    known = find_record(folder)
    if known is None or not known.settings:
        return [], None
    deciding, harmless = changes(known, record)
    if deciding:
        is_inside = output in (folder, folder.parent)
        name, place = ("output_dir", output) if is_inside else ("resume_from_checkpoint", folder)
        allowed = "the values that it began with, since a resumed run keeps most of them whatever the recipe says"
        fix = f"set another output_dir; to begin from the weights there, with model_name_or_path={folder} too"
        cause = f"it holds {what} that began with other values (old -> new): {'; '.join(map(str, deciding))}"
        raise ProblemError(Problem(name, place, allowed, fix, cause))
    return harmless, known


def _finished_step(output: Path) -> int | None:
    """The steps of a finished run, which leaves its state beside its model; None where there is no such run."""
    state = read_object(output / STATE)
    has_model = any(True for pattern in WEIGHTS for _ in output.glob(pattern))
    step, steps = state.get("global_step"), state.get("max_steps")
    if not has_model or not isinstance(step, int) or not isinstance(steps, int) or step < steps:
        return None
    return step


def _steps_asked(training: GRPOConfig, record: RunRecord, output: Path, processes: int) -> int | None:
    """The steps that a recipe asks for; None if that depends on data that nobody has counted yet."""
    if training.max_steps > 0:
        return int(training.max_steps)
    known = find_record(output)
    rows = record.data.get("train_puzzles") or (known.data.get("train_puzzles") if known else None)
    return count_steps(training, int(rows), processes) if rows else None


def count_steps(training: GRPOConfig, rows: int, processes: int) -> int:
    """The optimizer steps that TRL's sampler yields from so many training puzzles; 0 if they don't fill one batch.

    As trl.trainer.utils.RepeatSampler (which drops the last puzzles that don't fill a generation batch) and
    transformers' Trainer count them, but for the one step that the latter counts where there are none.
    """
    batches, _ = plan_batches(training, processes)
    rounds = rows // max(1, batches.generation_batch // batches.generations)
    micro_batches = rounds * int(training.num_iterations) * batches.steps_per_generation
    if micro_batches <= 0 or training.max_steps > 0:
        return int(training.max_steps) if micro_batches > 0 else 0
    return math.ceil(training.num_train_epochs * math.ceil(micro_batches / batches.accumulation))


def give_usual_modes(folder: Path) -> None:
    """Let a saved model be read by whom the umask lets read; its library leaves it readable by its owner alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o666 & ~umask)
