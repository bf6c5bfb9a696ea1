"""What `make aha` reaches: base against trained on held-out puzzles, one row for each finished run.

    for seed in 42 1 2; do make aha SEED=$seed; done
    python benchmarks/aha.py runs/aha-seed42 runs/aha-seed1 runs/aha-seed2    # rewrites benchmarks/results/aha.md

It only reads what the runs left behind (run.json, evaluation.json). Each number keeps its 95 % interval over puzzles.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.program.problems import UserError
    from mini_r1.results.metrics import metric_of
    from mini_r1.runs.records import Interval, Record, Result, read_results, read_run

ROOT = Path(__file__).resolve().parents[1]
METRICS = (
    *("pass@1", "pass@4", "greedy", "format", "truncated", "arithmetic"),
    *("enumerating", "attempts", "repeats", "length"),
)


def cell(name: str, interval: Interval) -> str:
    """A value and its interval: shares in percent."""
    factor, unit = (100.0, " %") if metric_of(name).unit == "%" else (1.0, "")
    value, low, high = (factor * part for part in (interval.value, interval.low, interval.high))
    return f"{value:.1f}{unit} [{low:.1f}, {high:.1f}]"


def read_finished(folder: Path) -> tuple[Record, Result, Result]:
    """How a run was made, and the results of base and trained model.

    Raises:
        UserError: if the run has not been finished and evaluated.
    """
    run, results = read_run(folder / "run.json"), read_results(folder / "evaluation.json")
    if not run or len(results) != 2:
        raise UserError(f"{folder} holds no finished and evaluated run. Fix: make aha RUN={folder}")
    base, trained = results
    return run, base, trained


def write_table(folders: Sequence[Path]) -> str:
    """The results file, in Markdown."""
    runs = [read_finished(folder) for folder in folders]
    first, base, _ = runs[0]
    header = ["", "base", *(f"seed {run['seed']}" for run, _, _ in runs)]
    rows = [header, ["---"] * len(header)]
    results = (base, *(trained for _, _, trained in runs))
    for name in METRICS:
        rows.append([name, *(cell(name, result.metrics[name]) for result in results)])
        if name == "pass@1":  # few puzzles may have no hard one among them
            hard = [result.groups["difficulty"].get("hard") for result in results]
            rows.append(
                [f"{name} on hard puzzles", *(cell(name, group.metrics[name]) if group else "" for group in hard)]
            )
    rows.append(["training, minutes", "", *(f"{run['seconds'] / 60:.1f}" for run, _, _ in runs)])
    evaluations = [sum(result.seconds or 0.0 for result in both) / 60 for _, *both in runs]
    rows.append(["evaluation of both, minutes", "", *(f"{minutes:.1f}" for minutes in evaluations)])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    seeds = " ".join(str(run["seed"]) for run, _, _ in runs)
    settings = base.settings
    evaluated = f"{settings['samples']} samples each at temperature {settings['temperature']:g}"
    return f"""# What `make aha` reaches

GRPO from the shipped tiny base, one column per seed, compared with the base on the same held-out puzzles.

- Repeat with: `for seed in {seeds}; do make aha SEED=$seed; done`, then `python benchmarks/aha.py` and the run folders
- Hardware: {first["hardware"]}; torch {first["versions"]["torch"]}
- {first["steps"]} steps; {base.puzzles} held-out puzzles of `{base.dataset}`, {evaluated},
  at most {settings["max_completion_length"]} tokens; in brackets the 95 % interval over puzzles

{table}
"""


def main() -> int:
    """Write the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of finished `make aha` runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "aha.md")
    args = parser.parse_args()
    text = write_table(args.runs)
    args.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
