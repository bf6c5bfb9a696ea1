"""Evaluate one policy, or two side by side, on held-out puzzles: pass@k, format, length, attempts, arithmetic.

Differs from a textbook evaluation in that each number comes with a 95 % interval that resamples puzzles, not samples,
and two policies are compared puzzle by puzzle. Nothing from the model's generation_config.json shapes the sampling.

The tiny policy (CPU, minutes):   python scripts/evaluate.py assets/tiny-countdown-base --out tiny.json
Before and after (1 GPU):         python scripts/evaluate.py Qwen/Qwen2.5-3B-Instruct runs/my-run --samples 8 \\
    --dataset Jiayi-Pan/Countdown-Tasks-3to4 --max-completion-length 1024 --out before-after.json

The puzzles are held out if --dataset, --max-samples and --split-seed are those of the training.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.failures import in_words

with in_words():
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from mini_r1.countdown import load_countdown, split_train_test
    from mini_r1.evaluation import EvaluationSettings, Result, evaluate, format_table, render_prompts
    from mini_r1.model_card import CARD, EVALUATION, update_card
    from mini_r1.policies import load_model, load_tokenizer


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    default = EvaluationSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder or hub id; one, or two to compare")
    puzzles = parser.add_argument_group("puzzles")
    puzzles.add_argument("--dataset", default="generated:tiny", help="as in the recipe (default: %(default)s)")
    puzzles.add_argument("--max-samples", type=int, default=50_000, help="puzzles before the split, as in the recipe")
    puzzles.add_argument("--split-seed", type=int, default=42, help="of the split, as in the recipe (default: 42)")
    puzzles.add_argument("--puzzles", type=int, default=512, help="how many of the held-out ones (default: 512)")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--samples", type=int, default=default.samples, help="completions per puzzle (default: 4)")
    sampling.add_argument("--ks", type=int, nargs="+", help="which pass@k (default: powers of two up to --samples)")
    sampling.add_argument("--temperature", type=float, default=default.temperature, help="0 is greedy (default: 1.0)")
    sampling.add_argument("--max-completion-length", type=int, default=default.max_completion_length, help="in tokens")
    sampling.add_argument("--max-prompt-length", type=int, default=default.max_prompt_length, help="in tokens")
    sampling.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="sequences at a time (default: 256)"
    )
    sampling.add_argument("--seed", type=int, default=default.seed, help="of sampling and bootstrap (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the results; replaced if it exists")
    return parser


def read_settings(args: argparse.Namespace) -> EvaluationSettings:
    """Turn the command line into settings.

    Raises:
        ValueError: as `EvaluationSettings`.
    """
    powers = [2**i for i in range(max(args.samples, 1).bit_length())]
    return EvaluationSettings(
        samples=args.samples,
        temperature=args.temperature,
        max_completion_length=args.max_completion_length,
        max_prompt_length=args.max_prompt_length,
        batch_size=args.batch_size,
        seed=args.seed,
        ks=tuple(args.ks or powers),
    )


def check_paths(models: Sequence[str], out: Path | None) -> None:
    """Refuse more than two models, a model folder that is not there, and a result file that cannot be written.

    Raises:
        ValueError: saying which and why.
        OSError: if the folder of the result file cannot be made.
    """
    if len(models) > 2:
        raise ValueError(f"{len(models)} models: give one, or two to compare")
    for model in models:
        folder = Path(model)
        is_hub_id = model.count("/") <= 1 and not model.startswith((".", "/", "~")) and not model.endswith("/")
        if not folder.exists() and not is_hub_id:
            raise ValueError(f"no model folder {model!r} (looked in {Path.cwd()}): check the path")
        if folder.exists() and not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
            raise ValueError(f"{model!r} is no model folder: it holds neither config.json nor adapter_config.json")
    if out is not None:
        if out.is_dir():
            raise ValueError(f"cannot write --out {out}: it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)


def load_puzzles(args: argparse.Namespace) -> Dataset:
    """Return the held-out puzzles to evaluate on: a shuffle's first, so that the order of a file does not matter.

    Raises:
        ValueError: if there are not as many as asked for, or as `load_countdown`.
    """
    if args.puzzles < 1:
        raise ValueError(f"--puzzles is {args.puzzles}: it has to be at least 1")
    dataset = load_countdown(args.dataset, max_samples=args.max_samples, seed=args.split_seed)
    held_out = split_train_test(dataset, seed=args.split_seed)["test"]
    if args.puzzles > len(held_out):
        raise ValueError(f"--puzzles {args.puzzles}: only {len(held_out)} of {len(dataset)} puzzles are held out")
    return held_out.shuffle(seed=args.split_seed, keep_in_memory=True).select(range(args.puzzles))


def prepare(args: argparse.Namespace) -> tuple[EvaluationSettings, Dataset, list[PreTrainedTokenizerBase]]:
    """Check and load everything but the models, so that a mistake costs seconds.

    Raises:
        ValueError, OSError: saying what to change.
    """
    settings = read_settings(args)
    check_paths(args.models, args.out)
    puzzles = load_puzzles(args)
    tokenizers = [load_tokenizer(model) for model in args.models]
    for tokenizer in tokenizers:
        render_prompts(puzzles, tokenizer, settings.max_prompt_length)
    return settings, puzzles, tokenizers


def fail(error: Exception) -> int:
    """Print an error of the user's, and return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the results; return the exit status."""
    logging.basicConfig(level=logging.WARNING)
    args = build_parser().parse_args(argv)
    try:
        settings, puzzles, tokenizers = prepare(args)
    except (ValueError, OSError) as error:
        return fail(error)
    results: list[Result] = []
    for name, tokenizer in zip(args.models, tokenizers, strict=True):
        try:
            model = load_model(name)
        except ValueError as error:
            return fail(error)
        results.append(evaluate(model, tokenizer, puzzles, settings, model_name=name, dataset_name=args.dataset))
        if args.out is not None:  # after each, so that the first result outlives a failure of the second
            args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        del model  # before the next one is loaded
    print(format_table(results))
    if args.out is not None and args.out.name == EVALUATION and update_card(args.out.parent):
        print(f"\nthe results are now in {args.out.parent / CARD}")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
