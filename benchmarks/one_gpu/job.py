"""What is measured: the models, each with its recipe and what is changed in it, and what comes of them."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
VLLM, TRANSFORMERS = "vLLM", "transformers"
WARM_UPS = 2  # short steps, of which the second tells how long a step of full length will take
ONE_GPU = {"dtype": "float32", "attn_implementation": "sdpa"}  # without DeepSpeed nothing else keeps master weights


class Row(NamedTuple):
    """One model: its name here, its recipe, the published model whose shape it has, and what the recipe says anew."""

    name: str
    recipe: str
    shape: str
    changes: Mapping[str, Any]
    in_4_bits: bool = False


ROWS = (
    Row("1.5B", "grpo-qwen-2.5-1.5b-one-gpu-countdown.yaml", "Qwen/Qwen2.5-1.5B-Instruct", {}),
    # The batch that each of the recipe's three GPUs has, without dividing weights, gradients and optimizer among them.
    Row("3B", "grpo-qwen-2.5-3b-modern-countdown.yaml", "Qwen/Qwen2.5-3B-Instruct", ONE_GPU),
    Row("3B-4bit", "grpo-qwen-2.5-3b-qlora-l4-countdown.yaml", "Qwen/Qwen2.5-3B-Instruct", {}, in_4_bits=True),
)
NO_DATA_NO_FILES = {
    "dataset_id_or_path": "generated:countdown-3to4",
    "max_samples": 2000,
    # 100 letters, of which the tiny base's tokenizer makes a token each: a prompt about as long as with Qwen2.5's own.
    "system_prompt": "Think first. " * 7 + "Then write.",
    "max_steps": 1000,
    "mask_truncated_completions": False,  # all of them are
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
    "report_to": "none",
}
COLOCATE = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_enable_sleep_mode": True,
    "vllm_gpu_memory_utilization": 0.3,
    "vllm_max_model_length": 1280,
}
SMALL_RECIPE = {
    "use_cpu": True,
    "bf16": False,
    "tf32": False,
    "dtype": "float32",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "max_completion_length": 24,
}


@dataclass(frozen=True)
class Job:
    """One row on one engine, at one size, until a moment of `time.monotonic`, with a folder for its files."""

    row: Row
    engine: str
    small: bool
    until: float
    folder: Path

    @property
    def warm_up_tokens(self) -> int:
        """Longest completion of the first steps."""
        return 8 if self.small else 64

    @property
    def device(self) -> str:
        """Where the model is."""
        return "cpu" if self.small else "cuda"

    def words(self, model: Path) -> list[str]:
        """The command line of the row's recipe, for a model in a folder."""
        engine = COLOCATE if self.engine == VLLM else {"use_vllm": False}
        settings = {
            "model_name_or_path": model,
            "output_dir": self.folder / "run",
            **NO_DATA_NO_FILES,
            **self.row.changes,
            **engine,
            **(SMALL_RECIPE if self.small else {}),
        }
        words = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        return ["--config", str(ROOT / "receipes" / self.row.recipe), *words]


@dataclass
class Measured:
    """What came of a job.

    Attributes:
        facts: of the model, the batch and the device.
        steps: those that count, as `Stopwatch.taken` and `Memory.taken` return them.
        problem: why there are none, or no more.
    """

    job: Job
    facts: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, float]] = field(default_factory=list)
    problem: str = ""

    def median(self, value: Callable[[dict[str, float]], float]) -> float:
        """The median of a value of the steps."""
        return statistics.median(map(value, self.steps))
