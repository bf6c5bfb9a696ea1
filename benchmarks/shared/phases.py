"""What the benchmarks of a step share: its seconds by phase, its tokens, its memory, and the machine's peak."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch

PHASES = ("generation", "weight sync", "scoring", "log-probabilities", "forward", "backward", "optimizer", "other")


def now() -> float:
    """A clock in seconds, read when the GPU has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Wraps the parts of a trainer, and adds up how long each phase of a step takes.

    Attributes:
        spent: seconds by phase since the last `clear`. A phase inside another one counts for itself only.
        tokens: "computed", what the loss was computed on, and "real", how many of these are no padding.
    """

    def __init__(self, trainer: Any) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.tokens: Counter[str] = Counter()
        self._trainer = trainer
        self.time(trainer, "_generate_single_turn", lambda: "generation")
        self.time(trainer, "_calculate_rewards", lambda: "scoring")
        of_loss = torch.is_grad_enabled
        self.time(
            trainer,
            "_get_per_token_logps_and_entropies",
            lambda: "forward" if of_loss() else "log-probabilities",
        )
        self.time(trainer.accelerator, "backward", lambda: "backward")
        if trainer.use_vllm:
            self.time(trainer.vllm_generation, "sync_weights", lambda: "weight sync")
        trainer.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def time(self, owner: Any, name: str, phase: Callable[[], str]) -> None:
        """Have the seconds of a method counted as those of a phase."""
        inner = getattr(owner, name)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began, before = now(), sum(self.spent.values())
            try:
                return inner(*args, **kwargs)
            finally:
                self.spent[phase()] += now() - began - (sum(self.spent.values()) - before)

        setattr(owner, name, timed)

    def _count(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            self.tokens["computed"] += kwargs["input_ids"].numel()
            self.tokens["real"] += int(kwargs["attention_mask"].sum())

    def clear(self) -> None:
        """Begin a new step."""
        self.spent.clear()
        self.tokens.clear()

    def taken(self, seconds: float) -> dict[str, float]:
        """The step that has taken so many seconds: by phase, in all ("step"), and its tokens.

        "written" are those of the completions.
        """
        self.spent["other"] = seconds - sum(self.spent.values())
        arguments = self._trainer.args
        completions = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        mean_length = self._trainer._metrics["train"]["completions/mean_length"][-1]
        return {**self.spent, "step": seconds, "written": mean_length * completions, **self.tokens}


def resident(field: str) -> int:
    """Bytes of RAM that this process has ("VmRSS") or has had at most ("VmHWM"), of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget_peak() -> None:
    """Let "VmHWM" begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def fastest(work: Callable[[], object], times: int = 20) -> float:
    """The fewest seconds that the work took."""
    seconds = []
    for _ in range(times):
        began = now()
        work()
        seconds.append(now() - began)
    return min(seconds)


def matrix_peak(size: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOP/s of the fastest product of two square matrices."""
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / fastest(lambda: left @ right)


def share_of_peak(step: Mapping[str, float], seconds: float, parameters: int, peak: float, passes: int = 6) -> float:
    """Model FLOP/s utilisation: what the loss takes by the count of parameters, in the time given, of the peak.

    Args:
        passes: FLOP per parameter and token: 2 forward, 2 for the gradients of the activations, 2 for those of the
            weights (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). What checkpointing computes again is not
            counted.
    """
    return passes * parameters * step["real"] / seconds / peak
