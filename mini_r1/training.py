"""One GRPO run from recipe to saved model: data, trainer, resume, evaluation before, during and after."""

import functools
import logging
import platform
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.generation import StoppingCriteriaList
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import ProgressCallback
from trl import GRPOConfig, ModelConfig, get_peft_config, get_quantization_config

from mini_r1.causes import is_disk_full, is_non_finite
from mini_r1.checkpoints import (
    Checkpoint,
    WriteManifest,
    choose_checkpoint,
    disk_full_error,
    load_across_cpu_processes,
    restore_data_order,
    train_nothing_if_done,
)
from mini_r1.decoding import decode_without_ended
from mini_r1.failures import output_is, say
from mini_r1.finite import StopIfNotFinite, diverged
from mini_r1.generation_server import generation_server, limit_requests
from mini_r1.holdout import DataSettings, Sides, hold_out
from mini_r1.hub import Destination, HubPush, take_over_push
from mini_r1.interrupts import StopOnRequest, StopRequest
from mini_r1.model_card import CardWriter, data_of, versions, write_card
from mini_r1.problems import UserError
from mini_r1.progress import SolveRateProgress
from mini_r1.prompts import build_prompts
from mini_r1.recipe import ScriptArguments, load_tokenizer, model_init_kwargs
from mini_r1.redact import redact
from mini_r1.rewards import equation_reward_func, format_reward_func
from mini_r1.samples import RewardFunction, SampleRecorder
from mini_r1.trimming import TrimmedGRPOTrainer

logger = logging.getLogger(__name__)

SAMPLES_FOLDER = "completion_samples"


def prepare_datasets(
    script: ScriptArguments, tokenizer: PreTrainedTokenizerBase, sides: Sides | None = None
) -> tuple[Dataset, Dataset]:
    """The puzzles with their prompts: those to train on, and the held-out ones for evaluation during the run.

    Both carry the column `split` ("train" or "test"), so that a recorded sample says which it is. `sides` saves
    loading them again.
    """
    sides = sides or hold_out(DataSettings.of(script))
    watched = sides.held_out.select(range(min(script.eval_puzzles, len(sides.held_out))))
    prepared = []
    for name, side in (("train", sides.train), ("test", watched)):
        side, _ = build_prompts(side, tokenizer, script.max_prompt_length)
        prepared.append(side.add_column("split", [name] * len(side)))
    train, test = prepared
    return train, test


def output_folder(training: TrainingArguments) -> Path:
    """Where everything of the run goes; `TrainingArguments` fills in a name if the recipe gives none."""
    return Path(str(training.output_dir))


def build_trainer(
    script: ScriptArguments,
    training: GRPOConfig,
    model: ModelConfig,
    recorder: SampleRecorder,
    extra_rewards: Sequence[RewardFunction] = (),
) -> TrimmedGRPOTrainer:
    """TRL's trainer with our puzzles, rewards and progress; all that the recipe says of the model reaches the model.

    `extra_rewards` follow the two of Mini-R1; TRL's `reward_weights` says what each of them counts (default: 1).
    """
    tokenizer = load_tokenizer(script, training, model)
    train, test = prepare_datasets(script, tokenizer)
    training.model_init_kwargs, note = model_init_kwargs(model)
    if note:
        logger.warning(note)
    rewards: list[Any] = [format_reward_func, recorder.observe(equation_reward_func), *extra_rewards]
    trainer = TrimmedGRPOTrainer(
        model=str(model.model_name_or_path),
        args=training,
        reward_funcs=rewards,
        train_dataset=train,
        eval_dataset=test if training.eval_strategy != "no" or training.eval_on_start else None,
        processing_class=tokenizer,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
    )
    if model.load_in_4bit:
        from mini_r1.qlora import prepare_for_training  # needs bitsandbytes, which the other doors do without

        prepare_for_training(trainer.model)
    trainer.length_buckets = script.length_buckets
    if not is_deepspeed_zero3_enabled():  # there, all processes must run the model equally often
        policy = trainer.accelerator.unwrap_model(trainer.model)
        policy.generate = functools.partial(policy.generate, custom_generate=decode_without_ended)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(SolveRateProgress())
    return trainer


