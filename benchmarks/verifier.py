"""How long scoring takes: our two reward functions against the public recipes' regex and `eval`.

    python benchmarks/verifier.py            # about 5 s on one core; rewrites benchmarks/results/verifier.md

Both score the same 192 completions (one GRPO step of 3 GPUs x 8 prompts x 8 completions) of about 1,000 characters,
taking turns in one process. Then ours alone scores the slowest 64 KiB text that we could think of.
"""

import argparse
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.tasks.rewards import equation_reward_func, format_reward_func

ROOT = Path(__file__).resolve().parents[1]
Batch = tuple[list[str], list[int], list[list[int]]]
COMPLETIONS = 192
CHARACTERS = 1_000
KIB_64 = 64 * 1024
STRICT_FORM = re.compile(r"^<think>([^<]*(?:<(?!/?think>)[^<]*)*)<\/think>\n<answer>([\s\S]*?)<\/answer>$")


def baseline_equation(completions: list[str], target: list[int], nums: list[list[int]], **kwargs: Any) -> list[float]:
    """The usual recipe: cut the answer out with a regex, filter its characters, `eval` it, compare as floats."""
    rewards = []
    for completion, goal, numbers in zip(completions, target, nums, strict=True):
        try:
            found = re.search(r"<answer>(.*?)<\/answer>", "<think>" + completion)
            if found is None:
                rewards.append(0.0)
                continue
            equation = found.group(1).strip()
            used = [int(number) for number in re.findall(r"\d+", equation)]
            if sorted(used) != sorted(numbers) or not re.match(r"^[\d+\-*/().\s]+$", equation):
                rewards.append(0.0)
                continue
            # eval is what is being measured, and it only ever sees text that this file made.
            result = eval(equation, {"__builtins__": None}, {})  # noqa: S307
            rewards.append(1.0 if abs(float(result) - float(goal)) < 1e-5 else 0.0)
        except Exception:
            rewards.append(0.0)
    return rewards


def baseline_format(completions: list[str], target: list[int], **kwargs: Any) -> list[float]:
    """The usual recipe: one regular expression over the whole text."""
    return [float(STRICT_FORM.search("<think>" + completion) is not None) for completion in completions]


def make_batch(rng: random.Random, correct_share: float) -> Batch:
    """`COMPLETIONS` texts for seeded puzzles of 3 or 4 numbers; the rest miss the value, the numbers or the answer."""
    completions, targets, nums = [], [], []
    for _ in range(COMPLETIONS):
        numbers = [rng.randint(1, 99) for _ in range(rng.choice((3, 4)))]
        equation = str(numbers[0])
        for number in numbers[1:]:
            step = f"{equation} {rng.choice('+-*')} {number}"
            equation = f"({step})" if rng.random() < 0.5 else step
        value = eval(equation, {"__builtins__": None}, {})  # noqa: S307  (this file wrote it)
        ending = f"</think>\n<answer> {equation} </answer>"
        if rng.random() >= correct_share:
            flaw = rng.choice(("value", "numbers", "no answer"))
            value += flaw == "value"
            numbers = [number + (flaw == "numbers") for number in numbers]
            ending = "" if flaw == "no answer" else ending
        completions.append(thinking(rng) + ending)
        targets.append(value)
        nums.append(numbers)
    return completions, targets, nums


def thinking(rng: random.Random) -> str:
    """About `CHARACTERS` characters of attempts, the way a policy writes them."""
    text = "Let me try a few combinations."
    while len(text) < CHARACTERS:
        text += f" {rng.randint(1, 99)} + {rng.randint(1, 99)} = {rng.randint(1, 198)}, no, not < {rng.randint(1, 99)}."
    return text


