"""How soon GRPO solves 60 % and 85 % of held-out puzzles, from the shipped base on two cores: benchmarks/SPEEDRUN.md.

    OMP_NUM_THREADS=2 python benchmarks/speedrun.py --sweep    # hours: the learning rates of the entries that need one
    OMP_NUM_THREADS=2 python benchmarks/speedrun.py            # hours: all seeds, at the best of these rates

Each run is a line of benchmarks/results/speedrun.jsonl as soon as it ends, and a run that is there is not repeated. So
Ctrl-C costs one run, and the same command continues. benchmarks/results/speedrun.md is the table of what is there.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))  # step.py, also where a test imports this file

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    from step import MICRO_BATCHES, ONCE, ROOT, Variant, build
    from transformers import TrainerCallback
    from transformers.trainer_callback import TrainerControl, TrainerState

    from mini_r1.generation.sampling import generate_completions
    from mini_r1.machine.hardware import hardware
    from mini_r1.policy.weights import read_state
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import read_recipe
    from mini_r1.results.card import versions
    from mini_r1.results.evaluation import judge_once, render_prompts
    from mini_r1.runs.holdout import Sides

BASE = ROOT / "assets" / "tiny-countdown-base"
RESULTS = ROOT / "benchmarks" / "results" / "speedrun.jsonl"
QUICK_RESULTS = ROOT / "runs" / "speedrun-quick.jsonl"
THRESHOLDS = (0.60, 0.85)
PUZZLES, LONGEST = 256, 320  # held-out puzzles of an evaluation, and the tokens that a completion may have there
FIXED = {  # what an entry can't change: the policy that it begins with, the puzzles, and that the clock runs alone
    "model_name_or_path": str(BASE),
    "task": "countdown",
    "dataset_id_or_path": "generated:tiny",
    "max_samples": "50000",
    "max_prompt_length": "32",
    "eval_strategy": "no",
    "eval_on_start": "false",
    "save_strategy": "no",
}
QUICK = {
    "max_samples": "200",
    "max_steps": "2",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "1",
    "num_generations": "4",
    "max_completion_length": "48",
}

Run = dict[str, Any]  # one run, as it is kept: a line of the results


@dataclass(frozen=True)
class Entry(Variant):
    """A recipe that takes part, and the learning rates of which the best is taken; none for that of the recipe."""

    rates: tuple[str, ...] = ()


ENTRIES = (
    Entry("Mini-R1", ours=True),
    Entry("Mini-R1-resampling", ours=True, changes={"resample_uniform_groups": "1"}),
    Entry("Mini-R1-3-updates", ours=True, changes={"num_iterations": "3", "max_steps": "120"}),
    Entry("Mini-R1-1-update", ours=True, changes={"num_iterations": "1", "max_steps": "50"}),
    Entry("Mini-R1-1-update-unskipped", ours=True, changes=ONCE | {"max_steps": "50"}),
    Entry("Mini-R1-before", ours=True, changes=ONCE | {"max_steps": "130", "learning_rate": "2e-4"}),
    Entry("TRL-our-recipe", ours=False, changes=MICRO_BATCHES),
    Entry("TRL-1-update", ours=False, changes=MICRO_BATCHES | ONCE | {"max_steps": "50"}),
    Entry(
        "TRL-tutorial",
        ours=False,
        recipe=ROOT / "receipes" / "grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml",
        # 24 puzzles x 8 completions a step, as there; what is needed on a CPU; and the length that all others have.
        changes={
            "per_device_train_batch_size": "8",
            "gradient_accumulation_steps": "24",
            "max_completion_length": str(LONGEST),
            "use_cpu": "true",
            "use_vllm": "false",
            "dtype": "float32",
            "attn_implementation": "sdpa",
            "bf16": "false",
            "tf32": "false",
            "gradient_checkpointing": "false",
        },
        rates=("5e-5", "1e-4", "2e-4", "4e-4"),
    ),
    Entry(
        "TRL-defaults",
        ours=False,
        recipe=ROOT / "benchmarks" / "speedrun" / "trl-defaults.yaml",
        rates=("2e-5", "5e-5", "1e-4", "2e-4"),
    ),
)


# --- a run -----------------------------------------------------------------------------------------------------------


class Race(TrainerCallback):
    """Measures the policy as training goes on, with the clock stopped, and ends the run once all is known.

    Args:
        solved: the share of held-out puzzles that the policy solves now.
        every: seconds of training between two measurements, which are made after a step.
        limit: seconds of training at most.

    Attributes:
        evaluations: seconds of training, steps, share solved.
    """

    def __init__(self, solved: Callable[[], float], every: float, limit: float) -> None:
        self.solved, self.every, self.limit = solved, every, limit
        self.evaluations: list[tuple[float, int, float]] = []
        self._began = 0.0  # when the clock would have been started if it had never been stopped

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The base itself, before the clock starts."""
        self.evaluations.append((0.0, 0, self.solved()))
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An evaluation if it is time for one, and after the last step."""
        seconds = time.perf_counter() - self._began
        if (
            seconds - self.evaluations[-1][0] < self.every
            and seconds < self.limit
            and state.global_step < state.max_steps
        ):
            return
        self.evaluations.append((round(seconds, 2), state.global_step, self.solved()))
        control.should_training_stop |= seconds >= self.limit or crossing(self.evaluations, THRESHOLDS[-1]) is not None
        self._began = time.perf_counter() - seconds


def crossing(evaluations: Sequence[Sequence[float]], threshold: float) -> float | None:
    """Seconds of training until a share of puzzles was solved: on the line to the first evaluation that has it.

    >>> crossing([(0, 0, 0.3), (20, 4, 0.5), (40, 8, 0.7)], 0.6)
    30.0

    Args:
        evaluations: seconds, steps, share solved.
    """
    before = (0.0, 0.0)
    for seconds, _, share in evaluations:
        if share >= threshold:
            gained = share - before[1]
            return before[0] + (seconds - before[0]) * (threshold - before[1]) / gained if seconds else 0.0
        before = (seconds, share)
    return None


def held_out(trainer: Any, sides: Sides, puzzles: int) -> Callable[[], float]:
    """What measures a policy: one sample at temperature 1 of each puzzle, always the same ones, by our verifier."""
    rows = sides.held_out.select(range(min(puzzles, len(sides.held_out))))
    prompts = render_prompts(rows, sides.task, trainer.processing_class, int(FIXED["max_prompt_length"]))
    judge = judge_once(sides.task, rows)

    def solved() -> float:
        written = generate_completions(
            trainer.model,
            trainer.processing_class,
            prompts,
            samples=1,
            temperature=1.0,
            max_completion_length=LONGEST,
            batch_size=puzzles,
            seed=0,
        )
        return sum(judge(index, one.text).reward for index, (one,) in enumerate(written)) / len(written)

    return solved


def take_part(entry: Entry, seed: int, rate: str, options: argparse.Namespace) -> Run:
    """One run from the base to the last threshold, the limit or the end of the recipe's steps."""
    trainer, sides = build(entry, {**fixed(options), "seed": str(seed), "learning_rate": rate})
    race = Race(held_out(trainer, sides, options.puzzles), options.every, options.limit * 60)
    trainer.add_callback(race)
    trainer.train()
    return {
        **what_it_is(entry, options),
        "seed": seed,
        "learning_rate": rate,
        "limit": options.limit,
        "complete": trainer.state.global_step >= trainer.state.max_steps,
        "versions": versions(),
        "evaluations": race.evaluations,
    }


