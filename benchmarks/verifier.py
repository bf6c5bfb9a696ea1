"""How long scoring takes, and what it says: our verifier against the public recipes' and other scorers'.

    python benchmarks/verifier.py            # about a minute on one core; rewrites benchmarks/results/verifier.md

Our two reward functions and the usual ones score the same 192 completions (one GRPO step of 3 GPUs x 8 prompts x 8
completions) of about 1,000 characters, taking turns in one process. Then ours alone scores the slowest 64 KiB text that
we could think of. Last, the answer is judged by other projects' own code too, where it is there: reasoning-gym's if the
package is installed, TinyZero's from a clone (`--tinyzero FOLDER`). They are run as they are, and nothing is copied.
"""

import argparse
import contextlib
import importlib.util
import io
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    from mini_r1.generation.sampling import generate_completions
    from mini_r1.policy.loading import load_model, load_tokenizer
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.results.evaluation import render_prompts
    from mini_r1.runs.holdout import DataSettings, hold_out
    from mini_r1.tasks.rewards import equation_reward_func, format_reward_func, judge_equation
    from mini_r1.tasks.task import ASSISTANT_PREFILL, CORRECT

ROOT = Path(__file__).resolve().parents[1]
Batch = tuple[list[str], list[int], list[list[int]]]
COMPLETIONS = 192
CHARACTERS = 1_000
LONG = 4_000  # characters of a free text
ROUNDS = 10  # of the scorers, in turns
KIB_64 = 64 * 1024
TINYZERO = "https://github.com/Jiayi-Pan/TinyZero"
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


def thinking(rng: random.Random, characters: int = CHARACTERS) -> str:
    """About as many characters of attempts, the way a policy writes them."""
    text = "Let me try a few combinations."
    while len(text) < characters:
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


# --- other projects' scorers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A completion of a puzzle, and what it is an example of."""

    completion: str
    target: int
    nums: list[int]
    kind: str = ""
    right: bool = False  # by the rules of the game, and by those of the format for what counts as the answer


Scorer = Callable[[Text], bool]  # whether the completion solves the puzzle


def answering(kind: str, answer: str, right: bool, nums: Sequence[int] = (19, 36, 55), target: int = 72) -> Text:
    return Text(f"</think>\n<answer> {answer} </answer>", target, list(nums), kind, right)


SOLVED = "36 + 55 - 19"
FORMS = (
    answering("an equation", SOLVED, True),
    answering("with its value", f"{SOLVED} = 72", True),
    answering("typographic signs", "36 + 55 \u2212 19", True),
    answering("over several lines", f"\n{SOLVED}\n", True),
    Text(f"</think>\n<answer>{SOLVED}</answer>\nI hope this helps.", 72, [19, 36, 55], "text after the answer", True),
    Text(
        f"</think>\n<answer>19 + 36</answer> no, <answer>{SOLVED}</answer>", 72, [19, 36, 55], "a second answer", True
    ),
    Text(f" <answer>{SOLVED}</answer>? No. </think>\nI give up.", 72, [19, 36, 55], "only inside the thinking", False),
    answering("a number left out", "36 + 36", False),
    answering("a power", "2**3 + 5", False, (2, 3, 5), 13),
    answering("a division without remainder", "7 // 2 + 5", False, (7, 2, 5), 8),
    answering("two numbers joined to a decimal", "1.5 * 2", False, (1, 5, 2), 3),
    answering("nearly the target", "1000000 / 999999", False, (1000000, 999999), 1),
    answering("a function", "sqrt(81) + 3", False, (81, 3), 12),
)


def scorers(tinyzero: Path | None) -> dict[str, Scorer]:
    """Ours, the usual recipe, and what is there of the others, each told of a text in the way that it expects."""
    found: dict[str, Scorer] = {
        "ours": lambda text: judge_equation(text.completion, text.target, text.nums).reason == CORRECT,
        "the usual recipe": lambda text: baseline_equation([text.completion], [text.target], [text.nums]) == [1.0],
    }
    if tinyzero:
        found["TinyZero"] = tinyzero_scorer(tinyzero)
    if importlib.util.find_spec("reasoning_gym"):
        found["reasoning-gym"] = reasoning_gym_scorer()
    return found


