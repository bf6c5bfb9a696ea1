"""Pretrain the tiny base policy from scratch on a CPU: arithmetic and searches, nothing downloaded.

There are two differences from textbook pretraining. The corpus is written on the fly (batch k is a function of the seed
and k). The puzzles are the training side of the same split that GRPO uses, so the held-out ones stay unseen.

As shipped, an hour on 2 cores:

    python scripts/train_tiny_base.py --out runs/tiny-base-1
    python scripts/train_tiny_base.py --out runs/tiny-base --init runs/tiny-base-1 --steps 900 --seed 43 \\
        --max-patience 2 --enumerating-share 0.09 --muon-lr 2e-3 --adamw-lr 4e-4

A reduced one, about a minute: python scripts/train_tiny_base.py --out runs/tiny-base-small --steps 100

Ctrl-C and SIGTERM leave OUT/checkpoint.pt; the same command resumes from there.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    import torch
    from tqdm import tqdm
    from transformers import Qwen3ForCausalLM

    from mini_r1.policy.loading import load_model, resolve_model
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.runs.holdout import DataSettings, Sides, hold_out
    from mini_r1.runs.identity import PRACTICE
    from mini_r1.tiny.base import (
        Corpus,
        CorpusConfig,
        build_model,
        build_optimizers,
        next_token_loss,
        schedule,
    )
    from mini_r1.tiny.skills import arithmetic_accuracy, enumeration
    from mini_r1.tiny.tokenizer import build_tokenizer
    from mini_r1.train.interrupts import StopRequest

CHECKPOINT = "checkpoint.pt"
SAVE_EVERY = 500  # steps
MEASURED = 256  # held-out puzzles
SPLIT_SEED = 42  # the recipe's split_seed, whatever --seed is: what GRPO holds out must stay unseen here too


def parse_args() -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: naming the value and what is allowed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of model, tokenizer and checkpoint")
    parser.add_argument("--steps", type=int, default=7000, help="optimizer steps of 8 rows x 384 tokens")
    parser.add_argument("--puzzles", type=int, default=50_000, help="puzzles before the split: max_samples in a recipe")
    parser.add_argument("--init", type=Path, help="folder of a base to go on from, with no arithmetic first")
    parser.add_argument(
        "--max-patience", type=int, default=CorpusConfig.max_patience, help="failures that guessing bears at most"
    )
    parser.add_argument(
        "--enumerating-share", type=float, default=CorpusConfig.enumerating_share, help="enumerated by choice"
    )
    parser.add_argument("--muon-lr", type=float, default=1e-2, help="learning rate of the matrices")
    parser.add_argument("--adamw-lr", type=float, default=2e-3, help="learning rate of embeddings, norms and biases")
    parser.add_argument("--seed", type=int, default=42, help="seed of the weights and the corpus (default: 42)")
    args = parser.parse_args()
    for wrong, name, value, allowed in (
        (args.steps < 1, "steps", args.steps, "at least 1"),
        (args.puzzles < 10, "puzzles", args.puzzles, "at least 10, of which one is held out"),
        (args.max_patience < 1, "max-patience", args.max_patience, "at least 1"),
        (not 0 <= args.enumerating_share <= 1, "enumerating-share", args.enumerating_share, "0 to 1"),
    ):
        if wrong:
            raise UserError(f"--{name} {value}: give {allowed}")
    return args


def train(
    model: Qwen3ForCausalLM,
    corpus: Corpus,
    optimizers: list[torch.optim.Optimizer],
    checkpoint: Path,
    stop: StopRequest,
) -> int:
    """Run the steps that are left, with a checkpoint every `SAVE_EVERY` steps and on an interrupt; return the steps."""
    done = _resume(checkpoint, model, optimizers)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    bar = tqdm(
        range(done, len(corpus)), initial=done, total=len(corpus), desc="pretraining", unit="step", smoothing=0.05
    )
    for step in bar:
        token_ids, labels, positions = corpus[step]
        _set_learning_rate(optimizers, peaks, schedule(step, len(corpus)))
        logits = model(input_ids=token_ids, position_ids=positions, use_cache=False).logits
        loss = next_token_loss(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        done = step + 1
        if done % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if done % SAVE_EVERY == 0 or stop.received is not None:
            _set_learning_rate(optimizers, peaks, 1.0)  # the schedule starts from the peaks again
            _save(checkpoint, model, optimizers, done)
        if stop.received is not None:
            break
    return done


def _set_learning_rate(optimizers: list[torch.optim.Optimizer], peaks: list[list[float]], factor: float) -> None:
    for optimizer, rates in zip(optimizers, peaks, strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor


def _save(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def _resume(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def write_practice(folder: Path, sides: Sides) -> None:
    """Record which puzzles the base has practised on, so that nobody measures it, or what comes from it, on them."""
    (folder / PRACTICE).write_text(json.dumps(sides.record(), indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Train, measure the arithmetic and save; return the exit status."""
    quiet_libraries()
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    sides = hold_out(DataSettings("generated:tiny", max_samples=args.puzzles, split_seed=SPLIT_SEED))
    puzzles = sides.train
    config = CorpusConfig(
        seed=args.seed,
        arithmetic_first=0.0 if args.init else CorpusConfig.arithmetic_first,
        max_patience=args.max_patience,
        enumerating_share=args.enumerating_share,
    )
    model = build_model(tokenizer, args.seed)
    if args.init:
        model.load_state_dict(load_model(resolve_model(str(args.init))).state_dict())
    corpus = Corpus(puzzles, tokenizer, config, args.steps)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens, {len(puzzles)} puzzles")
    started = time.monotonic()
    optimizers = build_optimizers(model, args.muon_lr, args.adamw_lr)
    stop = StopRequest().install()
    step = train(model, corpus, optimizers, args.out / CHECKPOINT, stop)
    if step < args.steps:
        print(f"stopped at step {step}; the same command resumes from there")
        return stop.exit_status
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    write_practice(args.out, sides)
    (args.out / CHECKPOINT).unlink(missing_ok=True)
    measured = sides.held_out.select(range(min(MEASURED, len(sides.held_out))))
    report = {
        "minutes": (time.monotonic() - started) / 60,
        "arithmetic": arithmetic_accuracy(model, corpus, random.Random(args.seed)),
        "enumeration": enumeration(model, corpus, measured, args.seed),
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
