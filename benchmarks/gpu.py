"""What one GPU makes of the recipes: seconds by phase of a GRPO step, tokens per second, MFU, and memory.

    python benchmarks/gpu.py            # on a GPU that nobody else uses, 10 minutes; rewrites benchmarks/results/gpu.md
    python benchmarks/gpu.py --small    # on the CPU at a small size, to try the kit: 1 minute, writes nothing

The weights are random, in the shapes of the recipes' models, so nothing is downloaded. All else is a run's own: recipe,
task, rewards, trainer, and vLLM where it is installed, else transformers. Random weights hardly ever end a completion:
the step is the recipe's longest, and its memory what the preflight predicts. Each model is a process of its own.
"""

import argparse
import importlib.util
import math
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))  # shared/ and one_gpu/, also where a test runs this file

from mini_r1.program.failures import in_words, say

with in_words():
    import torch
    from one_gpu.job import ROOT, ROWS, TRANSFORMERS, VLLM, Job, Measured, Row
    from one_gpu.page import as_page, size_of

    from mini_r1.program.causes import chain, describe
    from mini_r1.program.problems import UserError
    from mini_r1.program.quiet import quiet_libraries

RESULT = ROOT / "benchmarks" / "results" / "gpu.md"
OUT_OF_MEMORY = "out of memory"


def serve(job: Job, connection: Connection) -> None:
    """In a process of its own: measure, and send (kind, content) until it ends."""
    try:
        from one_gpu.steps import measure  # with the libraries, which only this process needs

        quiet_libraries()
        measure(job, lambda kind, content: connection.send((kind, content)))
    except Exception as error:
        short = any(isinstance(one, torch.OutOfMemoryError | MemoryError) for one in chain(error))
        connection.send(("problem", OUT_OF_MEMORY if short else describe(error)))
    connection.close()


def run_job(measured: Measured, latest: float) -> None:
    """Start a job's process and keep what it sends; it is ended at the latest at a moment of `time.monotonic`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(measured.job, theirs))
    for_us = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the process inherits: Ctrl-C is seen to here
    process.start()
    signal.signal(signal.SIGINT, for_us)
    theirs.close()  # so that the end of the process is an end of file here
    try:
        while ours.poll(max(0.0, latest - time.monotonic())):
            receive(measured, *ours.recv())
        measured.problem = "stopped, since its time is up"
    except EOFError:
        process.join(10)
        if process.exitcode and not measured.steps:
            measured.problem = measured.problem or f"its process ended with status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    if measured.problem:
        say(f"{measured.job.row.name}: {measured.problem}")


def receive(measured: Measured, kind: str, content: Any) -> None:
    """Keep a message of a job, and show it."""
    name, known = measured.job.row.name, measured.facts
    if kind == "facts":
        known |= content
        if known.get("completion", 0) < known.get("full", 0):
            tokens = f"{known['completion']} instead of {known['full']} tokens"
            say(f"{name}: completions of {tokens}, so that a step fits into the time")
    elif kind == "step":
        measured.steps.append(content)
        say(f"{name}: step {len(measured.steps)} took {content['step']:.1f} s")
    elif kind == "problem":
        measured.problem = content
        if content == OUT_OF_MEMORY and "predicted" in known:
            measured.problem += f": the preflight predicts {size_of(known['predicted'])}"
            measured.problem += f", and the GPU has {size_of(known['capacity'])}"
    else:
        say(f"{name}: {content}")


def engine_for(row: Row, wanted: str, small: bool) -> str:
    """Who generates: vLLM where it is installed, on a GPU, and not with weights in 4 bits (trl#4973)."""
    if row.in_4_bits or small or wanted == TRANSFORMERS:
        return TRANSFORMERS
    return VLLM if importlib.util.find_spec("vllm") else TRANSFORMERS


def prepare_environment(small: bool) -> None:
    """Show this process and those that it starts the first visible GPU only, or none, and no Hub.

    Raises:
        UserError: if there is no GPU, and one is wanted.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever would ask the Hub fails instead
    # A model's process that is killed leaves semaphores behind, which Python removes and warns of.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if small else visible
    if small or torch.cuda.is_available():
        return
    reason = "" if torch.version.cuda or torch.version.hip else f" (PyTorch {torch.__version__} is built without CUDA)"
    raise UserError(
        f"PyTorch sees no GPU here{reason}. Fix: run this on a machine with one and with a PyTorch for it, or add "
        "--small, which tries the kit on this CPU"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: for minutes or a file that can't be used.
    """
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all models together (default: 9)")
    parser.add_argument(
        "--engine", choices=("auto", TRANSFORMERS), default="auto", help="who generates (default: auto)"
    )
    parser.add_argument("--small", action="store_true", help="try the kit on the CPU, with a tiny model")
    parser.add_argument("--out", type=Path, help=f"page of results (default on a GPU: {RESULT.relative_to(ROOT)})")
    args = parser.parse_args(arguments)
    if not 0 < args.minutes < math.inf:
        raise UserError(f"--minutes is {args.minutes}; needed: more than 0. Fix: give --minutes 9")
    if args.out and (args.out.is_dir() or not args.out.absolute().parent.is_dir()):
        raise UserError(f"--out {args.out} can't be written. Fix: name a file in a folder that exists")
    return args


def measure_all(rows: Sequence[Row], args: argparse.Namespace, results: list[Measured]) -> None:
    """Measure the models one after the other; each has an equal share of the time that is left."""
    end = time.monotonic() + 60 * args.minutes
    for index, row in enumerate(rows):
        share = max(0.0, end - time.monotonic()) / (len(rows) - index)
        until = time.monotonic() + share
        with tempfile.TemporaryDirectory(prefix="mini-r1-gpu-", ignore_cleanup_errors=True) as folder:
            job = Job(row, engine_for(row, args.engine, args.small), args.small, until, Path(folder))
            results.append(Measured(job))
            run_job(results[-1], latest=min(until + share / 4, end + 45))


def measurable(names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows with these names whose packages are there, and what to say of the others."""
    rows = [row for row in ROWS if row.name in names]
    if importlib.util.find_spec("bitsandbytes"):
        return rows, []
    fix = "left out, since bitsandbytes is not installed (pip install bitsandbytes)"
    return [row for row in rows if not row.in_4_bits], [f"{row.name}: {fix}" for row in rows if row.in_4_bits]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the page, and write it; return the exit status."""
    args = parse(arguments)
    command = shlex.join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if arguments is None else arguments)])
    prepare_environment(args.small)
    rows, left_out = measurable(args.models)
    say(*left_out)
    results: list[Measured] = []
    try:
        measure_all(rows, args, results)
    except KeyboardInterrupt:
        results[-1].problem = "interrupted"
        if any(measured.steps for measured in results):
            print(as_page(results, left_out, command), flush=True)
        raise
    if not any(measured.steps for measured in results):
        return 1
    page, out = as_page(results, left_out, command), args.out or (None if args.small else RESULT)
    print(page)
    if out:
        out.write_text(page, encoding="utf-8")
        print(f"written to {out}")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
