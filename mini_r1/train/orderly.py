"""What every trainer of this project has beside what it learns: it stops in order, resumes exactly and saves plainly.

The one module for private names of transformers' Trainer: whatever this project must override or call of them is here;
those of TRL's are in `mini_r1.train.trainer`. tests/train/test_trainer.py has all of them in a table, and fails when
one moves.
"""

import copy
import functools
import logging
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Trainer
from transformers.trainer_callback import ProgressCallback
from trl import GRPOConfig, ModelConfig, get_peft_config, get_quantization_config

from mini_r1.machine.kernels import leave_out_cudnn
from mini_r1.policy.checkpoints import Checkpoint, decide_for_all, disk_full_error, missing
from mini_r1.program.causes import DISK_FULL, NON_FINITE
from mini_r1.program.harmless import harmless
from mini_r1.program.problems import UserError
from mini_r1.recipe.read import model_init_kwargs
from mini_r1.runs.folder import give_usual_modes, output_path
from mini_r1.train.finite import StopIfNotFinite, diverged
from mini_r1.train.interrupts import StopOnRequest, StopRequest
from mini_r1.train.progress import RunProgress
from mini_r1.train.resume import load_across_cpu_processes

logger = logging.getLogger(__name__)


def model_arguments(training: GRPOConfig, model: ModelConfig) -> dict[str, Any]:
    """What a trainer of TRL's takes of the recipe's model: its name, and all that the recipe says of it."""
    init_kwargs, note = model_init_kwargs(model)
    if note:
        logger.warning(note)
    return {
        "model": str(model.model_name_or_path),
        "args": changed(training, model_init_kwargs=init_kwargs),
        "peft_config": get_peft_config(model),
        "quantization_config": get_quantization_config(model),
    }


def changed(training: GRPOConfig, **values: Any) -> GRPOConfig:
    """The trainer's arguments where a run changes what its recipe says; the recipe's own stay as they were read.

    A plain copy: `dataclasses.replace` would have the configuration derive its values from those derived already.
    """
    arguments = copy.copy(training)
    for name, value in values.items():
        setattr(arguments, name, value)
    return arguments


class OrderlyTrainer(Trainer):
    """A Trainer that can be resumed and stopped in order; to be named before a trainer of TRL's.

    Attributes:
        stop_on_request, stop_if_not_finite: what ends a run in order; set by `watch`.
        resumes: the checkpoint that training continues from; set by `train_from`.
    """

    stop_on_request: StopOnRequest | None = None
    stop_if_not_finite: StopIfNotFinite | None = None
    resumes: Checkpoint | None = None
    args: Any  # TRL's configuration, typed as TrainingArguments by transformers
    model: Any  # typed as optional by transformers; TRL's trainers always have one

    def prepare(self, model: ModelConfig, progress: RunProgress) -> None:
        """Leave out kernels that can't be trusted, make 4-bit weights ready, and put the project's bar in its place."""
        leave_out_cudnn()
        if model.load_in_4bit:
            from mini_r1.train.qlora import prepare_for_training  # needs bitsandbytes, which other setups do without

            prepare_for_training(self.model)
        self.remove_callback(ProgressCallback)
        self.add_callback(progress)

    def watch(self, stop: StopRequest) -> None:
        """Let a signal, or numbers that are not finite, end the run in order."""
        self.stop_if_not_finite, self.stop_on_request = StopIfNotFinite(), StopOnRequest(stop)
        self.add_callback(self.stop_if_not_finite)
        self.add_callback(self.stop_on_request)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in transformers; the loss is looked at."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.stop_if_not_finite:
            self.stop_if_not_finite.look_at(loss)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in transformers; without a result, and followed by a checkpoint, if it is left on request."""
        evaluate = functools.partial(super().evaluate, *args, **kwargs)
        return self.stop_on_request.evaluate(evaluate, self.control) if self.stop_on_request else evaluate()

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers, which evaluates here, looks whether the result is the best so far, and saves."""
        after_step = functools.partial(super()._maybe_log_save_evaluate, *args, **kwargs)
        if self.stop_on_request:
            self.stop_on_request.after_step(after_step)
        else:
            after_step()

    def train_from(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end, from a checkpoint where there is one, or until all processes have agreed to stop.

        Raises:
            DiskFullError: if nothing more can be written; a checkpoint that was half written is removed.
            NonFiniteError: if training has diverged.
        """
        self.resumes = checkpoint
        if checkpoint:
            load_across_cpu_processes()
        try:
            self.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
        except UserError:
            raise
        except Exception as error:
            step = self.state.global_step
            if DISK_FULL.caused(error):
                raise disk_full_error(output_path(self.args), step, self.model) from error
            if NON_FINITE.caused(error):
                raise diverged("the policy's probabilities are", step, self.args) from error
            raise

    def evaluate_at_end(self) -> None:
        """Evaluate what was trained, if that was not done after the last step."""
        last = self.state.log_history[-2:]
        evaluated = any("eval_runtime" in entry and entry["step"] == self.state.global_step for entry in last)
        if self.eval_dataset is not None and not evaluated:
            self.evaluate()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers, which looks at `max_steps` after a step only; nothing if all of them are done."""
        if not (self.resumes and self.resumes.step >= self.args.max_steps > 0):
            super()._run_epoch(*args, **kwargs)

    def save_checkpoint_if_missing(self) -> None:
        """Save a checkpoint of the current step, outside of `train`; all processes must call this."""
        if decide_for_all(self.args, lambda: missing(self.checkpoint_folder())) is None:
            return
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def checkpoint_folder(self) -> Path:
        """Where a checkpoint of the current step is saved."""
        return Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"

    def add_to_checkpoint(self, folder: Path) -> None:
        """Save what a subclass needs beside what every trainer saves; called in all processes."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers, whose trainers cannot add to a checkpoint that is to be resumed."""
        super()._save_checkpoint(*args, **kwargs)
        if not self.args.save_only_model:
            self.add_to_checkpoint(self.checkpoint_folder())

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in transformers; whoever may read the folder may read its files."""
        super()._save(output_dir, state_dict)
        harmless(give_usual_modes)(Path(output_dir or str(self.args.output_dir)).expanduser())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: TRL would write a card of its own at each save, before ours (`mini_r1.results.card`)."""