def run(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> int:
    """Train, or go on with a run that was interrupted, and save the model.

    Raises:
        CheckpointError: this launch can't go on from the checkpoint that is there.
        DiskFullError: while training; the last whole checkpoint is kept.
        NonFiniteError: training has diverged.

    Returns:
        the exit status: 0 when done (or stopped by SIGTERM with a checkpoint), 130 after Ctrl-C.
    """
    output_is(output_folder(training))
    stop = StopRequest(at_once=True).install()
    try:
        return _run(script, training, model, stop)
    except KeyboardInterrupt:
        if stop.received in (None, signal.SIGINT):
            raise
        say("stopped before the first step" if stop.at_once else f"stopped at once by {stop.received.name}")
        return stop.exit_status if stop.at_once else 128 + stop.received


def _run(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, stop: StopRequest) -> int:
    started = time.monotonic()
    destination = take_over_push(training)
    checkpoint = choose_checkpoint(training)
    if checkpoint:
        logger.warning("going on from %s (step %d)", checkpoint.folder, checkpoint.step)
        training.eval_on_start = False
    set_seed(training.seed)
    writes = training.process_index == 0
    recorder = SampleRecorder(output_folder(training) / SAMPLES_FOLDER, script.samples_per_step, writes)
    recorder.rewind(checkpoint.step if checkpoint else 0)
    with generation_server(script, training, model):
        trainer = build_trainer(script, training, model, recorder)
        limit_requests(trainer, script.vllm_request_timeout)
        _watch(trainer, stop)
        trainer.add_callback(WriteManifest())
        push = _publish(trainer, script, model, destination, started)
        if checkpoint:
            load_across_cpu_processes()
            restore_data_order(trainer, checkpoint)
            train_nothing_if_done(trainer, checkpoint)
        _train(trainer, checkpoint)
        if stop.agreed(training):
            if trainer.is_world_process_zero():
                print(f"stopped at step {trainer.state.global_step}; the same command goes on from there", flush=True)
            if push:
                push.stop()
            return stop.exit_status
        _finish(trainer, script, model, time.monotonic() - started)
    if push:  # after the last barrier, so that no other process waits for the upload
        push.finish() if stop.received is None else push.stop()
    return stop.exit_status


def _watch(trainer: TrimmedGRPOTrainer, stop: StopRequest) -> None:
    """Let a signal, or numbers that are not finite, end the run in order."""
    finite, leave = StopIfNotFinite(), StopOnRequest(stop)
    trainer.add_callback(finite)
    trainer.add_callback(leave)
    trainer.training_step = finite.observe(trainer.training_step)  # type: ignore[method-assign]
    leave.let_evaluation_be_left(trainer)
    if trainer.args.world_size == 1:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        criteria = StoppingCriteriaList([leave.token_by_token()])
        policy.generate = functools.partial(policy.generate, stopping_criteria=criteria)


def _publish(
    trainer: TrimmedGRPOTrainer, script: ScriptArguments, model: ModelConfig, to: Destination | None, started: float
) -> HubPush | None:
    """Write the card at each save and then, where the recipe asks for it, push; process zero only."""
    # TRL would write a card of its own at each save, before ours.
    trainer.create_model_card = lambda *args, **kwargs: None  # type: ignore[method-assign]
    if not trainer.is_world_process_zero():
        return None
    output = output_folder(trainer.args)
    trainer.add_callback(CardWriter(output, lambda: run_summary(trainer, script, model, time.monotonic() - started)))
    push = HubPush(to, output) if to else None
    if push:
        trainer.add_callback(push)
    return push


def _train(trainer: TrimmedGRPOTrainer, checkpoint: Checkpoint | None) -> None:
    """Train to the end, or until all processes have agreed to stop.

    Raises:
        DiskFullError: if nothing more can be written; a checkpoint that was half written is removed.
        NonFiniteError: if training has diverged.
    """
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    except UserError:
        raise
    except Exception as error:
        step = trainer.state.global_step
        if is_disk_full(error):
            raise disk_full_error(output_folder(trainer.args), step, trainer.model) from error
        if is_non_finite(error):
            raise diverged("the policy's probabilities are", step, trainer.args) from error
        raise


def _finish(trainer: TrimmedGRPOTrainer, script: ScriptArguments, model: ModelConfig, seconds: float) -> None:
    """Evaluate if the last step was not, then save model, tokenizer, curves, card and a summary."""
    last = trainer.state.log_history[-2:]
    evaluated = any("eval_reward" in entry and entry["step"] == trainer.state.global_step for entry in last)
    if trainer.eval_dataset is not None and not evaluated:
        trainer.evaluate()
    output = output_folder(trainer.args)
    trainer.save_model(str(output))
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_card(output, run_summary(trainer, script, model, seconds), trainer.state.log_history)
        print(f"{trainer.state.global_step} steps, {seconds / 60:.1f} min; model saved in {output}", flush=True)
    trainer.accelerator.wait_for_everyone()


def run_summary(
    trainer: TrimmedGRPOTrainer, script: ScriptArguments, model: ModelConfig, seconds: float
) -> dict[str, Any]:
    """What it took, for report and card: command, seed, steps, seconds of this process (a resumed run's last part)."""
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
        "data": data_of(script),
        "recipe": script.given,
        "adapter": model.use_peft,
    }


def hardware() -> str:
    """The machine in a few words: GPUs if training used them, else the processor and its threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads, no GPU"