def tinyzero_scorer(clone: Path) -> Scorer:
    """TinyZero's own function, which reads the whole dialogue and prints one text in 64.

    Raises:
        UserError: the folder is not a clone of TinyZero.
    """
    path = clone / "verl" / "utils" / "reward_score" / "countdown.py"
    spec = importlib.util.spec_from_file_location("tinyzero_countdown", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--tinyzero {clone}: it has no {path.relative_to(clone)}. Fix: git clone {TINYZERO}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def score(text: Text) -> bool:
        dialogue = f"Assistant: {ASSISTANT_PREFILL}{text.completion}"
        with contextlib.redirect_stdout(io.StringIO()):
            reward = module.compute_score(dialogue, {"target": text.target, "numbers": text.nums})
        return bool(reward == 1)

    return score


def reasoning_gym_scorer() -> Scorer:
    """reasoning-gym's own functions. They evaluate what they read, and here only see what this project has written."""
    import reasoning_gym
    from reasoning_gym.utils import extract_answer

    puzzles = reasoning_gym.create_dataset("countdown", size=1, seed=0)

    def score(text: Text) -> bool:
        entry = {"metadata": {"numbers": text.nums, "target": text.target}}
        return bool(puzzles.score_answer(extract_answer("<think>" + text.completion), entry) == 1)

    return score


def of_the_tiny_policy(puzzles: int = 256) -> list[Text]:
    """A completion of each of some held-out puzzles, by the shipped base."""
    base = str(ROOT / "assets" / "tiny-countdown-base")
    sides = hold_out(DataSettings(dataset="generated:tiny", max_samples=10 * puzzles))
    model, tokenizer, rows = load_model(base), load_tokenizer(base), sides.held_out
    prompts = render_prompts(rows, sides.task, tokenizer, max_prompt_length=32)
    written = generate_completions(
        model,
        tokenizer,
        prompts,
        samples=1,
        temperature=1.0,
        max_completion_length=320,
        batch_size=puzzles,
        seed=0,
    )
    return [Text(one.text, row["target"], row["nums"]) for (one,), row in zip(written, rows, strict=True)]


def free_texts(rng: random.Random) -> list[Text]:
    """Long thinking of free text before an answer of each form, `COMPLETIONS` in all."""
    forms = [FORMS[number % len(FORMS)] for number in range(COMPLETIONS)]
    return [
        Text(thinking(rng, LONG) + form.completion, form.target, form.nums, form.kind, form.right) for form in forms
    ]


def compare(texts: Sequence[Text], judges: dict[str, Scorer]) -> list[str]:
    """A row for each scorer: completions per second, the ratio to ours round by round, and where it differs from us."""
    times: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(ROUNDS):
        for name, judge in judges.items():
            times[name].append(timed(lambda judge=judge: [judge(text) for text in texts]))  # type: ignore[misc]
    rows = []
    for name, judge in judges.items():
        speed = len(texts) / statistics.median(times[name]) * 1e3
        ratio = statistics.median(other / ours for other, ours in zip(times[name], times["ours"], strict=True))
        differs = [text for text in texts if judge(text) != judges["ours"](text)]
        reasons = Counter(str(judge_equation(one.completion, one.target, one.nums).reason) for one in differs)
        said = ", ".join(f"{count} of our `{reason}`" for reason, count in reasons.items())
        rows.append(f"| {name} | {speed:,.0f} | {ratio:.1f} | {said or 'nowhere'} |")
    return ["| scorer | completions/s | time, ours = 1 | differs from ours |", "|---|---|---|---|", *rows]


def verdicts(judges: dict[str, Scorer]) -> list[str]:
    """A row for each form of an answer: what is right, and what each scorer says; mistakes are in bold."""

    def said(judge: Scorer, form: Text) -> str:
        verdict = judge(form)
        word = "solved" if verdict else "no"
        return word if verdict == form.right else f"**{word}**"

    rows = [[form.kind, f"`{' '.join(form.completion.split())}`", *(said(judge, form) for judge in judges.values())]
            for form in FORMS]  # fmt: skip
    wrong = [sum(judge(form) != form.right for form in FORMS) for judge in judges.values()]
    head = [["answer", "completion", *judges], ["---"] * (len(judges) + 2)]
    return [f"| {' | '.join(row)} |" for row in [*head, *rows, ["other verdicts", "", *map(str, wrong)]]]


def commit_of(clone: Path | None) -> str:
    """Which commit a clone is at, in words."""
    asked = ["git", "-C", str(clone), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False) if clone else None
    return f" at {done.stdout.strip()}" if done and done.returncode == 0 else ""


def other_scorers(tinyzero: Path | None, texts: Sequence[Text]) -> list[str]:
    """The part of the results on other scorers, in Markdown."""
    judges = scorers(tinyzero)
    return [
        "## Other scorers",
        "",
        "Whether a completion solves its puzzle, one completion after the other, by the other projects' own code.",
        f"The usual recipe is that of the original tutorial; [TinyZero]({TINYZERO}){commit_of(tinyzero)};",
        f"reasoning-gym as installed. Medians of {ROUNDS} rounds, in turns.",
        "",
        f"{len(texts)} completions of the tiny policy, a puzzle each:",
        "",
        *compare(texts, judges),
        "",
        f"{COMPLETIONS} free texts of about {LONG:,} characters, which end in the answers of the table below in turn:",
        "",
        *compare(free_texts(random.Random(0)), judges),
        "",
        "What is right follows from our rules: each number once, only + - * /, exactly the target; what follows an",
        "`=` has to be the target, too; the last answer after the thinking counts. In bold: another verdict. Others",
        "ask for an answer without its value, so in that row it is their form that is missed.",
        "",
        *verdicts(judges),
        "",
    ]


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def report(rows: list[str], adversary: tuple[str, float], options: argparse.Namespace) -> str:
    """The results file's first part, in Markdown."""
    clone = " --tinyzero TinyZero" if options.tinyzero else ""
    before = f", after `git clone {TINYZERO}`" if options.tinyzero else ""
    lines = [
        "# The verifier's speed",
        "",
        "Scoring one GRPO step: our two reward functions against the usual ones (a regex for the format; a regex, a",
        "character filter and `eval` for the equation), taking turns in one process. Both gave equal rewards here.",
        "",
        f"- Repeat with: `python benchmarks/verifier.py --repeats {options.repeats}{clone}`{before}",
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
    parser.add_argument("--tinyzero", type=Path, metavar="FOLDER", help=f"a clone of {TINYZERO}, to compare with")
    options = parser.parse_args()
    quiet_libraries()
    rng = random.Random(0)
    shares = {"all correct": 1.0, "half correct": 0.5, "none correct": 0.0}
    rows = [summary(name, race(make_batch(rng, share), options.repeats)) for name, share in shares.items()]
    others = other_scorers(options.tinyzero, of_the_tiny_policy())
    text = "\n".join([report(rows, slowest_adversary(repeats=20), options), *others])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    with in_words():
        main()
