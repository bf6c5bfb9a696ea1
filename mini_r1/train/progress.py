"""A run's progress as a person wants to see it: one bar with rate, time left and the current solve rate."""

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from mini_r1.results.metrics import ATTEMPTS, LENGTH
from mini_r1.tasks.task import FORMAT, SOLVED


class SolveRateProgress(ProgressCallback):
    """Transformers' bar, with the policy's figures beside it instead of one printed dictionary a step."""

    training_bar: Any

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.current_step = state.global_step  # a resumed run starts where it stopped
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                desc="GRPO", total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """During training without transformers' second bar, which would break up the first."""
        if self.training_bar is not None:
            self.training_bar.set_description("GRPO, evaluating")
        else:
            super().on_prediction_step(*args, **kwargs)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super().on_evaluate(*args, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("GRPO")

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
        if f"eval_{SOLVED}" in logs:
            tqdm.write(f"step {state.global_step:>4}: held-out {_summary(logs, 'eval_')}")
        elif SOLVED in logs and self.training_bar is not None:
            self.training_bar.set_postfix_str(_summary(logs, ""), refresh=True)
            if args.logging_strategy == IntervalStrategy.STEPS and state.global_step % 10 == 0:
                tqdm.write(f"step {state.global_step:>4}: training {_summary(logs, '')}")


def _summary(logs: dict[str, Any], prefix: str) -> str:
    solved, correct_form, length = (logs.get(prefix + key) or 0.0 for key in (SOLVED, FORMAT, LENGTH))
    attempts = logs.get(prefix + ATTEMPTS)
    tried = "" if attempts is None else f", {attempts:.1f} attempts"
    return f"solved {solved:.1%}, format {correct_form:.1%}, {length:.0f} tokens{tried}"
