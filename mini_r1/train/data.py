"""The problems of a run with their prompts: those that it began with, on both sides of the split, and enough."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, ModelConfig

from mini_r1.policy.checkpoints import decide_for_all
from mini_r1.program.problems import ProblemError
from mini_r1.prompts.build import PromptWriter, build_prompts, find_prompt_change
from mini_r1.prompts.settings import PromptSettings
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import plan_batches
from mini_r1.recipe.read import load_tokenizer, read_prompt_settings
from mini_r1.runs.folder import count_steps
from mini_r1.runs.holdout import DataError, DataSettings, Sides, check_unchanged, hold_out
from mini_r1.runs.identity import RunRecord, record_run


def load_problems(
    script: ScriptArguments, training: GRPOConfig, model: ModelConfig, began: RunRecord | None
) -> tuple[Sides, PromptWriter, RunRecord]:
    """The problems of a run and what writes its prompts, which are those that it began with, and its complete record.

    Raises:
        DataError: if the problems have changed since, or are too few for one step.
        ProblemError: if the prompt has changed since.
        ValueError, OSError: as `hold_out`.
    """
    sides = hold_out(DataSettings.of(script))
    if began:
        check_unchanged(sides, began.data)
    check_enough(training, len(sides.train), sides)
    settings = choose_prompt_settings(script, training, began)
    writer = PromptWriter(load_tokenizer(script, training, model), sides.task, settings)
    return sides, writer, record_run(script, sides, record_prompt(writer, began))


def choose_prompt_settings(script: ScriptArguments, training: GRPOConfig, began: RunRecord | None) -> PromptSettings:
    """What the prompts of a run rest on; a run that is resumed tomorrow keeps its date, and so its prompts.

    The main process decides for all, who might see midnight pass between them.
    """
    record = began.prompt if began else {}
    return decide_for_all(training, lambda: read_prompt_settings(script, training, record))


def record_prompt(writer: PromptWriter, began: RunRecord | None) -> dict[str, Any]:
    """The part `prompt` of a run's record: the settings of the prompts, and an example of one.

    Raises:
        ProblemError: if a run that is resumed began with another prompt.
    """
    made = writer.example()
    if changed := find_prompt_change(made, began.prompt if began else {}):
        raise ProblemError(changed)
    return writer.format.settings.record() | made


def prepare_datasets(
    script: ScriptArguments,
    tokenizer: PreTrainedTokenizerBase,
    sides: Sides | None = None,
    prompt_settings: PromptSettings | None = None,
) -> tuple[Dataset, Dataset]:
    """The problems with their prompts: those to train on, and the held-out ones for evaluation during the run.

    Both carry the column `split` ("train" or "test"), so that a recorded sample says which it is. `sides` saves
    loading them again.
    """
    sides = sides or hold_out(DataSettings.of(script))
    watched = sides.held_out.select(range(min(script.eval_puzzles, len(sides.held_out))))
    prepared = []
    for name, side in (("train", sides.train), ("test", watched)):
        side, _ = build_prompts(side, sides.task, tokenizer, script.max_prompt_length, prompt_settings)
        prepared.append(side.add_column("split", [name] * len(side)))
    train, test = prepared
    return train, test


def check_enough(training: GRPOConfig, rows: int, sides: Sides) -> None:
    """Refuse problems that don't fill one generation batch: TRL would train no step, and the model would be saved.

    Args:
        rows: how many of the training side have a prompt that is short enough.

    Raises:
        DataError: saying how many there are and how many it takes.
    """
    if count_steps(training, rows, training.world_size) > 0:
        return
    batches, _ = plan_batches(training, training.world_size)
    dropped = len(sides.train) - rows
    too_long = f"; {dropped} more have too long a prompt" if dropped else ""
    raise DataError(
        f"{rows} problems of {sides.settings.dataset!r} are there to train on ({len(sides.held_out)} are held out"
        f"{too_long}), and one generation batch takes {batches.generation_batch // batches.generations}: not one step "
        f"could be trained. Fix: use more problems, or a smaller batch (per_device_train_batch_size, "
        f"gradient_accumulation_steps)"
    )
