"""Give a policy one puzzle, watch it think, and hear what the verifier says.

    python scripts/ask.py runs/aha-seed42 --numbers 19 36 55 --target 72
    python scripts/ask.py runs/my-run/checkpoint-100 --numbers 3 25 50 7 --target 765 --samples 4 --temperature 0.7

MODEL is a folder (a run, a checkpoint, an adapter) or a Hub id. Without --seed each call samples anew.
"""

import argparse
import logging
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.failures import in_words

with in_words():
    from mini_r1.policies import load_model, load_tokenizer
    from mini_r1.prompts import ASSISTANT_PREFILL, render_prompt
    from mini_r1.rewards import judge_equation, judge_format
    from mini_r1.sampling import generate_completions
    from mini_r1.solver import MAX_NUMBERS, solve


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("--numbers", type=int, nargs="+", required=True, help="each is to be used exactly once")
    parser.add_argument("--target", type=int, required=True, help="what the equation is to equal")
    parser.add_argument("--samples", type=int, default=1, help="completions (default: 1)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: 1)")
    parser.add_argument("--max-completion-length", type=int, default=320, help="in tokens (default: 320)")
    parser.add_argument("--seed", type=int, help="for the same completions again")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse what is no puzzle.

    Raises:
        ValueError: naming the value and what is allowed.
    """
    if not 2 <= len(args.numbers) <= MAX_NUMBERS or min(args.numbers) < 1:
        raise ValueError(f"--numbers {args.numbers}: give 2 to {MAX_NUMBERS} positive whole numbers")
    if args.samples < 1 or args.max_completion_length < 1 or args.temperature < 0:
        raise ValueError("--samples and --max-completion-length must be at least 1, --temperature at least 0")


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, print each completion with its verdict; return the exit status."""
    logging.basicConfig(level=logging.WARNING)
    args = build_parser().parse_args(argv)
    try:
        check(args)
        tokenizer, model = load_tokenizer(args.model), load_model(args.model)
        prompt = render_prompt(tokenizer, args.numbers, args.target)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (completions,) = generate_completions(
        model,
        tokenizer,
        [prompt],
        samples=args.samples,
        temperature=args.temperature,
        max_completion_length=args.max_completion_length,
        batch_size=args.samples,
        seed=secrets.randbits(32) if args.seed is None else args.seed,
    )
    for completion in completions:
        verdict = judge_equation(completion.text, args.target, args.numbers)
        form = "ok" if judge_format(completion.text) else "broken"
        cut = ", cut off" if completion.truncated else ""
        print(f"{ASSISTANT_PREFILL}{completion.text}")
        print(f"--- {verdict.reason.value}; format {form}; {completion.tokens} tokens{cut}\n")
    solution = solve(args.numbers, args.target)
    print(f"a solution: {solution}" if solution else "no solution exists")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
