"""Evaluate one policy, or two side by side, on held-out puzzles: pass@k, format, length, attempts, arithmetic.

There are two differences from a textbook evaluation. Each number has a 95 % interval that resamples puzzles, not
samples, and two policies are compared puzzle by puzzle. The model's generation_config.json does not affect sampling.

The tiny policy (CPU, minutes):   python scripts/evaluate.py assets/tiny-countdown-base --out tiny.json
Before and after (1 GPU):         python scripts/evaluate.py Qwen/Qwen2.5-3B-Instruct runs/my-run --samples 8 \\
    --out runs/my-run/evaluation.json

With each table comes a verdict: whether RL would find something to start from, or a cold start should come first.

The puzzles are those that the run held out, according to its own record. With two runs, the last one's are used.
Options choose others, but none that an evaluated run was trained on. Without a run, puzzles come from the tiny world.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import as_error, in_words, say
from mini_r1.program.problems import UserError

with in_words():
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from mini_r1.policy.loading import load_model, load_tokenizer, resolve_model
    from mini_r1.policy.weights import read_state
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.prompts.settings import PromptSettings, add_prompt_options, chosen_prompt
    from mini_r1.results.card import CARD, update_card
    from mini_r1.results.evaluation import EvaluationSettings, evaluate, format_table, render_prompts
    from mini_r1.results.start import judge_start
    from mini_r1.runs.exposure import Exposure, examine_exposure
    from mini_r1.runs.holdout import DataSettings, Sides, hold_out
    from mini_r1.runs.identity import RunRecord, find_record
    from mini_r1.runs.records import EVALUATION, Interval, Record
    from mini_r1.tasks.registry import task_of
    from mini_r1.tasks.task import Task, json_object

PUZZLES = 512
WITHOUT_A_RUN = DataSettings("generated:tiny")
ROOM = 2**20  # bytes that a result file may take


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    default = EvaluationSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder or Hub id; one, or two to compare")
    puzzles = parser.add_argument_group("puzzles", "default: those that the run held out, by its own record")
    puzzles.add_argument("--task", help="like task in a recipe, for a model without a run")
    puzzles.add_argument("--task-config", type=json_object, help="like task_config in a recipe, written as JSON")
    puzzles.add_argument("--dataset", help="like dataset_id_or_path in a recipe")
    puzzles.add_argument("--split", help="split of a Hub data set or folder, like dataset_split in a recipe")
    puzzles.add_argument("--revision", help="revision of a Hub data set, like dataset_revision in a recipe")
    puzzles.add_argument("--max-samples", type=int, help="puzzles before the split, as in a recipe")
    puzzles.add_argument("--test-size", type=float, help="share that is held out, as in a recipe")
    puzzles.add_argument("--split-seed", type=int, help="seed of choice and split, as in a recipe")
    puzzles.add_argument("--puzzles", type=int, help=f"how many held-out puzzles (default: {PUZZLES}, or all)")
    add_prompt_options(parser)
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--samples", type=int, default=default.samples, help="completions per puzzle (default: 4)")
    sampling.add_argument("--ks", type=int, nargs="+", help="which pass@k (default: powers of two up to --samples)")
    sampling.add_argument("--temperature", type=float, default=default.temperature, help="0 is greedy (default: 1.0)")
    sampling.add_argument(
        "--max-completion-length",
        type=int,
        help=f"limit in tokens (default: the run's own, else {default.max_completion_length})",
    )
    sampling.add_argument(
        "--max-prompt-length",
        type=int,
        help=f"limit in tokens (default: the run's own, at least {default.max_prompt_length})",
    )
    sampling.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="sequences at a time (default: 256)"
    )
    sampling.add_argument("--seed", type=int, default=default.seed, help="seed of sampling and bootstrap (default: 0)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that a model brings along")
    parser.add_argument("--out", type=Path, help="JSON file for the results; replaced if it exists")
    return parser


@dataclass(frozen=True)
class Plan:
    """Everything that an evaluation needs but the models.

    Attributes:
        models: their names, ready to be loaded.
        exposures: for each model, what is known of its training on these puzzles.
    """

    models: list[str]
    settings: EvaluationSettings
    data: DataSettings
    task: Task
    puzzles: Dataset
    tokenizers: list[PreTrainedTokenizerBase]
    exposures: list[Exposure]
    prompts: list[PromptSettings]


def read_settings(args: argparse.Namespace, run: RunRecord | None) -> EvaluationSettings:
    """Turn the command line into settings; a length that it leaves out is the run's.

    Raises:
        SettingsError: as `EvaluationSettings`.
    """
    default, of_run = EvaluationSettings(), run.settings if run else {}
    completion = of_run.get("max_completion_length") or default.max_completion_length
    prompt = max(default.max_prompt_length, of_run.get("max_prompt_length") or 0)
    powers = [2**i for i in range(max(args.samples, 1).bit_length())]
    return EvaluationSettings(
        samples=args.samples,
        temperature=args.temperature,
        max_completion_length=completion if args.max_completion_length is None else args.max_completion_length,
        max_prompt_length=prompt if args.max_prompt_length is None else args.max_prompt_length,
        batch_size=args.batch_size,
        seed=args.seed,
        ks=tuple(args.ks or powers),
    )


def read_data(args: argparse.Namespace, run: RunRecord | None) -> DataSettings:
    """The data settings of the run's record, with what the command line says otherwise."""
    recorded = DataSettings.read(run.data) if run else WITHOUT_A_RUN
    if args.task is not None and args.task != recorded.task:
        recorded = DataSettings(task_of(args.task, args.task_config).default_source, task=args.task)
    if args.dataset is not None and args.dataset != recorded.dataset:
        recorded = replace(recorded, revision=None)  # it named a state of the other data set
    given = {name: getattr(args, name) for name in asdict(recorded) if getattr(args, name) is not None}
    return replace(recorded, **given)


