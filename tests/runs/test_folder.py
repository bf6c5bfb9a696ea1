"""An output folder: this very run is resumed or left alone, anything else in it is refused and stays as it is."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, TINY_BASE, Train
from mini_r1.policy.checkpoints import missing
from mini_r1.preflight.checks import check_run
from mini_r1.program.problems import ProblemError
from mini_r1.recipe.read import parse_recipe, read_recipe
from mini_r1.runs.folder import Standing, count_steps, examine_output
from mini_r1.runs.holdout import DataError
from mini_r1.runs.identity import record_run
from mini_r1.runs.lock import LockedError, check_unlocked, run_lock

SCRIPT = ROOT / "scripts" / "run_r1_grpo.py"
FAST = ["--eval_strategy", "no", "--eval_on_start", "false", "--report_to", "none", "--max_completion_length", "16"]
FAST += ["--max_steps", "2", "--save_steps", "1", "--max_samples", "60"]
Examine = Callable[..., Standing]


@pytest.fixture(scope="module")
def small(small_arguments: list[str]) -> list[str]:
    """A run of two steps with a checkpoint after each."""
    return [*small_arguments, *FAST]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """The folder of such a run, made by the script; nobody may change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, str(SCRIPT), *small, "--output_dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return folder


@pytest.fixture
def examine(small: list[str]) -> Examine:
    """How the run of the small recipe stands in a folder, by the recipe as the preflight reads it."""

    def look(folder: Path, *more: str) -> Standing:
        recipe = read_recipe([*small, "--output_dir", str(folder), *more])
        return examine_output(*recipe, record_run(recipe[0]), processes=1)

    return look


def interrupted(finished: Path, folder: Path) -> Path:
    """The run as it was after its first step."""
    shutil.copytree(finished / "checkpoint-1", folder / "checkpoint-1")
    return folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content, but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".run.lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_an_empty_folder_a_run_and_a_finished_run_are_told_apart(
    finished: Path, tmp_path: Path, examine: Examine
) -> None:
    assert examine(tmp_path / "new").words == "no run yet"
    (tmp_path / "notes.txt").write_text("mine")
    assert examine(tmp_path).words == "no run yet, beside files of others, which stay: notes.txt"
    standing = examine(interrupted(finished, tmp_path / "stopped"))
    assert standing.words.startswith("a run at step 1 of 2, which is resumed from ")
    assert standing.checkpoint == tmp_path / "stopped" / "checkpoint-1" and standing.seconds > 0
    done = examine(finished)
    assert done.finished and done.words == "a finished run of 2 steps: nothing left to train"


DECIDING = [
    ("--learning_rate", "1e-5", "learning_rate: 0.0004 -> 1e-05"),
    ("--seed", "7", "seed: 42 -> 7"),
    ("--model_name_or_path", "another/model", '"another/model"'),
    ("--split_seed", "1", "split_seed: 42 -> 1"),
    ("--reward_weights", "2 1", "reward_weights: null -> [2"),
    ("--temperature", "0.7", "temperature: 1 -> 0.7"),
    ("--use_peft", "true", "use_peft: false -> true"),
]


@pytest.mark.parametrize(("key", "value", "words"), DECIDING, ids=[key for key, _, _ in DECIDING])
@pytest.mark.parametrize("state", ["stopped", "finished", "named"])
def test_a_run_that_began_otherwise_is_refused(
    key: str, value: str, words: str, state: str, finished: Path, tmp_path: Path, examine: Examine
) -> None:
    """With key, old value, new value and the ways on; whether it is finished or not."""
    folder = finished if state == "finished" else interrupted(finished, tmp_path)
    more = [key, *value.split()]
    if state == "named":
        more += ["--resume_from_checkpoint", str(folder / "checkpoint-1")]
        folder = tmp_path / "new"
    with pytest.raises(ProblemError) as refusal:
        examine(folder, *more)
    assert words in str(refusal.value)
    assert refusal.value.problem.name == ("resume_from_checkpoint" if state == "named" else "output_dir")
    assert "set another output_dir" in str(refusal.value) and "model_name_or_path=" in str(refusal.value)


