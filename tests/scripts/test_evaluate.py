"""The command that evaluates one policy or two."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY_BASE, as_program
from mini_r1.policy.weights import is_outdated
from mini_r1.recipe.read import parse_recipe
from mini_r1.runs.exposure import examine_exposure
from mini_r1.runs.holdout import DataError, DataSettings, hold_out
from mini_r1.runs.identity import RunRecord, record_run
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tiny.base import build_model
from mini_r1.tiny.tokenizer import build_tokenizer
from mini_r1.train.run import run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "evaluate.py"
module = runpy.run_path(str(SCRIPT))
main = as_program(module["main"])
SMALL = ["--max-samples", "80", "--puzzles", "6", "--samples", "2", "--max-completion-length", "12"]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two random policies, saved."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        tokenizer = build_tokenizer()
        build_model(tokenizer, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return [str(folder) for folder in folders]


def test_evaluates_two_policies_on_held_out_puzzles(policies: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "results.json"
    command = [sys.executable, str(SCRIPT), *policies, *SMALL, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 problems of generated:tiny, 2 samples each at temperature 1;")
    assert f"pass@1 of {policies[1]} minus {policies[0]}, problem by problem: " in done.stdout
    assert "solved=" in done.stderr and "Traceback" not in done.stderr
    results = json.loads(out.read_text(encoding="utf-8"))
    assert [result["model"] for result in results] == policies
    assert results[0]["settings"]["ks"] == [1, 2] and results[0]["puzzles"] == 6
    held_out = keys_of(hold_out(DataSettings("generated:tiny", max_samples=80)).held_out.to_list())
    evaluated = results[1]["per_puzzle"]
    assert set(evaluated["key"]) <= held_out


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--puzzles", "9"], "only 8 of 80 problems are held out"),
        (["--puzzles", "0"], "at least 1"),
        (["--samples", "0"], "samples is 0"),
        (["--ks", "1", "3"], "ks has 3, but samples is 2"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--dataset", "generated:unheard-of"], "no world 'unheard-of'"),
        (["--dataset", "./missing.jsonl"], "no file or folder"),
        (["--max-prompt-length", "5"], "longer than max_prompt_length=5"),
        (["--out", "."], "it is a folder"),
    ],
)
def test_says_what_is_wrong_before_loading_a_model(
    options: list[str], reason: str, policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((Path(policies[0]) / "config.json").read_text(encoding="utf-8"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):  # a policy without weights
        (tmp_path / name).write_text((Path(policies[0]) / name).read_text(encoding="utf-8"))
    assert main([str(tmp_path), *SMALL, *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and reason in message and message.count("error: ") == 1


def test_says_which_model_is_missing(policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, reason in [
        (str(tmp_path / "missing"), "no model folder"),
        (str(tmp_path), "holds no model (no config.json or adapter_config.json)"),
    ]:
        assert main([policies[0], model, *SMALL]) == 2
        assert reason in capsys.readouterr().err
    assert main([policies[0]] * 3) == 2
    assert "one, or two to compare" in capsys.readouterr().err
    (tmp_path / "config.json").write_text((Path(policies[0]) / "config.json").read_text(encoding="utf-8"))
    assert main([str(tmp_path), *SMALL]) == 2
    assert "no chat template" in capsys.readouterr().err  # what transformers makes up where no tokenizer is saved


# --- what a run held out -------------------------------------------------------------------------------------------

OWN = DataSettings("generated:tiny", max_samples=240, test_size=0.05)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str]) -> Path:
    """A run of two steps with a split of its own, made by the trainer: 228 puzzles to train on, 12 held out."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    more = ["--max_samples", "240", "--test_size", "0.05", "--max_steps", "2", "--save_steps", "1"]
    more += ["--eval_strategy", "no", "--eval_on_start", "false", "--max_completion_length", "16"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    assert run(*parse_recipe([*small_arguments, *more, "--output_dir", str(folder), "--report_to", "none"])) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder


def keys_of(rows: Iterable[dict[str, Any]]) -> set[str]:
    """What the puzzles are, in whatever order their numbers are given."""
    return {Countdown().key(row) for row in rows}


def evaluated(out: Path) -> tuple[dict[str, Any], set[str]]:
    """The last result in a file, and the puzzles that it is about."""
    result = json.loads(out.read_text(encoding="utf-8"))[-1]
    asked = result["per_puzzle"]
    return result, set(asked["key"])


FEW = ["--samples", "1", "--batch-size", "16"]


@pytest.mark.parametrize("of", [".", "checkpoint-1"])
def test_the_puzzles_and_the_length_are_those_of_the_runs_own_record(of: str, trained: Path, tmp_path: Path) -> None:
    """Nothing has to be repeated; of a checkpoint, too."""
    assert main([str(trained / of), *FEW, "--out", str(tmp_path / "e.json")]) == 0
    result, asked = evaluated(tmp_path / "e.json")
    sides = hold_out(DataSettings("generated:tiny", max_samples=240, test_size=0.05))
    assert asked == keys_of(sides.held_out.to_list()) and len(asked) == 12
    assert result["held_out"] is True
    assert result["settings"]["max_completion_length"] == 16
    assert result["data"]["test_size"] == 0.05
    assert result["state"]["step"] == (1 if of == "checkpoint-1" else 2)
    assert is_outdated(result["state"], trained) == (
        "it is of step 1, and the run is at step 2" if of == "checkpoint-1" else None
    )


@pytest.mark.parametrize(
    "options",
    [["--test-size", "0.5"], ["--split-seed", "7"], ["--max-samples", "900"], ["--test-size", "0.02"]],
    ids=lambda options: options[0][2:] + options[1],
)
def test_puzzles_that_were_trained_on_are_refused_and_counted(
    options: list[str], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever setting of the split differs; where none of the puzzles is concerned, there is nothing to refuse."""
    given = {option[2:].replace("-", "_"): float(value) for option, value in [options]}
    settings = OWN
    wanted = replace(settings, **{name: type(getattr(settings, name))(value) for name, value in given.items()})
    asked, seen = hold_out(wanted).held_out.to_list(), keys_of(hold_out(settings).train.to_list())
    expected = sum(bool(keys_of([row]) & seen) for row in asked)
    status = main([str(trained), *FEW, *options])
    message = capsys.readouterr().err
    if expected:
        assert status == 2
        assert f"error: {expected} of the {len(asked)} problems were trained on by {trained}" in message
    else:
        assert status == 0


def test_a_data_set_of_another_name_is_compared_puzzle_by_puzzle(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a file: those that were trained on are refused, the run's own held-out ones are not."""
    settings = OWN
    sides = hold_out(settings)
    data = tmp_path / "other.jsonl"
    for side, status in ((sides.train, 2), (sides.held_out, 0)):
        data.write_text("".join(json.dumps(row) + "\n" for row in side.to_list()))
        assert main([str(trained), *FEW, "--dataset", str(data), "--out", str(tmp_path / "e.json")]) == status
    result, asked = evaluated(tmp_path / "e.json")
    assert result["held_out"] is True and asked <= keys_of(sides.held_out.to_list())
    assert "were trained on by" in capsys.readouterr().err


def test_a_model_without_a_record_is_measured_but_not_called_held_out(
    trained: Path, policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of the weights alone has lost its record; beside a run, the run's puzzles are taken."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("run.json", "checkpoint-*", "completion_samples"))
    assert main([str(copy), *SMALL, "--out", str(tmp_path / "e.json")]) == 0
    assert evaluated(tmp_path / "e.json")[0]["held_out"] == "unknown"
    assert f"NOT VERIFIED AS HELD OUT: {copy} has no record" in capsys.readouterr().err
    assert main([policies[0], str(trained), *FEW, "--out", str(tmp_path / "two.json")]) == 0
    assert [result["held_out"] for result in json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))] == [
        "unknown",
        True,
    ]


def test_what_the_base_was_trained_on_counts_for_what_comes_from_it(
    trained: Path, tmp_path: Path, small_arguments: list[str]
) -> None:
    """A run from another run's weights; and the shipped base, which has practised on a split of its own."""
    recipe = [*small_arguments, "--model_name_or_path", str(trained), "--max_samples", "60"]
    recipe += ["--split_seed", str(OWN.split_seed)]  # also of the generator: some of the puzzles are the earlier run's
    script = parse_recipe([*recipe, "--test_size", "0.5", "--output_dir", str(tmp_path)])[0]
    sides = hold_out(DataSettings.of(script))
    record = record_run(script, sides=sides)
    assert [data["model"] for data in record.lineage] == [str(TINY_BASE), str(trained)]
    exposure = examine_exposure("second", record, sides.held_out, sides)
    asked = keys_of(sides.held_out.to_list())
    practised = DataSettings("generated:tiny", max_samples=50_000)
    assert DataSettings.read(record.lineage[0]) == practised
    both = len(asked & keys_of(hold_out(OWN).train.to_list()))
    assert exposure.held_out is False and both > 0
    assert f"{both} of the {len(asked)} problems were trained on by {trained} (" in exposure.why
    assert f"problems were trained on by {TINY_BASE} (" in exposure.why


def test_problems_are_compared_whatever_their_task_is_called() -> None:
    """A dotted path names the same task, and a class derived from it may have the same problems."""
    sides = hold_out(DataSettings("generated:tiny", max_samples=60))
    record = RunRecord(data=asdict(replace(sides.settings, task="mini_r1.tasks.countdown.task:Countdown")))
    with pytest.raises(DataError, match=r"^54 of the 54 problems were trained on by it"):
        examine_exposure("it", record, sides.train, sides)
    unknown = RunRecord(data=asdict(replace(sides.settings, task="nobody.has:This")))
    assert examine_exposure("it", unknown, sides.train, sides).held_out == "unknown"


def test_a_run_whose_data_have_changed_is_not_measured_on_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policies: list[str]
) -> None:
    """The puzzles held out now may have been trained on."""
    data = tmp_path / "puzzles.jsonl"
    rows = [json.dumps({"nums": [number, 2, 3], "target": number + 5}) + "\n" for number in range(1, 41)]
    data.write_text("".join(rows))
    folder = tmp_path / "run"
    shutil.copytree(policies[0], folder)
    record = {"data": hold_out(DataSettings(str(data))).record()}
    (folder / "run.json").write_text(json.dumps(record))
    data.write_text("".join(rows[:-5]))
    assert main([str(folder), *FEW]) == 2
    assert "has changed since the run began" in capsys.readouterr().err


