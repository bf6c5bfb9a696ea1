"""A run's progress as a person wants to see it: one bar with rate, time left and what is learned."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from mini_r1.results.metrics import ATTEMPTS, LENGTH
from mini_r1.tasks.task import FORMAT, SOLVED


class RunProgress(ProgressCallback, ABC):
    """Transformers' bar, with what a subclass has to say beside it instead of one printed dictionary a step."""

    title: ClassVar[str]
    decides: ClassVar[str]  # the name in a log that says that it is one of training, or with eval_ of an evaluation
    training_bar: Any

    @abstractmethod
    def summary(self, logs: Mapping[str, Any], prefix: str) -> str:
        """What is to be read of a log; an evaluation's names begin with the prefix."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.current_step = state.global_step  # a resumed run starts where it stopped
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                desc=self.title, total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """During training without transformers' second bar, which would break up the first."""
        if self.training_bar is not None:
            self.training_bar.set_description(f"{self.title}, evaluating")
        else:
            super().on_prediction_step(*args, **kwargs)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super().on_evaluate(*args, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.title)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if f"eval_{self.decides}" in logs:
            tqdm.write(f"step {state.global_step:>4}: held-out {self.summary(logs, 'eval_')}")
        elif self.decides in logs and self.training_bar is not None:
            self.training_bar.set_postfix_str(self.summary(logs, ""), refresh=True)
            if args.logging_strategy == IntervalStrategy.STEPS and state.global_step % 10 == 0:
                tqdm.write(f"step {state.global_step:>4}: training {self.summary(logs, '')}")


class SolveRateProgress(RunProgress):
    """The bar of GRPO: how much the policy solves, and how."""

    title, decides = "GRPO", SOLVED

    def summary(self, logs: Mapping[str, Any], prefix: str) -> str:
        """Shares solved and in format, length, and attempts where the task counts them."""
        solved, correct_form, length = (logs.get(prefix + key) or 0.0 for key in (SOLVED, FORMAT, LENGTH))
        attempts = logs.get(prefix + ATTEMPTS)
        tried = "" if attempts is None else f", {attempts:.1f} attempts"
        return f"solved {solved:.1%}, format {correct_form:.1%}, {length:.0f} tokens{tried}"


class LossProgress(RunProgress):
    """The bar of a cold start: how well the demonstrations are predicted."""

    title, decides = "SFT", "loss"

    def summary(self, logs: Mapping[str, Any], prefix: str) -> str:
        """The loss, and the share of tokens that are the likeliest ones."""
        predicted = logs.get(f"{prefix}mean_token_accuracy")
        return f"loss {logs[f'{prefix}loss']:.3f}" + ("" if predicted is None else f", {predicted:.1%} of tokens")
