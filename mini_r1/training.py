"""One GRPO run from recipe to saved model: data, trainer, resume, evaluation before, during and after."""

import functools
import json
import logging
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import ProgressCallback
from trl import GRPOConfig, ModelConfig, get_peft_config, get_quantization_config

from mini_r1.checkpoints import (
    WriteManifest,
    choose_checkpoint,
    disk_full_error,
    is_disk_full,
    load_across_cpu_processes,
    restore_data_order,
)
from mini_r1.countdown import load_countdown, split_train_test
from mini_r1.decoding import decode_without_ended
from mini_r1.generation_server import generation_server, limit_requests
from mini_r1.interrupts import StopOnRequest, StopRequest
from mini_r1.progress import SolveRateProgress
from mini_r1.prompts import build_prompts
from mini_r1.recipe import ScriptArguments, load_tokenizer, model_init_kwargs
from mini_r1.rewards import equation_reward_func, format_reward_func
from mini_r1.samples import SampleRecorder
from mini_r1.trimming import TrimmedGRPOTrainer

logger = logging.getLogger(__name__)

SAMPLES_FOLDER = "completion_samples"
SUMMARY = "run.json"


def prepare_datasets(script: ScriptArguments, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, Dataset]:
    """The puzzles with their prompts: those to train on, and the held-out ones for evaluation during the run.

    Both carry the column `split` ("train" or "test"), so that a recorded sample says which it is.
    """
    puzzles = load_countdown(
        script.dataset_id_or_path,
        split=script.dataset_split,
        max_samples=script.max_samples,
        seed=script.split_seed,
        revision=script.dataset_revision,
    )
    sides = split_train_test(puzzles, script.test_size, script.split_seed)
    prepared = []
    for name, side in sides.items():
        if name == "test":
            side = side.select(range(min(script.eval_puzzles, len(side))))
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
) -> TrimmedGRPOTrainer:
    """TRL's trainer with our puzzles, rewards and progress; all that the recipe says of the model reaches the model."""
    tokenizer = load_tokenizer(script, training, model)
    train, test = prepare_datasets(script, tokenizer)
    training.model_init_kwargs, note = model_init_kwargs(model)
    if note:
        logger.warning(note)
    rewards: list[Any] = [format_reward_func, recorder.observe(equation_reward_func)]
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

    Returns:
        the exit status: 0 when done (or stopped by SIGTERM with a checkpoint), 130 after Ctrl-C.
    """
    started = time.monotonic()
    checkpoint = choose_checkpoint(training)
    if checkpoint:
        logger.warning("going on from %s (step %d)", checkpoint.folder, checkpoint.step)
        training.eval_on_start = False
    set_seed(training.seed)
    writes = training.process_index == 0
    recorder = SampleRecorder(output_folder(training) / SAMPLES_FOLDER, script.samples_per_step, writes)
    recorder.rewind(checkpoint.step if checkpoint else 0)
    stop = StopRequest().install()
    with generation_server(script, training, model):
        trainer = build_trainer(script, training, model, recorder)
        limit_requests(trainer, script.vllm_request_timeout)
        trainer.add_callback(StopOnRequest(stop))
        trainer.add_callback(WriteManifest())
        if checkpoint:
            load_across_cpu_processes()
            restore_data_order(trainer, checkpoint)
        if stop.agreed(training):  # while everything was loading
            return stop.exit_status
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise disk_full_error(output_folder(training), trainer.state.global_step, trainer.model) from error
        if stop.agreed(training):
            if trainer.is_world_process_zero():
                print(f"stopped at step {trainer.state.global_step}; the same command goes on from there", flush=True)
            return stop.exit_status
        _finish(trainer, script, model, time.monotonic() - started)
    return 0


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
        trainer.create_model_card(model_name=output.name, dataset_name=script.dataset_id_or_path, tags=["countdown"])
        summary = run_summary(trainer, model, seconds)
        (output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        print(f"{trainer.state.global_step} steps, {seconds / 60:.1f} min; model saved in {output}", flush=True)
    trainer.accelerator.wait_for_everyone()


def run_summary(trainer: TrimmedGRPOTrainer, model: ModelConfig, seconds: float) -> dict[str, Any]:
    """What it took, for the report: command, seed, steps, seconds of this process (a resumed run's last part)."""
    command = f"python {shlex.join(sys.argv)}"
    return {
        "command": command,
        "model": model.model_name_or_path,
        "seed": trainer.args.seed,
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "hardware": hardware(),
        "processes": trainer.args.world_size,
        "torch": torch.__version__,
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
