"""One GRPO run from recipe to saved model: data, trainer, resume, evaluation before, during and after."""

import contextlib
import copy
import functools
import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sized
from typing import Any, cast

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerState, set_seed
from transformers.generation import StoppingCriteriaList
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import ProgressCallback
from trl import GRPOConfig, ModelConfig, get_peft_config, get_quantization_config

from mini_r1.generation.decoding import decode_without_ended
from mini_r1.generation.server import generation_server, limit_requests
from mini_r1.hub.push import WITHOUT_PUSH, HubPush, hub_push
from mini_r1.machine.hardware import hardware
from mini_r1.policy.checkpoints import Checkpoint, choose_checkpoint, decide_for_all, disk_full_error
from mini_r1.program.causes import DISK_FULL, NON_FINITE
from mini_r1.program.failures import output_is, say
from mini_r1.program.harmless import harmless, make_harmless
from mini_r1.program.problems import ProblemError, UserError
from mini_r1.program.redact import redact
from mini_r1.prompts.build import PromptWriter, build_prompts, find_prompt_change
from mini_r1.prompts.settings import PromptSettings
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import plan_batches
from mini_r1.recipe.read import load_tokenizer, model_init_kwargs, read_prompt_settings
from mini_r1.results.card import CardWriter, versions, write_card
from mini_r1.runs.folder import Standing, count_steps, examine_output, output_path
from mini_r1.runs.holdout import DataError, DataSettings, Sides, check_unchanged, hold_out
from mini_r1.runs.identity import RunRecord, record_run
from mini_r1.runs.lock import run_lock
from mini_r1.tasks.registry import rewards_of
from mini_r1.tasks.task import RewardFunction
from mini_r1.train.finite import StopIfNotFinite, diverged
from mini_r1.train.interrupts import StopOnRequest, StopRequest
from mini_r1.train.progress import SolveRateProgress
from mini_r1.train.resume import (
    TakeNewSteps,
    WriteManifest,
    load_across_cpu_processes,
)
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.trainer import R1Trainer

logger = logging.getLogger(__name__)

SAMPLES_FOLDER = "completion_samples"


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


