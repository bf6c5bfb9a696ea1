"""Give a policy one problem, watch it think, and hear what the verifier says.

    python scripts/ask.py runs/aha-seed42 --numbers 19 36 55 --target 72
    python scripts/ask.py runs/my-run/checkpoint-100 --numbers 3 25 50 7 --target 765 --samples 4 --temperature 0.7

MODEL is a folder (a run, a checkpoint, an adapter) or a Hub id. Each completion is shown while it is written.
One completion is decoded greedily, which solves most (benchmarks/results/aha.md); several are sampled, anew by each
call without --seed. Characters that could control the terminal are shown as escapes.
"""

import argparse
import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mini_r1.generation.sampling import Completion, generate_completions
    from mini_r1.policy.loading import load_model, load_tokenizer, resolve_model
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.program.terminal import GrowingText
    from mini_r1.prompts.build import PromptWriter
    from mini_r1.prompts.settings import add_prompt_options, chosen_prompt
    from mini_r1.runs.identity import find_record
    from mini_r1.tasks.registry import DEFAULT_TASK, task_of
    from mini_r1.tasks.task import Task

LARGEST_SEED = 2**32 - 1
TEMPERATURES = 0.01, 100.0  # outside, scores over- or underflow


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message:.300}; --help shows what there is")


def choose_task(arguments: Sequence[str]) -> Task:
    """The task that the command line names, or else the one that the model was trained on.

    Raises:
        TaskError: there is no such task.
    """
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--task")
    known, others = first.parse_known_args(arguments)
    if known.task:
        return task_of(known.task)
    records = [record for word in others if os.path.isdir(word) and (record := find_record(word))]  # noqa: PTH112
    data = records[0].data if records else {}
    return task_of(data.get("task", DEFAULT_TASK), data.get("task_config"))


def build_parser(task: Task) -> argparse.ArgumentParser:
    """Return the command line by which a problem of the task is given."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("--task", help="like task in a recipe (default: that of the model's run, else countdown)")
    task.add_arguments(parser)
    parser.add_argument("--samples", type=int, default=1, help="completions, one after another (default: 1)")
    parser.add_argument("--temperature", type=float, help="0 is greedy (default: 0 for one completion, 1 for several)")
    parser.add_argument("--max-completion-length", type=int, default=320, help="limit in tokens (default: 320)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same completions")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code that comes with the model"
    )
    add_prompt_options(parser)
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse what can't be sampled.

    Raises:
        UserError: naming the value and what is allowed.
    """
    low, high = TEMPERATURES
    for wrong, name, value, allowed in (
        (args.samples < 1, "samples", args.samples, "at least 1"),
        (args.max_completion_length < 1, "max-completion-length", args.max_completion_length, "at least 1"),
        (
            not (args.temperature == 0 or low <= args.temperature <= high),
            *("temperature", args.temperature, f"0 (greedy) or {low:g} to {high:g}"),
        ),
        (not 0 <= (args.seed or 0) <= LARGEST_SEED, "seed", args.seed, f"0 to {LARGEST_SEED}"),
    ):
        if wrong:
            raise UserError(f"--{name} {value!s:.60}: give {allowed}")


def load(name: str, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a policy; where the Hub does not answer, from its cache.

    Raises:
        ModelError: if there is none.
    """
    name = resolve_model(name)
    with contextlib.ExitStack() as stack:
        if not Path(name).is_dir():
            from mini_r1.hub.access import offline_if_unreachable  # imports TRL, which a folder does not need

            stack.enter_context(offline_if_unreachable())
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        return tokenizer, load_model(name, trust_remote_code=trust_remote_code)


def check_length(model: PreTrainedModel, prompt_tokens: int, completion_tokens: int) -> None:
    """Refuse a completion that may outgrow what the model can see.

    Raises:
        UserError: saying how long it may be.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and prompt_tokens + completion_tokens > positions:
        raise UserError(
            f"--max-completion-length {completion_tokens}: the model sees {positions} tokens, {prompt_tokens} of them "
            f"the prompt's; give at most {max(positions - prompt_tokens, 1)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, print each completion with its verdict; return the exit status.

    Raises:
        UserError: for a wrong argument.
    """
    quiet_libraries()
    words = sys.argv[1:] if argv is None else list(argv)
    task = choose_task(words)
    args = build_parser(task).parse_args(words)
    if args.temperature is None:
        args.temperature = 0.0 if args.samples == 1 else 1.0
    row = task.read_arguments(args)
    check(args)
    tokenizer, model = load(args.model, args.trust_remote_code)
    record = find_record(args.model)
    settings = chosen_prompt(args, record.prompt if record else None)
    prompt = PromptWriter(tokenizer, task, settings).write(row)
    check_length(model, len(tokenizer(text=prompt)["input_ids"]), args.max_completion_length)
    print(f"> {task.show(row)}\n", flush=True)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    for sample in range(args.samples):
        print(task.prefill, end="", flush=True)
        completion = think_aloud(model, tokenizer, prompt, args, (seed + sample) % (LARGEST_SEED + 1))
        verdict = task.judge(completion.text, row)
        form = "ok" if task.in_format(completion.text) else "broken"
        cut = ", cut off" if completion.truncated else ""
        print(f"--- {verdict.reason}; format {form}; {completion.tokens} tokens{cut}\n", flush=True)
    if solution := task.solution(row):
        print(solution)
    return 0


def think_aloud(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, args: argparse.Namespace, seed: int
) -> Completion:
    """Sample one completion, shown while it is written."""
    growing = GrowingText()
    ((completion,),) = generate_completions(
        model,
        tokenizer,
        [prompt],
        samples=1,
        temperature=args.temperature,
        max_completion_length=args.max_completion_length,
        batch_size=1,
        seed=seed,
        watch=growing.show,
    )
    growing.finish(completion.text)
    return completion


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
