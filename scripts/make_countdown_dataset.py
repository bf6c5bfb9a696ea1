"""Make a file of Countdown puzzles: distinct, seeded, each solvable, each labelled easy, medium or hard.

Unlike the data set on the Hub, it needs no network, every puzzle is known to be solvable, and each has a difficulty.

    python scripts/make_countdown_dataset.py --world countdown-3to4 --num 50000 --seed 42 --out puzzles.jsonl

50,000 puzzles take about 10 seconds on one core (countdown-6: 3 minutes). Train on them with
`dataset_id_or_path: puzzles.jsonl`.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    from datasets import Dataset

    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.tasks.countdown.puzzles import FILE_ENDINGS, WORLDS, generate_puzzles
    from mini_r1.tasks.countdown.solver import difficulty


def write_puzzles(dataset: Dataset, path: Path) -> None:
    """Write a dataset in the format that the file's ending names; a CSV gets nums as "[1, 2, 3]"."""
    ending = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".parquet":
        dataset.to_parquet(path)
        return
    rows = dataset.to_list()
    with path.open("w", encoding="utf-8", newline="") as stream:
        if ending == ".csv":
            writer = csv.DictWriter(stream, fieldnames=dataset.column_names)
            writer.writeheader()
            writer.writerows(rows)
        elif ending == ".json":
            json.dump(rows, stream)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=sorted(WORLDS), default="countdown-3to4", help="family of puzzles")
    parser.add_argument("--num", type=int, default=50_000, help="how many puzzles (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="the same seed gives the same file (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help=f"file to write, ending in {', '.join(FILE_ENDINGS)}")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the puzzles, write them, print a summary; return the exit status.

    Raises:
        UserError: if the file is there, or is of no kind that can be written.
    """
    quiet_libraries()
    args = build_parser().parse_args(argv)
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists: choose another --out, or add --overwrite")
    if args.out.suffix.lower() not in FILE_ENDINGS:  # before the work, not after it
        raise UserError(f"--out {args.out} has to end in one of {', '.join(FILE_ENDINGS)}")
    dataset = generate_puzzles(args.num, args.seed, WORLDS[args.world])
    dataset = dataset.map(lambda row: {"difficulty": difficulty(row["nums"], row["target"])}, keep_in_memory=True)
    write_puzzles(dataset, args.out)
    counts = Counter(dataset["difficulty"])
    summary = ", ".join(f"{counts[label]} {label}" for label in ("easy", "medium", "hard"))
    print(f"{args.out}: {len(dataset)} puzzles of {args.world} with seed {args.seed}: {summary}")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