def timed(score: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    score()
    return (time.perf_counter() - start) * 1e3


def race(batch: Batch, repeats: int) -> dict[str, list[float]]:
    """Milliseconds a batch, `repeats` times for each side in turn; who goes first changes every round."""
    completions, target, nums = batch

    def ours() -> tuple[list[float], list[float]]:
        return equation_reward_func(completions, target, nums), format_reward_func(completions, target)

    def baseline() -> tuple[list[float], list[float]]:
        return baseline_equation(completions, target, nums), baseline_format(completions, target)

    assert ours() == baseline(), "the two sides must agree on this batch, or the comparison means nothing"
    sides = [("ours", ours), ("baseline", baseline)]
    times: dict[str, list[float]] = {"ours": [], "baseline": []}
    for _ in range(repeats):
        for name, score in sides:
            times[name].append(timed(score))
        sides.reverse()
    return times


def adversarial_texts() -> dict[str, str]:
    """Texts of 64 KiB, each aimed at one step: finding tags, measuring, tokenizing, nesting, arithmetic."""

    def answer(body: str) -> str:
        return "</think>\n<answer>" + body + "</answer>"

    def fill(unit: str) -> str:
        return unit * (KIB_64 // len(unit))

    texts = {f"only `{unit.strip()}`": fill(unit) for unit in ("<", "<answer>", "</answer>", "<think>", "</think>")}
    texts["`<answer` cut short"] = fill("<answer")
    texts |= {
        f"answer of `{unit!r}`": answer(fill(unit)) for unit in ("(", "9", "1 ", "- ", "9**", "=", "\0", " ", "\n ")
    }
    texts["whitespace, then an equation"] = answer(fill(" ") + "1 + 2")
    texts["longest allowed product"] = answer(fill(" ") + " / 7 * ".join(["999999999999999999"] * 16))
    texts["most tokens allowed"] = answer(fill(" ") + "- " * 511 + "1")
    texts["deepest allowed nesting"] = answer(fill(" ") + "(" * 64 + "1" + ")" * 64)
    return texts


def slowest_adversary(repeats: int) -> tuple[str, float]:
    """Name and milliseconds (both rewards, best of `repeats`) of the most expensive adversarial text."""

    def cost(text: str) -> float:
        return min(
            timed(lambda: (equation_reward_func([text], [65], [[19, 36]]), format_reward_func([text], [65])))
            for _ in range(repeats)
        )

    return max(((name, cost(text)) for name, text in adversarial_texts().items()), key=lambda item: item[1])


def summary(name: str, times: dict[str, list[float]]) -> str:
    """One row of the table: medians with their quartiles, and the ratio taken round by round."""

    def spread(values: list[float], digits: int) -> str:
        low, middle, high = statistics.quantiles(values, n=4)
        return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    ratios = [slow / fast for slow, fast in zip(times["baseline"], times["ours"], strict=True)]
    return f"| {name} | {spread(times['ours'], 3)} | {spread(times['baseline'], 3)} | {spread(ratios, 2)} |"


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def report(rows: list[str], adversary: tuple[str, float], repeats: int) -> str:
    """The results file, in Markdown."""
    lines = [
        "# The verifier's speed",
        "",
        "Scoring one GRPO step: our two reward functions against the usual ones (a regex for the format; a regex, a",
        "character filter and `eval` for the equation), taking turns in one process. Both gave equal rewards here.",
        "",
        f"- Repeat with: `python benchmarks/verifier.py --repeats {repeats}`",
        f"- Hardware: {cpu_model()}, one core; Python {platform.python_version()}",
        f"- Batch: {COMPLETIONS} completions of about {CHARACTERS:,} characters; times in ms, median (quartiles)",
        "- Ratio: baseline time over ours, round by round; above 1, ours is faster",
        "",
        "| batch | ours | baseline | ratio |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Slowest of the adversarial 64 KiB texts, both rewards: {adversary[0]}, {adversary[1]:.3f} ms.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="rounds per batch")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/verifier.md", help="results file")
    options = parser.parse_args()
    rng = random.Random(0)
    shares = {"all correct": 1.0, "half correct": 0.5, "none correct": 0.0}
    rows = [summary(name, race(make_batch(rng, share), options.repeats)) for name, share in shares.items()]
    text = report(rows, slowest_adversary(repeats=20), options.repeats)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    with in_words():
        main()
