"""Seconds of a loss and its gradient with `share_prompts`, beside TRL's and ours without: a micro-batch of one puzzle.

    python scripts/get_small_model.py
    python benchmarks/shared_prompts.py    # 3 minutes; rewrites benchmarks/results/shared_prompts.md

The completions are random tokens. The variants take turns, so that a busy minute of the machine slows all of them.
"""

import argparse
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))  # shared/, also where a test runs this file

from mini_r1.program.failures import in_words

with in_words():
    import torch
    from shared.phases import now
    from trl import GRPOTrainer

    from mini_r1.machine.allocator import keep_freed_memory
    from mini_r1.machine.hardware import hardware
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import parse_recipe
    from mini_r1.train.samples import SampleRecorder
    from mini_r1.train.trainer import R1Trainer, build_trainer

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "receipes" / "grpo-smollm2-135m-countdown.yaml"
RESULT = ROOT / "benchmarks" / "results" / "shared_prompts.md"
LENGTHS = range(32, 257, 32)  # of the completions, in tokens
TRL, OURS, SHARED = "TRL", "Mini-R1", "Mini-R1, share_prompts"


def micro_batch(trainer: Any) -> dict[str, torch.Tensor]:
    """What TRL's loss reads: completions of random tokens to the first puzzle of the recipe's."""
    tokenizer, puzzle = trainer.processing_class, trainer.train_dataset[0]["prompt"]
    prompt = tokenizer(puzzle)["input_ids"]
    rows, generator = len(LENGTHS), torch.Generator().manual_seed(0)
    completions = torch.randint(100, len(tokenizer), (rows, max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return {
        "prompt_ids": torch.tensor(prompt).expand(rows, -1),
        "prompt_mask": torch.ones(rows, len(prompt), dtype=torch.long),
        "completion_ids": completions,
        "completion_mask": mask,
        "advantages": torch.linspace(-1, 1, rows),
        "num_items_in_batch": mask.sum(),
    }


def learn(trainer: Any, variant: str, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """Seconds of loss and backward, and the gradient."""
    trainer.__class__ = GRPOTrainer if variant == TRL else R1Trainer
    trainer.share_prompts = variant == SHARED
    trainer.model.zero_grad()
    began = now()
    trainer.compute_loss(trainer.model, batch).backward()
    return now() - began, {name: part.grad.clone() for name, part in trainer.model.named_parameters()}


def distance(gradient: dict[str, torch.Tensor], of: dict[str, torch.Tensor]) -> float:
    """The norm of a gradient's difference to another, relative to that one's."""
    difference = sum(float((gradient[name] - part).square().sum()) for name, part in of.items())
    return (difference / sum(float(part.square().sum()) for part in of.values())) ** 0.5


def main() -> int:
    """Measure, and write the results file; return the exit status."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m", help="policy that is trained")
    parser.add_argument("--rounds", type=int, default=4, help="measurements of each variant (default: 4)")
    args = parser.parse_args()
    keep_freed_memory()  # as a run on a CPU does
    with tempfile.TemporaryDirectory() as folder:
        keys = {"model_name_or_path": args.model, "output_dir": folder, "report_to": "none", "max_samples": "200"}
        flags = [word for name, value in keys.items() for word in (f"--{name}", value)]
        trainer: Any = build_trainer(*parse_recipe(["--config", str(RECIPE), *flags]), SampleRecorder(Path(folder), 0))
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        batch = micro_batch(trainer)
        seconds: dict[str, list[float]] = {variant: [] for variant in (TRL, OURS, SHARED)}
        for number in range(args.rounds + 1):
            print(f"round {number} of {args.rounds}", file=sys.stderr, flush=True)
            gradients = {}
            for variant, taken in seconds.items():
                spent, gradients[variant] = learn(trainer, variant, batch)
                taken.append(spent)
    rows = []
    for variant, taken in seconds.items():
        ratios = sorted(theirs / mine for theirs, mine in zip(seconds[TRL][1:], taken[1:], strict=True))
        times = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        off = "" if variant == TRL else f"{distance(gradients[variant], gradients[TRL]):.0e}"
        rows.append(f"| {variant} | {statistics.median(taken[1:]):.2f} | {times} | {off} |")
    prompt = batch["prompt_ids"].shape[1]
    text = f"""# Prompts that are read once for a group

Seconds of the loss and its gradient for a micro-batch of one puzzle: a prompt of {prompt} tokens with {len(LENGTHS)}
completions of {LENGTHS[0]} to {LENGTHS[-1]} tokens. Medians of {args.rounds} rounds, after a first one that does not
count; in brackets the range. The last column is the norm of the gradient's difference to TRL's, relative to its own.

- Repeat with: `{shlex.join(["python", "benchmarks/shared_prompts.py", *sys.argv[1:]])}`
- Hardware: {hardware()}; torch {torch.__version__}, float32

| | seconds | times as fast as TRL | gradient differs by |
|---|---|---|---|
{chr(10).join(rows)}

Generation with transformers reads a prompt once for its group as well; that is not in this table.
"""
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
