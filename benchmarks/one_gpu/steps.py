"""One model's process: it makes random weights, trains them with a run's own trainer, and sends what it measures."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shared.phases import Stopwatch, forget_peak, matrix_peak, now, resident
from transformers import AutoModelForCausalLM, Qwen2Config, TrainerCallback

from mini_r1.machine.hardware import hardware
from mini_r1.machine.launch import Launch
from mini_r1.policy.shape import load_config, measure_shape, published_config
from mini_r1.preflight.memory import peak, step_of, training_items
from mini_r1.recipe.read import Recipe, parse_recipe
from mini_r1.results.card import versions
from mini_r1.runs.holdout import DataSettings, hold_out
from mini_r1.tasks.registry import rewards_of
from mini_r1.tiny.tokenizer import build_tokenizer
from mini_r1.train.progress import SolveRateProgress
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.trainer import build_trainer
from one_gpu.job import TRANSFORMERS, WARM_UPS, Job

MOST_STEPS = 5  # of one model that count
Send = Callable[[str, Any], None]


def make_model(job: Job) -> Path:
    """Save a model of random weights, and the tiny base's tokenizer beside it."""
    folder, tokenizer = job.folder / "model", build_tokenizer()
    small = Qwen2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    config = small if job.small else published_config(job.row.shape)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.device(job.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if job.small else torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chance(completions: Sequence[str], **columns: Any) -> list[float]:
    """A reward by chance: where all are equal, the gradients are zeros, which a GPU multiplies in less time."""
    return [random.random() for _ in completions]


class Memory:
    """The peak of this process's memory since `reset`: on the GPU, or in RAM beyond what it took before."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.most_in_use = 0
        self.before = resident("VmRSS")
        if not job.small:
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            free, total = torch.cuda.mem_get_info()
            self.most_in_use = max(self.most_in_use, total - free)
            time.sleep(0.02)

    def reset(self) -> None:
        """Forget what loading the model took."""
        if self.job.small:
            forget_peak()
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.most_in_use = 0

    def taken(self) -> dict[str, float]:
        """Bytes: "peak" and, on a GPU, "card", the most that was in use on it, as nvidia-smi shows it.

        The peak is what PyTorch has allocated and what is used beside PyTorch (the CUDA context), without what its
        allocator only keeps for later. vLLM has memory of its own: where it generates, the peak is that of the card.
        """
        if self.job.small:
            return {"peak": resident("VmHWM") - self.before}
        free, total = torch.cuda.mem_get_info()
        needed = torch.cuda.max_memory_allocated() + total - free - torch.cuda.memory_reserved()
        return {"peak": needed if self.job.engine == TRANSFORMERS else self.most_in_use, "card": self.most_in_use}


class StepRecorder(TrainerCallback):
    """Sends a record of each step, chooses how long the completions are, and ends the run in time."""

    def __init__(self, job: Job, recipe: Recipe, trainer: Any, memory: Memory, send: Send) -> None:
        self.job, self.recipe, self.trainer, self.memory, self.send = job, recipe, trainer, memory, send
        self.watch = Stopwatch(trainer)
        self.watch.time(trainer.accelerator, "clip_grad_norm_", lambda: "optimizer")
        self.length = self.full = int(trainer.args.max_completion_length)
        tokenizer = trainer.processing_class
        self.prompt = max(len(tokenizer(row["prompt"])["input_ids"]) for row in trainer.train_dataset)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.memory.reset()
        self._limit(self.job.warm_up_tokens)
        self._begin()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The gradients are there."""
        self.optimizer_began = now()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The weights are new."""
        self.watch.spent["optimizer"] += now() - self.optimizer_began

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the step, and look at the time that is left."""
        step = self.watch.taken(now() - self.began) | self.memory.taken()
        number = state.global_step - WARM_UPS
        if number == 0:
            self._limit(self.length_that_fits(step))
            self.send("facts", facts(self.job, self.recipe, self.prompt, self.length))
        elif number > 0:
            self.send("step", step)
            enough = number == MOST_STEPS or time.monotonic() + step["step"] > self.job.until
            control.should_training_stop = enough
        self._begin()

    def _begin(self) -> None:
        self.watch.clear()
        self.began = now()

    def _limit(self, tokens: int) -> None:
        """Let completions have so many tokens from now on."""
        trainer, self.length = self.trainer, tokens
        trainer.max_completion_length = tokens
        if trainer.use_vllm:
            trainer.vllm_generation.max_completion_length = tokens
        else:
            trainer.generation_config.max_new_tokens = tokens

    def length_that_fits(self, step: Mapping[str, float]) -> int:
        """The recipe's longest completion, halved until one step fits into the time that is left.

        Args:
            step: a short one. Generation takes time by the tokens of the completions, the loss also by the prompts'.
        """
        short, length = self.job.warm_up_tokens, self.full
        trained = sum(step.get(phase, 0.0) for phase in ("log-probabilities", "forward", "backward"))
        rest = step["step"] - step["generation"] - trained

        def seconds(tokens: int) -> float:
            growth = (self.prompt + tokens) / (self.prompt + short)
            return step["generation"] * tokens / short + trained * growth + rest

        while length > short and time.monotonic() + seconds(length) > self.job.until:
            length = max(short, length // 2)
        return length


def facts(job: Job, recipe: Recipe, prompt: int, completion: int) -> dict[str, Any]:
    """The sizes of model and step, with the peak that the preflight predicts for them, in bytes."""
    script, training, model = recipe
    shape = measure_shape(load_config(model)[0], model)
    step = replace(step_of(script, training, model), prompt=prompt, completion=completion)
    capacity = 0 if job.small else torch.cuda.get_device_properties(0).total_memory
    return {
        "parameters": shape.parameters,
        "passes": 4 if step.lora else 6,  # frozen weights have no gradient
        "completions": training.per_device_train_batch_size * training.gradient_accumulation_steps,
        "prompt": prompt,
        "completion": completion,
        "full": int(training.max_completion_length or 0),
        "capacity": capacity,
        "predicted": peak(training_items(shape, step, Launch(), capacity)),
    }


def packages() -> str:
    """The versions that the numbers depend on."""
    cuda = [f"CUDA {torch.version.cuda}"] if torch.version.cuda else []
    return ", ".join([*(f"{name} {version}" for name, version in versions().items()), *cuda])


def measure(job: Job, send: Send) -> None:
    """Train the job's model until the time is up; what is known and measured is sent at once."""
    size, dtype = (512, torch.float32) if job.small else (8192, torch.bfloat16)
    send("facts", {"hardware": hardware(), "versions": packages(), "flops": matrix_peak(size, dtype, job.device)})
    send("note", "making random weights")
    recipe = script, training, model = parse_recipe(job.words(make_model(job)))
    send("facts", facts(job, recipe, script.max_prompt_length, int(training.max_completion_length or 0)))
    send("note", f"loading them into the trainer, with {job.engine} to generate")
    memory = Memory(job)
    sides = hold_out(DataSettings.of(script))
    rewards = {**rewards_of(sides.task, script.reward_funcs, training.max_completion_length), "chance": chance}
    recorder = SampleRecorder(job.folder / "samples", per_step=0)
    trainer = build_trainer(script, training, model, recorder, sides, rewards)
    trainer.remove_callback(SolveRateProgress)
    trainer.add_callback(StepRecorder(job, recipe, trainer, memory, send))
    send("note", f"{WARM_UPS} short steps to warm up")
    trainer.train()