def fixed(options: argparse.Namespace) -> dict[str, str]:
    """The keys that are the same for all."""
    return FIXED | QUICK if options.quick else FIXED


def what_it_is(entry: Entry, options: argparse.Namespace) -> Run:
    """What has to be the same for two runs to be runs of the same: entry, base, measure, machine."""
    own = {"output_dir", "seed", "learning_rate", *FIXED}
    script, _, _ = read_recipe(entry.arguments({**fixed(options), "output_dir": "runs/speedrun"}))
    return {
        "entry": entry.name,
        "trainer": "R1Trainer" if entry.ours else "trl.GRPOTrainer",
        "recipe": {name: value for name, value in sorted(script.given.items()) if name not in own},
        "base": (read_state(BASE) or {}).get("weights"),
        "puzzles": options.puzzles,
        "every": options.every,
        "hardware": hardware(),
    }


# --- the runs of an entry --------------------------------------------------------------------------------------------


def own_rate(entry: Entry) -> str:
    """The learning rate of the entry's recipe."""
    return str(read_recipe(entry.arguments({}))[1].learning_rate)


def runs_of(entry: Entry, runs: Sequence[Run], options: argparse.Namespace) -> list[Run]:
    """Those of the runs that are of this entry as it is now, on this base and machine; of each the newest."""
    same = what_it_is(entry, options)
    newest = {(run["seed"], run["learning_rate"]): run for run in runs if same.items() <= run.items()}
    return list(newest.values())