def resolve_models(models: Sequence[str]) -> list[str]:
    """Refuse more than two models, and names that are neither a model's folder nor a Hub id.

    Raises:
        UserError: saying which and why.
    """
    if len(models) > 2:
        raise UserError(f"{len(models)} models: give one, or two to compare")
    return [resolve_model(model) for model in models]


def check_output(out: Path) -> None:
    """Refuse a result file that can't be written, by writing as much beside it as it may take.

    Raises:
        UserError: saying why.
    """
    if out.is_dir():
        raise UserError(f"cannot write --out {out}: it is a folder. Fix: name a file in it")
    if out.exists() and not out.stat().st_mode & 0o222:
        raise UserError(f"cannot write --out {out}: it is write-protected. Fix: name another file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent) as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror}. Fix: name a file in another folder") from error


def choose_puzzles(sides: Sides, wanted: int | None) -> Dataset:
    """The held-out puzzles to evaluate on: a shuffle's first, so that the order of a file does not matter.

    Raises:
        UserError: if there are not as many as asked for.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"--puzzles is {wanted}: it has to be at least 1")
    held_out = sides.held_out
    if wanted is not None and wanted > len(held_out):
        total = len(sides.train) + len(held_out)
        raise UserError(f"--puzzles {wanted}: only {len(held_out)} of {total} problems are held out")
    count = min(PUZZLES, len(held_out)) if wanted is None else wanted
    return held_out.shuffle(seed=sides.settings.split_seed, keep_in_memory=True).select(range(count))


def prepare(args: argparse.Namespace) -> Plan:
    """Check and load everything but the models, so that a mistake costs seconds.

    Raises:
        UserError, OSError: saying what to change.
    """
    models = resolve_models(args.models)
    if args.out is not None:
        check_output(args.out)
    records = [find_record(model) for model in models]
    runs = [record for record in records if record and record.data]
    run = runs[-1] if runs else None
    settings, data = read_settings(args, run), read_data(args, run)
    sides = hold_out(data)
    puzzles = choose_puzzles(sides, args.puzzles)
    exposures = [examine_exposure(model, record, puzzles, sides) for model, record in zip(models, records, strict=True)]
    tokenizers = [load_tokenizer(model, trust_remote_code=args.trust_remote_code) for model in models]
    # A model without a record of its own, such as the base beside what it became, gets the prompts of the run.
    known = [record if record and record.prompt else run for record in records]
    prompts = [chosen_prompt(args, record.prompt if record else None) for record in known]
    for tokenizer, prompt_settings in zip(tokenizers, prompts, strict=True):
        render_prompts(puzzles, sides.task, tokenizer, settings.max_prompt_length, prompt_settings)
    return Plan(models, settings, data, sides.task, puzzles, tokenizers, exposures, prompts)


def measure(args: argparse.Namespace, plan: Plan) -> tuple[list[Record], Exception | None]:
    """Evaluate the models, one after the other, and keep each result as soon as there is one.

    Returns:
        the results, and what ended a model's evaluation before its own, if anything did.
    """
    results: list[Record] = []
    rows = zip(plan.models, args.models, plan.tokenizers, plan.exposures, plan.prompts, strict=True)
    for name, shown, tokenizer, exposure, prompt_settings in rows:
        try:
            model = load_model(name, trust_remote_code=args.trust_remote_code)
            state = read_state(name)
            result = evaluate(
                model,
                tokenizer,
                plan.puzzles,
                plan.task,
                plan.settings,
                model_name=shown,
                dataset_name=plan.data.dataset,
                prompt_settings=prompt_settings,
            )
        except Exception as error:  # the results so far are to be shown before it is
            return results, error
        results.append(result | {"held_out": exposure.held_out, "data": asdict(plan.data), "state": state})
        if args.out is not None and len(results) < len(plan.models):
            try:
                write_results(args.out, results)
            except OSError as error:
                say(f"{args.out} can't be written now ({error.strerror}); the evaluation continues")
        del model  # before the next one is loaded
    return results, None


def write_results(out: Path, results: Sequence[Record]) -> None:
    """Replace the result file by one that holds all of it.

    Raises:
        OSError: if that can't be done; then the old one is as it was.
    """
    draft = out.with_name(f".{out.name}.part")
    try:
        draft.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


def keep(out: Path, results: Sequence[Record]) -> OSError | None:
    """Write the results where they are wanted or, if that can't be done any more, in the temporary folder."""
    try:
        write_results(out, results)
    except OSError as error:
        rescued = Path(tempfile.mkdtemp(prefix="evaluation-")) / out.name
        write_results(rescued, results)
        return OSError(f"{out} can't be written any more ({error.strerror}): the results are in {rescued}")
    if out.name == EVALUATION and update_card(out.parent):
        print(f"\nthe results are now in {out.parent / CARD}")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the results; return the exit status.

    Raises:
        Exception: what kept a model from being evaluated, after the results so far are printed and written.
    """
    quiet_libraries()
    args = build_parser().parse_args(argv)
    plan = prepare(args)
    say(*(f"NOT VERIFIED AS HELD OUT: {exposure.why}" for exposure in plan.exposures if exposure.held_out is not True))
    results, problem = measure(args, plan)
    if results:
        print(format_table(results), flush=True)
        for result in results:
            metrics = {name: Interval(**measured) for name, measured in result["metrics"].items()}
            if start := judge_start(metrics, plan.settings.samples):
                print(f"\n{result['model']}: {start.words}", flush=True)
    lost = keep(args.out, results) if args.out is not None and results else None
    if problem:
        raise problem
    if lost:  # the work is done, and its results are elsewhere
        say(as_error(lost))
    return 1 if lost else 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