def build_trainer(
    script: ScriptArguments,
    training: GRPOConfig,
    model: ModelConfig,
    recorder: SampleRecorder,
    sides: Sides | None = None,
    prompt_settings: PromptSettings | None = None,
    rewards: Mapping[str, RewardFunction] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> R1Trainer:
    """TRL's trainer with the task's problems and rewards; all that the recipe says of the model reaches the model.

    `sides` and `tokenizer` save loading them again; `prompt_settings` are those of a new run by default;
    `rewards` take the place of those that the recipe names, where a notebook has functions that no recipe could name.
    """
    prompt_settings = prompt_settings or read_prompt_settings(script, training)
    tokenizer = tokenizer or load_tokenizer(script, training, model)
    if prompt_settings.chat_template:
        tokenizer.chat_template = prompt_settings.chat_template  # and it is saved with the model
    sides = sides or hold_out(DataSettings.of(script))
    rewards = rewards or rewards_of(sides.task, script.reward_funcs, training.max_completion_length)
    train, test = prepare_datasets(script, tokenizer, sides, prompt_settings)
    init_kwargs, note = model_init_kwargs(model)
    if note:
        logger.warning(note)
    trainer = R1Trainer(
        model=str(model.model_name_or_path),
        args=changed(training, model_init_kwargs=init_kwargs),
        reward_funcs=cast(Any, recorder.observe(sides.task, rewards)),
        train_dataset=train,
        eval_dataset=test if training.eval_strategy != "no" or training.eval_on_start else None,
        processing_class=tokenizer,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
    )
    if model.load_in_4bit:
        from mini_r1.train.qlora import prepare_for_training  # needs bitsandbytes, which the other setups do without

        prepare_for_training(trainer.model)
    trainer.length_buckets = script.length_buckets
    if not is_deepspeed_zero3_enabled():  # there, all processes must run the model equally often
        policy = trainer.accelerator.unwrap_model(trainer.model)
        policy.generate = functools.partial(policy.generate, custom_generate=decode_without_ended)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(SolveRateProgress())
    return trainer


def changed(training: GRPOConfig, **values: Any) -> GRPOConfig:
    """The trainer's arguments where a run changes what its recipe says; the recipe's own stay as they were read.

    A plain copy: `dataclasses.replace` would have GRPOConfig derive its values from those that are derived already.
    """
    arguments = copy.copy(training)
    for name, value in values.items():
        setattr(arguments, name, value)
    return arguments


def run(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> int:
    """Train, or resume a run that was interrupted, and save the model; a finished run is left as it is.

    Raises:
        UserError: what is in the output folder is not for this run to touch, this launch can't resume it, the data
            are not those that it began with, or fewer steps were trained than asked for.
        DiskFullError: while training; the last complete checkpoint is kept.
        NonFiniteError: training has diverged.

    Returns:
        the exit status: 0 when done (or stopped by SIGTERM with a checkpoint), 130 after Ctrl-C.
    """
    stop = StopRequest(at_once=True).install()
    try:
        return _run_alone(script, training, model, stop)
    except KeyboardInterrupt:
        if stop.received in (None, signal.SIGINT):
            raise
        say("stopped before the first step" if stop.at_once else f"stopped at once by {stop.received.name}")
        return stop.exit_status if stop.at_once else 128 + stop.received


def _run_alone(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, stop: StopRequest) -> int:
    """Run unless the run is finished or not for this folder, and alone in it."""
    started = time.monotonic()
    record = record_run(script)
    if _examine(script, training, model, record).finished:
        if training.process_index == 0:
            print(f"{output_path(training)} holds this run, finished: nothing left to train", flush=True)
        return 0
    with contextlib.ExitStack() as kept:
        decide_for_all(training, lambda: kept.enter_context(run_lock(output_path(training))))
        return _run(script, training, model, record, stop, started)


def _examine(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, record: RunRecord) -> Standing:
    return decide_for_all(training, lambda: examine_output(script, training, model, record, training.world_size))


def _run(
    script: ScriptArguments,
    training: GRPOConfig,
    model: ModelConfig,
    record: RunRecord,
    stop: StopRequest,
    started: float,
) -> int:
    """Train in a folder that is this process's alone."""
    output_is(output_path(training))
    push = hub_push(training)
    standing = _examine(script, training, model, record)
    checkpoint = choose_checkpoint(training)
    if checkpoint:
        _say_resumed(training, checkpoint, standing)
    sides, writer, record = _describe(script, training, model, standing.began)
    set_seed(training.seed)
    writes = training.process_index == 0
    recorder = SampleRecorder(output_path(training) / SAMPLES_FOLDER, script.samples_per_step, writes)
    recorder.rewind(checkpoint.step if checkpoint else 0)
    with generation_server(script, training, model) as place:
        starts_with_evaluation = training.eval_on_start and not checkpoint
        arguments = changed(training, eval_on_start=starts_with_evaluation, **WITHOUT_PUSH, **place)
        trainer = build_trainer(
            script, arguments, model, recorder, sides, writer.format.settings, tokenizer=writer.tokenizer
        )
        check_enough(training, len(cast(Sized, trainer.train_dataset)), sides)
        limit_requests(trainer, script.vllm_request_timeout)

        def seconds() -> float:
            return standing.seconds + time.monotonic() - started

        def summary() -> dict[str, Any]:
            return run_summary(trainer, script, model, record, seconds())

        _add_callbacks(trainer, stop, WriteManifest(record.as_json(), seconds), summary, push)
        _train(trainer, checkpoint)
        _end(trainer, stop, summary)
    if push:  # after the last barrier, so that no other process waits for the upload
        push.finish() if stop.received is None else push.stop()
    return stop.exit_status


def _describe(
    script: ScriptArguments, training: GRPOConfig, model: ModelConfig, began: RunRecord | None
) -> tuple[Sides, PromptWriter, RunRecord]:
    """The problems and prompts of the run, which are those that it began with, and its complete record."""
    sides = load_sides(script, training, began)
    settings = choose_prompt_settings(script, training, began)
    writer = PromptWriter(load_tokenizer(script, training, model), sides.task, settings)
    return sides, writer, record_run(script, sides, record_prompt(writer, began))


def _end(trainer: R1Trainer, stop: StopRequest, summary: Callable[[], dict[str, Any]]) -> None:
    """Evaluate and save what was trained; a run that is asked to stop, in that evaluation too, resumes another time."""
    if not stop.agreed(trainer.args):
        check_trained(trainer.state)
        _evaluate_at_end(trainer)
    if stop.agreed(trainer.args):
        _stop_here(trainer)
    else:
        _finish(trainer, summary)


def _say_resumed(training: GRPOConfig, checkpoint: Checkpoint, standing: Standing) -> None:
    if training.process_index == 0:
        print("\n".join([f"resuming from {checkpoint.folder} (step {checkpoint.step})", *standing.notes]), flush=True)


def _stop_here(trainer: R1Trainer) -> None:
    """Leave a checkpoint, which there is already unless the evaluation at the end was left, and say so."""
    trainer.save_checkpoint_if_missing()
    if trainer.is_world_process_zero():
        harmless(print)(f"stopped at step {trainer.state.global_step}; the same command resumes from there", flush=True)


def _add_callbacks(
    trainer: R1Trainer,
    stop: StopRequest,
    manifest: WriteManifest,
    summary: Callable[[], dict[str, Any]],
    push: HubPush | None,
) -> None:
    """Everything that accompanies the training, in the order in which it is to act."""
    _watch(trainer, stop)
    trainer.add_callback(TakeNewSteps())
    trainer.add_callback(manifest)
    if trainer.is_world_process_zero():
        trainer.add_callback(CardWriter(output_path(trainer.args), summary))
    if push:  # after the card, which it pushes too
        trainer.add_callback(push)
    make_harmless(trainer.callback_handler.callbacks, more=(CardWriter, HubPush))


def _watch(trainer: R1Trainer, stop: StopRequest) -> None:
    """Let a signal, or numbers that are not finite, end the run in order."""
    finite, leave = StopIfNotFinite(), StopOnRequest(stop)
    trainer.add_callback(finite)
    trainer.add_callback(leave)
    trainer.stop_if_not_finite, trainer.stop_on_request = finite, leave
    if trainer.args.world_size == 1:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        criteria = StoppingCriteriaList([leave.token_by_token()])
        policy.generate = functools.partial(policy.generate, stopping_criteria=criteria)


def load_sides(script: ScriptArguments, training: GRPOConfig, began: RunRecord | None) -> Sides:
    """The problems of a recipe on both sides of the split; a resumed run's are those that it began with.

    Raises:
        DataError: if they have changed since, or are too few for one step.
        ValueError, OSError: as `hold_out`.
    """
    sides = hold_out(DataSettings.of(script))
    if began:
        check_unchanged(sides, began.data)
    check_enough(training, len(sides.train), sides)
    return sides


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


def check_enough(training: GRPOConfig, rows: int, sides: Sides) -> None:
    """Refuse problems that don't fill one generation batch: TRL would train no step, and the model would be saved.

    Args:
        rows: how many of the training side have a prompt that is short enough.
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


def check_trained(state: TrainerState) -> None:
    """Refuse to call a run finished that has trained fewer steps than it was asked for.

    Raises:
        DataError: saying how many.
    """
    if state.global_step < state.max_steps:
        raise DataError(
            f"training ended at step {state.global_step} of {state.max_steps}, and nobody asked it to; no model was "
            f"saved. Fix: give it more data to train on, or ask for fewer steps"
        )


def _train(trainer: R1Trainer, checkpoint: Checkpoint | None) -> None:
    """Train to the end, from a checkpoint where there is one, or until all processes have agreed to stop.

    Raises:
        DiskFullError: if nothing more can be written; a checkpoint that was half written is removed.
        NonFiniteError: if training has diverged.
    """
    if checkpoint:
        load_across_cpu_processes()
        trainer.resume(checkpoint)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    except UserError:
        raise
    except Exception as error:
        step = trainer.state.global_step
        if DISK_FULL.caused(error):
            raise disk_full_error(output_path(trainer.args), step, trainer.model) from error
        if NON_FINITE.caused(error):
            raise diverged("the policy's probabilities are", step, trainer.args) from error
        raise


def _evaluate_at_end(trainer: R1Trainer) -> None:
    """Evaluate what was trained, if that was not done after the last step."""
    last = trainer.state.log_history[-2:]
    evaluated = any("eval_reward" in entry and entry["step"] == trainer.state.global_step for entry in last)
    if trainer.eval_dataset is not None and not evaluated:
        trainer.evaluate()


def _finish(trainer: R1Trainer, summary: Callable[[], dict[str, Any]]) -> None:
    """Save card, model, tokenizer and, last, the state: the run is finished."""
    output = output_path(trainer.args)
    run = summary()
    if trainer.is_world_process_zero():
        harmless(write_card)(output, run, trainer.state.log_history)
    trainer.save_model(str(output))
    trainer.save_state()
    if trainer.is_world_process_zero():
        harmless(print)(f"{run['steps']} steps, {run['seconds'] / 60:.1f} min; model saved in {output}", flush=True)
    trainer.accelerator.wait_for_everyone()


def run_summary(
    trainer: R1Trainer, script: ScriptArguments, model: ModelConfig, record: RunRecord, seconds: float
) -> dict[str, Any]:
    """What it took, for report and card: command, seed, steps, seconds of all its parts; and the run's record."""
    command = redact(f"python {shlex.join(sys.argv)}")
    return {
        "command": command,
        "model": model.model_name_or_path,
        "seed": trainer.args.seed,
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "hardware": hardware(),
        "processes": trainer.args.world_size,
        "versions": versions(),
        "recipe": script.given,
        "adapter": model.use_peft,
        **record.as_json(),
    }
