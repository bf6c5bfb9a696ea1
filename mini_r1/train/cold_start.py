"""The cold start: TRL's SFTTrainer on the task's demonstrations, in the very tokens that GRPO will see afterwards.

A row is the prompt's tokens as GRPO has them, the demonstration's, and the end token at which a completion ends. The
loss is of the demonstration and its end alone.
"""

import logging
from typing import Any

from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, ModelConfig, SFTTrainer

from mini_r1.program.problems import Problem, ProblemError
from mini_r1.prompts.build import PromptWriter
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.runs.holdout import Sides
from mini_r1.tasks.demonstrations import demonstrate
from mini_r1.tasks.task import Task, rows_of
from mini_r1.train.data import prepare_datasets
from mini_r1.train.orderly import OrderlyTrainer, model_arguments
from mini_r1.train.progress import LossProgress

logger = logging.getLogger(__name__)

NOT_LEARNED = -100  # the label that the loss leaves out


class ColdStartTrainer(OrderlyTrainer, SFTTrainer):
    """TRL's SFTTrainer, which can be resumed and stopped in order."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in TRL, whose count of tokens is not in a checkpoint: it is kept where its GRPOTrainer keeps its own."""
        self._total_train_tokens = self.state.num_input_tokens_seen
        loss = super().training_step(*args, **kwargs)
        self.state.num_input_tokens_seen = self._total_train_tokens
        return loss


def build_cold_start(
    script: ScriptArguments, training: GRPOConfig, model: ModelConfig, sides: Sides, writer: PromptWriter
) -> ColdStartTrainer:
    """The trainer with the demonstrations of both sides of the split; the held-out ones are only evaluated.

    Raises:
        ProblemError: no problem has a demonstration that is short enough.
    """
    tokenizer = writer.tokenizer
    if template := writer.format.settings.chat_template:
        tokenizer.chat_template = template  # and it is saved with the model
    limit, is_main = int(training.max_completion_length or 0), training.process_index == 0
    train, test = (
        tokenize(side, sides.task, tokenizer, limit, training.seed, shows_progress=is_main)
        for side in prepare_datasets(script, tokenizer, sides, writer.format.settings)
    )
    trainer = ColdStartTrainer(
        train_dataset=train,
        eval_dataset=test if training.eval_strategy != "no" or training.eval_on_start else None,
        processing_class=tokenizer,
        **model_arguments(training, model),
    )
    trainer.prepare(model, LossProgress())
    return trainer


def tokenize(
    problems: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    seed: int,
    shows_progress: bool = False,
) -> Dataset:
    """Turn problems that have a prompt into rows of `input_ids` and `labels`.

    Args:
        limit: the tokens that a demonstration may have, its end token included: `max_completion_length`. Longer ones
            are left out, since GRPO would cut such a completion off.
        shows_progress: a bar; a puzzle of six numbers takes the solver some 80 ms, and there may be 45,000.

    Raises:
        ProblemError: nothing is left.
    """
    bar = tqdm(rows_of(problems), desc="demonstrations", unit="problem", leave=False, disable=not shows_progress)
    pairs = [(row["prompt"], shown) for row in bar if (shown := demonstrate(task, row, seed)) is not None]
    rows = []
    if pairs:
        prompts, texts = map(list, zip(*pairs, strict=True))
        asked = tokenizer(text=prompts)["input_ids"]
        answers = tokenizer(text=texts, add_special_tokens=False)["input_ids"]
        for prompt, answer in zip(asked, answers, strict=True):
            completion = [*answer, tokenizer.eos_token_id]
            if len(completion) <= limit:
                labels = [NOT_LEARNED] * len(prompt) + completion
                rows.append({"input_ids": prompt + completion, "labels": labels})
    missing, too_long = len(problems) - len(pairs), len(pairs) - len(rows)
    left_out = f"{missing} of {len(problems)} problems have none, {too_long} have one of more than {limit} tokens"
    if not rows:
        fix = "raise max_completion_length" if too_long else "another task, or data with the column demonstration"
        raise ProblemError(Problem("method", "sft", "problems with demonstrations", fix, left_out))
    if missing or too_long:
        logger.warning("demonstrations: %d; %s", len(rows), left_out)
    return Dataset.from_list(rows)
