"""One run, GRPO or a cold start, from recipe to saved model: `_run` tells it from top to bottom."""

import contextlib
import functools
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sized
from typing import Any, cast

from transformers import set_seed
from trl import GRPOConfig, ModelConfig

from mini_r1.generation.server import generation_server, limit_requests
from mini_r1.hub.push import WITHOUT_PUSH, HubPush, hub_push
from mini_r1.machine.allocator import keep_freed_memory
from mini_r1.machine.gpus import uses_gpus
from mini_r1.machine.hardware import hardware
from mini_r1.policy.checkpoints import choose_checkpoint, decide_for_all
from mini_r1.program.failures import output_is, say
from mini_r1.program.harmless import harmless, make_harmless
from mini_r1.program.redact import redact
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.results.card import CardWriter, versions, write_card
from mini_r1.runs.folder import Standing, examine_output, output_path
from mini_r1.runs.holdout import DataError
from mini_r1.runs.identity import RunRecord, record_run
from mini_r1.runs.lock import run_lock
from mini_r1.train.cold_start import build_cold_start
from mini_r1.train.data import check_enough, load_problems
from mini_r1.train.interrupts import StopRequest
from mini_r1.train.orderly import OrderlyTrainer, changed
from mini_r1.train.resume import TakeNewSteps, WriteManifest
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.trainer import build_trainer

SAMPLES_FOLDER = "completion_samples"


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
    if not uses_gpus(training):
        keep_freed_memory()
    try:
        return _run(script, training, model, stop)
    except KeyboardInterrupt:
        if stop.received in (None, signal.SIGINT):
            raise
        say("stopped before the first step" if stop.at_once else f"stopped at once by {stop.received.name}")
        return stop.exit_status if stop.at_once else 128 + stop.received


def _run(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, stop: StopRequest) -> int:
    """The story of a run, which is alone in its folder unless it has nothing to do there."""
    started, output, is_main = time.monotonic(), output_path(training), training.process_index == 0
    planned = record_run(script)
    if _examine(script, training, model, planned).finished:
        if is_main:
            print(f"{output} holds this run, finished: nothing left to train", flush=True)
        return 0
    with contextlib.ExitStack() as to_the_end:
        decide_for_all(training, lambda: to_the_end.enter_context(run_lock(output)))
        output_is(output)
        push = hub_push(training)
        standing = _examine(script, training, model, planned)  # again, now that no other process can change it
        checkpoint = choose_checkpoint(training)
        if checkpoint and is_main:
            print(f"resuming from {checkpoint.folder} (step {checkpoint.step})", *standing.notes, sep="\n", flush=True)
        sides, writer, record = load_problems(script, training, model, standing.began)
        set_seed(training.seed)
        recorder = SampleRecorder(output / SAMPLES_FOLDER, script.samples_per_step, is_main)
        recorder.rewind(checkpoint.step if checkpoint else 0)
        with generation_server(script, training, model) as place:
            first_evaluation = training.eval_on_start and not checkpoint
            arguments = changed(training, eval_on_start=first_evaluation, **WITHOUT_PUSH, **place)
            trainer: OrderlyTrainer
            if script.method == "sft":
                trainer = build_cold_start(script, arguments, model, sides, writer)
            else:
                trainer = build_trainer(script, arguments, model, recorder, sides, writer=writer)
                limit_requests(trainer, script.vllm_request_timeout)
            check_enough(training, len(cast(Sized, trainer.train_dataset)), sides)
            since = started - standing.seconds  # when it would have started had it never been interrupted
            summarise = functools.partial(run_summary, trainer, script, model, record, since)
            trainer.watch(stop)
            _accompany(trainer, WriteManifest(record.as_json(), since), summarise, push)
            trainer.train_from(checkpoint)
            _end(trainer, stop, summarise)
        if push:  # after the last barrier, so that no other process waits for the upload
            push.finish() if stop.received is None else push.stop()
    return stop.exit_status


def _examine(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, record: RunRecord) -> Standing:
    return decide_for_all(training, lambda: examine_output(script, training, model, record, training.world_size))


def _accompany(
    trainer: OrderlyTrainer, manifest: WriteManifest, summarise: Callable[[], dict[str, Any]], push: HubPush | None
) -> None:
    """Have each save followed, in this order, by its manifest and, on process zero, by the card and the push."""
    trainer.add_callback(TakeNewSteps())
    trainer.add_callback(manifest)
    if trainer.is_world_process_zero():
        trainer.add_callback(CardWriter(output_path(trainer.args), summarise))
    if push:
        trainer.add_callback(push)
    make_harmless(trainer.callback_handler.callbacks, more=(CardWriter, HubPush))


def _end(trainer: OrderlyTrainer, stop: StopRequest, summarise: Callable[[], dict[str, Any]]) -> None:
    """Evaluate and save what was trained; a run that is asked to stop, in that evaluation too, resumes another time."""
    output, state, is_main = output_path(trainer.args), trainer.state, trainer.is_world_process_zero()
    if not stop.agreed(trainer.args):
        if state.global_step < state.max_steps:
            raise DataError(
                f"training ended at step {state.global_step} of {state.max_steps}, and nobody asked it to; no model "
                f"was saved. Fix: give it more data to train on, or ask for fewer steps"
            )
        trainer.evaluate_at_end()
    if stop.agreed(trainer.args):
        trainer.save_checkpoint_if_missing()
        words = f"stopped at step {state.global_step}; the same command resumes from there"
    else:
        summary = summarise()
        if is_main:
            harmless(write_card)(output, summary, state.log_history)
        trainer.save_model(str(output))
        trainer.save_state()  # last: the run is finished
        words = f"{summary['steps']} steps, {summary['seconds'] / 60:.1f} min; model saved in {output}"
    if is_main:
        harmless(print)(words, flush=True)
    trainer.accelerator.wait_for_everyone()


def run_summary(
    trainer: OrderlyTrainer, script: ScriptArguments, model: ModelConfig, record: RunRecord, since: float
) -> dict[str, Any]:
    """What it took, for report and card: command, seed, steps, seconds of all its parts; and the run's record."""
    return {
        "command": redact(f"python {shlex.join(sys.argv)}"),
        "model": model.model_name_or_path,
        "seed": trainer.args.seed,
        "steps": trainer.state.global_step,
        "seconds": round(time.monotonic() - since, 1),
        "hardware": hardware(),
        "processes": trainer.args.world_size,
        "versions": versions(),
        "recipe": script.given,
        "adapter": model.use_peft,
        **record.as_json(),
    }