def is_done(run: Run, limit: float) -> bool:
    """Whether a run says all that one with this limit would say."""
    return run["complete"] or run["limit"] >= limit or crossing(run["evaluations"], THRESHOLDS[-1]) is not None


def best_rate(entry: Entry, runs: Sequence[Run], seed: int) -> str:
    """The learning rate of an entry: the soonest at the highest threshold that any reached, else the best share.

    Raises:
        UserError: some of its rates have not been tried.
    """
    if len(entry.rates) < 2:
        return entry.rates[0] if entry.rates else own_rate(entry)
    tried = {run["learning_rate"]: run for run in runs if run["seed"] == seed}
    if missing := [rate for rate in entry.rates if rate not in tried]:
        fix = f"python benchmarks/speedrun.py --sweep --entry {entry.name}"
        raise UserError(f"{entry.name} has not been tried at the learning rates {', '.join(missing)}. Fix: {fix}")

    def merit(rate: str) -> tuple[float, ...]:
        evaluations = tried[rate]["evaluations"]
        times = [crossing(evaluations, threshold) for threshold in reversed(THRESHOLDS)]
        return *(math.inf if time is None else time for time in times), -best_share(tried[rate])

    return min(entry.rates, key=merit)


def best_share(run: Run) -> float:
    """The highest share of puzzles that a run solved in any of its evaluations."""
    return max(share for _, _, share in run["evaluations"])