# --- the result file -----------------------------------------------------------------------------------------------


def test_a_file_that_cant_be_written_is_found_before_time_is_spent(
    policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protected = tmp_path / "protected.json"
    protected.write_text("[]", encoding="utf-8")
    protected.chmod(0o444)
    for out in (protected, protected / "below.json", Path("/proc/evaluation.json")):
        assert main([policies[0], *SMALL, "--out", str(out)]) == 2
        assert f"cannot write --out {out}: " in capsys.readouterr().err
    assert protected.read_text(encoding="utf-8") == "[]" and list(tmp_path.iterdir()) == [protected]


def test_results_outlive_a_place_that_is_gone(tmp_path: Path) -> None:
    """After hours of work the folder may be full or away: they are in the temporary one then."""
    lost = module["keep"](tmp_path / "gone" / "e.json", [{"model": "m"}])
    rescued = Path(str(lost).rpartition(" ")[2])
    assert json.loads(rescued.read_text(encoding="utf-8")) == [{"model": "m"}]
    shutil.rmtree(rescued.parent)


def test_the_first_result_is_kept_and_shown_when_the_second_model_cant_be_loaded(
    policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(policies[1], broken)
    (broken / "model.safetensors").write_bytes(b"cut")
    assert main([policies[0], str(broken), *SMALL, "--out", str(tmp_path / "e.json")]) == 2
    shown = capsys.readouterr()
    assert "pass@1" in shown.out and "cannot load the model" in shown.err
    assert [result["model"] for result in json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))] == [
        policies[0]
    ]
