"""Show what a run did: plots, and one page that can be opened from disk or mailed.

Reads trainer_state.json in the run's folder (while the run is under way: in its newest checkpoint) and, if they exist,
evaluation.json and run.json. Writes report/ there.

    python scripts/report.py runs/aha

takes a few seconds, needs no GPU and no network, and can be run again at any time.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.results.report import write_report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the output folder of a run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report, print the paths; return the exit status."""
    args = build_parser().parse_args(argv)
    print(*write_report(args.run_dir), sep="\n")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