def read_runs(results: Path) -> list[Run]:
    """All runs that are kept."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [json.loads(line) for line in lines if line]


def run_missing(entry: Entry, options: argparse.Namespace) -> None:
    """Those runs of an entry that are not there yet: all rates with the first seed, or the best one with all seeds."""
    if options.sweep:
        wanted = [(options.seeds[0], rate) for rate in entry.rates]
    else:
        rate = best_rate(entry, runs_of(entry, read_runs(options.results), options), options.seeds[0])
        wanted = [(seed, rate) for seed in options.seeds]
    for seed, rate in wanted:
        there = runs_of(entry, read_runs(options.results), options)
        if any((run["seed"], run["learning_rate"]) == (seed, rate) and is_done(run, options.limit) for run in there):
            continue
        print(f"{entry.name}, seed {seed}, learning rate {rate}", file=sys.stderr, flush=True)
        run = take_part(entry, seed, rate, options)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")


# --- the table -------------------------------------------------------------------------------------------------------


def times_to(runs: Sequence[Run], threshold: float) -> list[float]:
    """Minutes to a threshold, run by run, sorted; infinite where it was not reached."""
    found = [crossing(run["evaluations"], threshold) for run in runs]
    return sorted(math.inf if seconds is None else seconds / 60 for seconds in found)


def median_of(runs: Sequence[Run], threshold: float) -> float:
    """The median of these minutes; infinite if half of the runs did not get there, or there are none."""
    return statistics.median(times_to(runs, threshold)) if runs else math.inf


def cell(runs: Sequence[Run], threshold: float, ours: float) -> str:
    """Median and range of the minutes to a threshold, and how many times as long as ours (minutes) that is."""
    if not runs:
        return "not measured yet"
    minutes, median = times_to(runs, threshold), median_of(runs, threshold)
    least, best = min(run["evaluations"][-1][0] for run in runs) / 60, max(map(best_share, runs))
    reached = sum(time < math.inf for time in minutes)
    if median == math.inf:
        seeds = f", but for {reached} of {len(runs)} seeds" if reached else ""
        ended = ", the end of its steps" if all(run["complete"] for run in runs) else ""
        return f"not within {least:.1f} min{ended}{seeds} (best {best:.1%})"
    last = f"{minutes[-1]:.1f}" if reached == len(runs) else "never"
    ratio = f", {median / ours:.1f} x" if 0 < ours < math.inf else ""
    return f"{median:.1f} min ({minutes[0]:.1f} to {last}){ratio}"


def as_table(kept: Sequence[tuple[Entry, Sequence[Run]]]) -> str:
    """The entries, the soonest at the first threshold on top; the ratio is to the soonest of ours in each column."""
    lines = [["entry", *(f"to {goal:.0%}" for goal in THRESHOLDS), "seeds", "learning rate"], ["---"] * 5]
    ours = [min((median_of(runs, goal) for entry, runs in kept if entry.ours), default=math.inf) for goal in THRESHOLDS]
    for entry, runs in sorted(kept, key=lambda item: [median_of(item[1], goal) for goal in THRESHOLDS]):
        rate = runs[0]["learning_rate"] if runs else "–"
        tried = f", best of {', '.join(entry.rates)}" if runs and entry.rates else ""
        cells = [cell(runs, *column) for column in zip(THRESHOLDS, ours, strict=True)]
        lines.append([entry.name, *cells, str(len(runs)), f"{rate}{tried}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(entries: Sequence[Entry], options: argparse.Namespace) -> str:
    """The results file, in Markdown: the entries with what was measured of each."""
    runs, kept = read_runs(options.results), []
    for entry in entries:
        own = runs_of(entry, runs, options)
        try:
            rate = best_rate(entry, own, options.seeds[0])
        except UserError:  # the sweep is not complete
            rate = ""
        kept.append((entry, [run for run in own if run["learning_rate"] == rate]))
    return f"""# The speedrun

Minutes of training from the shipped base to a share of held-out puzzles solved: median over the seeds and, in brackets,
their range; x: how many times as long as the sooner entry of Mini-R1. [Rules, and how to take part](../SPEEDRUN.md).

- Repeat with: `OMP_NUM_THREADS=2 python benchmarks/speedrun.py --sweep`, then
  `OMP_NUM_THREADS=2 python benchmarks/speedrun.py`
- Hardware: {hardware()}; {", ".join(f"{name} {versions()[name]}" for name in ("torch", "transformers", "trl"))}
- Evaluations: {options.puzzles} held-out puzzles, one sample each at temperature 1, every {options.every:g} s

{as_table(kept)}
"""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, write the table, return the exit status."""
    quiet_libraries()
    names = [entry.name for entry in ENTRIES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entry", action="append", choices=names, help="run this one (may be repeated; default: all)")
    parser.add_argument("--sweep", action="store_true", help="run all learning rates of an entry with the first seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], help="(default: 42 1 2)")
    parser.add_argument("--limit", type=float, default=30, help="minutes of training of a run at most (default: 30)")
    parser.add_argument("--results", type=Path, help="the runs, as JSON lines; the table is the .md beside it")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table again")
    parser.add_argument("--quick", action="store_true", help="2 small steps of a run, to see that all works")
    options = parser.parse_args(arguments)
    options.results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    options.puzzles, options.every = (8, 0.0) if options.quick else (PUZZLES, 15.0)
    entries = [replace(entry, rates=entry.rates[:1]) if options.quick else entry for entry in ENTRIES]
    for entry in entries:
        if not options.table and entry.name in (options.entry or names):
            run_missing(entry, options)
    text = report(entries, options)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
