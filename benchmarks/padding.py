"""What padding costs: one GRPO batch with and without it, sampling and gradient, in one process.

    python benchmarks/padding.py --model runs/aha-seed42    # 3 minutes; rewrites benchmarks/results/padding.md

Peers: transformers' own sampling loop, and the log-probabilities of TRL's GRPOTrainer on the batch it would build. Both
sides take turns at the same work on the same prompts (for the gradient, on the same completions).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    import torch
    from trl import GRPOTrainer

    from mini_r1.generation.decoding import decode_without_ended
    from mini_r1.machine.hardware import hardware
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import parse_recipe
    from mini_r1.train.samples import SampleRecorder
    from mini_r1.train.trainer import R1Trainer, build_trainer

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "receipes" / "grpo-tiny-countdown.yaml"


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def load_trainer(model: str) -> R1Trainer:
    """The tiny recipe's trainer, with `model` as its policy."""
    script, training, config = parse_recipe(["--config", str(RECIPE), "--output_dir", "runs/benchmark"])
    training.report_to = []
    config.model_name_or_path = model
    return build_trainer(script, training, config, SampleRecorder(Path("runs/benchmark"), per_step=0))


def sample(trainer: R1Trainer, prompts: dict[str, torch.Tensor], ours: bool, seed: int) -> torch.Tensor:
    """Completions of one batch, by our decoding or by transformers' own."""
    torch.manual_seed(seed)
    policy: Any = trainer.model
    generate = type(policy).generate
    custom = decode_without_ended if ours else None
    output: torch.Tensor = generate(
        policy, **prompts, generation_config=trainer.generation_config, custom_generate=custom
    )
    return output


def gradient(trainer: R1Trainer, batch: dict[str, torch.Tensor], width: int, ours: bool) -> None:
    """Forward and backward of one batch, trimmed or as TRL pads it."""
    kind = R1Trainer if ours else GRPOTrainer
    policy: Any = trainer.model
    logps, _, _ = kind._get_per_token_logps_and_entropies(
        trainer, policy, batch["input_ids"], batch["attention_mask"], width, compute_entropy=True
    )
    logps.mean().backward()
    policy.zero_grad()


def measure(trainer: R1Trainer, rounds: int) -> tuple[list[list[float]], list[list[float]], list[float]]:
    """Times of sampling and of the gradient as [ours, theirs] per round, and the mean and longest completion."""
    tokenizer, puzzles = cast(Any, trainer.processing_class), cast(Any, trainer.train_dataset)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    sampling, gradients, lengths = [], [], []
    for seed in range(rounds):
        rows = puzzles.select(range(16 * seed, 16 * seed + 16))
        texts = [text for text in rows["prompt"] for _ in range(8)]
        encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        prompts = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        sampling.append([seconds(partial(sample, trainer, prompts, ours, seed)) for ours in (True, False)])
        output = sample(trainer, prompts, True, seed)
        completions = output[:, prompts["input_ids"].shape[1] :]
        mask = ((completions == end).cumsum(1) - (completions == end).int() == 0) & (completions != pad)
        batch = {"input_ids": output, "attention_mask": torch.cat([prompts["attention_mask"], mask.long()], dim=1)}
        work = [partial(gradient, trainer, batch, completions.shape[1], ours) for ours in (True, False)]
        gradients.append(list(map(seconds, work)))
        lengths += [float(mask.sum(1).float().mean()), float(mask.sum(1).max())]
    return sampling, gradients, [statistics.mean(lengths[::2]), statistics.mean(lengths[1::2])]


def row(name: str, times: list[list[float]]) -> str:
    """One line of the table: medians, and the ratio with its range over the rounds."""
    ours, theirs = (statistics.median(pair[i] for pair in times) for i in (0, 1))
    ratios = sorted(pair[1] / pair[0] for pair in times)
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"| {name} | {ours:.2f} | {theirs:.2f} | {ratio} |"


def main() -> int:
    """Measure, and write the results file; return the exit status."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "assets" / "tiny-countdown-base"), help="policy to sample from")
    parser.add_argument("--rounds", type=int, default=8, help="batches of 16 puzzles x 8 completions (default: 8)")
    args = parser.parse_args()
    trainer = load_trainer(args.model)
    measure(trainer, 1)  # warm up
    sampling, gradients, (mean, longest) = measure(trainer, args.rounds)
    together = [[s + g for s, g in zip(*pair, strict=True)] for pair in zip(sampling, gradients, strict=True)]
    text = f"""# The cost of padding

One GRPO batch of 16 puzzles x 8 completions, of {mean:.0f} tokens on average; the longest has {longest:.0f} (mean).
Ratio: the peer's time over ours in the same round; above 1, ours is faster. Median (range) of {args.rounds} rounds.

- Repeat with: `python benchmarks/padding.py --model {args.model}`
- Hardware: {hardware()}; torch {torch.__version__}, float32
- Peers: `generate` of transformers, `_get_per_token_logps_and_entropies` of TRL's GRPOTrainer with its backward pass

| | ours, s | peer, s | ratio |
|---|---|---|---|
{row("sampling", sampling)}
{row("gradient", gradients)}
{row("both", together)}
"""
    (ROOT / "benchmarks" / "results" / "padding.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