def test_the_refusal_comes_from_the_program_before_anything_is_loaded(
    finished: Path, small: list[str], tmp_path: Path
) -> None:
    """One problem, status 2, and the folder as it was; in a dry run, too."""
    before = contents(finished)
    script = [sys.executable, str(SCRIPT), *small, "--output_dir", str(finished)]
    for more in ([], ["--dry_run"]):
        done = subprocess.run(
            [*script, "--seed", "7", *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 2 and "seed: 42 -> 7" in done.stdout and "Traceback" not in done.stderr
    assert contents(finished) == before


def test_a_finished_run_started_again_changes_nothing(
    finished: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    assert train(finished, *FAST) == 0
    assert "nothing left to train" in capsys.readouterr().out
    assert contents(finished) == before


def test_a_finished_run_without_checkpoints_is_left_alone_and_not_begun_anew(
    finished: Path, tmp_path: Path, examine: Examine
) -> None:
    """As `save_strategy: no` leaves it."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    assert examine(folder).finished
    assert examine(folder, "--max_steps", "1").finished
    with pytest.raises(ProblemError, match=r"without a checkpoint, and 9 steps are asked for.*model_name_or_path="):
        examine(folder, "--max_steps", "9")


def test_harmless_keys_are_said_and_take_effect_and_times_add_up(
    finished: Path, tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint's own save_steps would otherwise go on to hold."""
    interrupted(finished, tmp_path)
    manifest = json.loads((tmp_path / "checkpoint-1" / "complete.json").read_text(encoding="utf-8"))
    (tmp_path / "checkpoint-1" / "complete.json").write_text(json.dumps(manifest | {"seconds": 1000.0}))
    assert train(tmp_path, *FAST, "--max_steps", "4", "--save_steps", "3", "--save_total_limit", "9") == 0
    said = capsys.readouterr().out
    for line in ("save_steps: 1 -> 3, from here on", "max_steps: 2 -> 4, from here on"):
        assert line in said
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-3", "checkpoint-4"}
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert 1000 < run["seconds"] < 1400 and run["steps"] == 4
    assert missing(tmp_path / "checkpoint-4") is None
    assert json.loads((tmp_path / "checkpoint-4" / "complete.json").read_text(encoding="utf-8"))["seconds"] > 1000


def test_a_checkpoint_of_an_earlier_version_is_resumed_and_said(
    finished: Path, tmp_path: Path, examine: Examine
) -> None:
    """It has no record to compare with."""
    folder = interrupted(finished, tmp_path)
    manifest = json.loads((folder / "checkpoint-1" / "complete.json").read_text(encoding="utf-8"))
    (folder / "checkpoint-1" / "complete.json").write_text(
        json.dumps({key: manifest[key] for key in ("step", "engine", "processes", "files")})
    )
    (note,) = examine(folder, "--seed", "7").notes
    assert "has no record of its settings" in note


@pytest.mark.parametrize("way", ["same", "link", "relative", "parent"])
def test_the_base_model_is_never_the_output_folder(
    way: str, tmp_path: Path, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever path it is named; nor a folder that the base lies in."""
    base = tmp_path / "models" / "base"
    shutil.copytree(TINY_BASE, base)
    (tmp_path / "link").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    output = {"same": base, "link": tmp_path / "link", "relative": Path("models/x/../base"), "parent": base.parent}[way]
    (tmp_path / "models" / "x").mkdir()
    with pytest.raises(ProblemError, match="another folder than model_name_or_path"):
        examine(output, "--model_name_or_path", str(base))


def test_somebody_elses_model_and_a_file_are_refused(tmp_path: Path, examine: Examine) -> None:
    shutil.copy(TINY_BASE / "model.safetensors", tmp_path)
    with pytest.raises(ProblemError, match=r"a model that no run of Mini-R1 made \(model.safetensors\)"):
        examine(tmp_path)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ProblemError, match="is a file"):
            examine(path)


def test_checkpoints_that_another_program_wrote_are_refused_and_never_rotated_away(
    finished: Path, tmp_path: Path, examine: Examine
) -> None:
    """As the Trainer leaves them: with all its files, without ours."""
    stock = tmp_path / "checkpoint-1"
    shutil.copytree(finished / "checkpoint-1", stock, ignore=shutil.ignore_patterns("complete.json"))
    with pytest.raises(ProblemError, match=rf"no run of Mini-R1 made \(checkpoint-1\).*model_name_or_path={stock}"):
        examine(tmp_path)
    with pytest.raises(ProblemError, match=rf"or another program wrote.*model_name_or_path: {stock} "):
        examine(tmp_path / "new", "--resume_from_checkpoint", str(stock))
    (tmp_path / ".run.lock").touch()  # a run of ours that was interrupted while it saved its first one
    assert examine(tmp_path).words.startswith("no run yet")


# --- steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        (["--max_steps", "-1", "--num_train_epochs", "2"], 11),
        (["--max_steps", "-1", "--num_train_epochs", "0.5"], 40),
        (["--max_steps", "-1", "--num_iterations", "2"], 9),
        (["--max_steps", "-1", "--gradient_accumulation_steps", "2"], 30),
        (["--max_steps", "-1", "--gradient_accumulation_steps", "2", "--steps_per_generation", "4"], 40),
        (["--max_steps", "3"], 4),
        (["--max_steps", "3"], 3),
    ],
)
def test_steps_are_those_that_trls_sampler_yields(more: list[str], rows: int, small_arguments: list[str]) -> None:
    """The same for the recipe as read and as built; by TRL's own sampler."""
    from trl.trainer.utils import RepeatSampler

    arguments = [*small_arguments, *FAST, *more]
    built = parse_recipe(arguments)[1]
    assert built.generation_batch_size and built.steps_per_generation and built.num_generations
    sampler = RepeatSampler(
        range(rows),
        built.num_generations,
        built.generation_batch_size // built.num_generations,
        built.num_iterations * built.steps_per_generation,
    )
    micro = len(list(sampler)) // (built.per_device_train_batch_size * built.steps_per_generation)
    updates = -(-micro // built.gradient_accumulation_steps)
    expected = built.max_steps if built.max_steps > 0 else -(-updates * built.num_train_epochs // 1)
    expected = int(expected) if micro else 0
    assert count_steps(built, rows, 1) == count_steps(read_recipe(arguments)[1], rows, 1) == expected


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--max_steps", "0"], "max_steps"),
        (["--num_iterations", "0"], "num_iterations"),
        (["--max_steps", "-1", "--num_train_epochs", "0"], "num_train_epochs"),
    ],
)
def test_a_recipe_that_asks_for_no_step_is_refused(
    options: list[str], name: str, tmp_path: Path, examine: Examine
) -> None:
    with pytest.raises(ProblemError, match=f"^{name} is "):
        examine(tmp_path / "new", *options)


@pytest.mark.parametrize("rows", [2, 4, 400])
def test_too_few_puzzles_for_a_step_end_in_words_and_save_no_model(rows: int, tmp_path: Path, train: Train) -> None:
    """Two puzzles; four, of which one is held out; and one puzzle 400 times over."""
    puzzles = [{"nums": [number % 7 + 1, 2, 3], "target": 6} for number in range(rows)]
    puzzles = puzzles if rows < 400 else [puzzles[0]] * rows
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in puzzles))
    expected = (
        "at least 2 distinct problems" if rows == 400 else f"^{rows - 1} problems of .* one generation batch takes 4"
    )
    with pytest.raises((DataError, ValueError), match=expected):
        train(tmp_path / "run", *FAST, "--dataset_id_or_path", str(tmp_path / "few.jsonl"))
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_data_that_changed_since_the_run_began_are_refused(tmp_path: Path, train: Train, small: list[str]) -> None:
    """Under the same name; by the dry run too."""
    data = tmp_path / "puzzles.jsonl"
    rows = [json.dumps({"nums": [number, 2, 3], "target": number + 5}) + "\n" for number in range(1, 41)]
    data.write_text("".join(rows))
    more = [*FAST, "--dataset_id_or_path", str(data)]
    assert train(tmp_path / "run", *more, "--max_steps", "1") == 0
    data.write_text("".join(rows[:-1]))
    with pytest.raises(DataError, match="has changed since the run began"):
        train(tmp_path / "run", *more)
    recipe = read_recipe([*small, *more, "--output_dir", str(tmp_path / "run"), "--max_steps", "2"])
    (problem,) = check_run(*recipe, {}).problems
    assert problem.name == "dataset_id_or_path"
    assert "(35 to train on and 4 held out; recorded: 36 and 4)" in problem.cause
    data.write_text("".join(rows))
    assert check_run(*recipe, {}).problems == []


# --- one run at a time ---------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from mini_r1.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_has_ended_even_by_kill(tmp_path: Path) -> None:
    """It names the process; the operating system frees the lock."""
    folder = tmp_path / "run"
    check_unlocked(folder)
    assert not folder.exists()
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert first.stdout is not None and first.stdout.readline() == "locked\n"
    for attempt in (lambda: check_unlocked(folder), lambda: run_lock(folder).__enter__()):
        with pytest.raises(LockedError, match=rf"another run uses it \(process {first.pid} on \S+, since 20"):
            attempt()
    first.kill()
    first.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            check_unlocked(folder)
            break
        except LockedError:
            time.sleep(0.05)
    with run_lock(folder):
        assert f"process {os.getpid()} " in (folder / ".run.lock").read_text()


def test_a_running_run_refuses_a_second_one_before_it_touches_anything(
    finished: Path, tmp_path: Path, train: Train
) -> None:
    folder = interrupted(finished, tmp_path)
    with run_lock(folder):
        before = contents(folder)
        with pytest.raises(LockedError):
            train(folder, *FAST)
        assert contents(folder) == before
