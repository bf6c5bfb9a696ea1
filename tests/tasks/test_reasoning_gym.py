"""reasoning-gym as a task: its problems by seed, its scorers on hostile text, and what is refused in words."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, dry_run
from helpers.requirements import require_module
from mini_r1.program.problems import UserError
from mini_r1.tasks.reasoning_gym import MAX_ANSWER, ReasoningGym
from mini_r1.tasks.reasoning_gym_process import ReasoningGymProcess, StoppedError, reasoning_gym_process
from mini_r1.tasks.registry import TaskError, find_task, rewards_of, task_of
from mini_r1.tasks.task import Source

require_module("reasoning_gym", "pip install -r requirements-dev.txt")

NAMES = reasoning_gym_process().call("names")
# The package has no solution of these that its own scorer accepts, or nothing without settings.
WITHOUT = {"boxnet", "rush_hour", "composite"}
# Their scorers evaluate an answer: with Python's eval, or with sympy's.
EVALUATING = ["string_insertion", "spiral_matrix", "binary_matrix", "n_queens", "countdown"]
RECIPE = ROOT / "receipes" / "grpo-qwen-2.5-1.5b-reasoning-gym.yaml"
TASK = ReasoningGym({"name": "knights_knaves", "n_people": 2})


def completion(answer: str) -> str:
    return f"hm</think>\n<answer> {answer} </answer>"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take a second."""
    monkeypatch.setattr("mini_r1.tasks.reasoning_gym.SECONDS_TO_SCORE", 1.0)


# --- problems --------------------------------------------------------------------------------------------------------


def check_rows(name: str) -> None:
    """Rows by seed, whose own answers are right."""
    task = task_of(f"reasoning_gym/{name}")
    row, solved = task.solved_example()
    assert (task.judge(solved, row).reason, task.in_format(solved)) == ("correct", True)
    for row in task.load(Source("generated", max_samples=2, seed=7)).to_list():
        assert json.loads(row["metadata"]) is not None
        if row["answer"] is not None:
            assert task.judge(completion(row["answer"]), row).reason == "correct"


@pytest.mark.parametrize("name", ["rearc", "graph_color", "propositional_logic", "rubiks_cube", "gsm_symbolic"])
def test_a_task_has_rows_whose_own_answers_are_right(name: str) -> None:
    """Of these the scorers compare tuples, or the answers are in the metadata."""
    check_rows(name)


@pytest.mark.slow
def test_every_task_has_rows_whose_own_answers_are_right() -> None:
    for name in sorted(set(NAMES) - WITHOUT):
        check_rows(name)


def test_rows_are_the_same_in_a_process_of_another_day() -> None:
    """A generator that draws from the process's own random state, or from the order of a set, would differ."""
    for name in ("list_functions", "acre", "pool_matrix"):
        arguments: tuple[Any, ...] = ("make", name, {}, 4, 3, 0, 4)
        assert ReasoningGymProcess().call(*arguments) == ReasoningGymProcess().call(*arguments)


def test_settings_and_seeds_make_other_rows_and_leave_the_random_state_alone() -> None:
    before = random.getstate()
    first, other = (TASK.load(Source("generated", max_samples=3, seed=seed)).to_list() for seed in (1, 1000))
    three = ReasoningGym({"name": "knights_knaves", "n_people": 3}).load(Source("generated", max_samples=3, seed=1))
    assert random.getstate() == before
    assert len({TASK.key(row) for row in [*first, *other, *three.to_list()]}) == 9


def test_problems_are_made_in_parts_without_a_seam() -> None:
    task = ReasoningGym({"name": "chain_sum"})
    rows = task.load(Source("generated", max_samples=230, seed=1)).to_list()
    assert rows == reasoning_gym_process().call("make", "chain_sum", {}, 230, 1, 0, 230)


# --- judging ---------------------------------------------------------------------------------------------------------


def test_every_verdict_has_its_reason() -> None:
    """Partial credit is a reward, and not a solution."""
    row = TASK.load(Source("generated", max_samples=1)).to_list()[0]
    swapped = row["answer"].replace(" and ", "#").partition("#")[0]
    other = "knave" if "knight" in swapped else "knight"
    half = row["answer"].replace(swapped, swapped.rpartition(" ")[0] + f" {other}")
    given = [TASK.judge(text, row) for text in (completion(row["answer"]), completion(half), completion("?"), "none")]
    assert [verdict.reason for verdict in given] == ["correct", "partial", "wrong", "no_answer"]
    assert [verdict.reward for verdict in given] == [1.0, pytest.approx(0.65), 0.0, 0.0]
    assert {verdict.reason for verdict in given} == set(TASK.reasons)
    rewards = rewards_of(TASK)
    assert rewards["answer"](["", "", "", ""], verdicts=given) == [verdict.reward for verdict in given]
    in_format = [TASK.in_format(text) for text in (completion("x"), "none")]
    assert rewards["format"]([completion("x"), "none"], in_format=in_format) == [1.0, 0.0]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", EVALUATING)
def test_an_answer_is_never_run_as_a_program(name: str, tmp_path: Path) -> None:
    task = task_of(f"reasoning_gym/{name}")
    row, _ = task.solved_example()
    made = tmp_path / "made"
    for program in (
        f"open('{made}', 'w')",
        f"__import__('os').system('touch {made}')",
        f"__import__('subprocess').run(['touch', '{made}'])",
        f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{made}'])",
        f'exec(\'import os; os.symlink("/", "{made}")\')',
    ):
        assert task.judge(completion(program), row).reason != "correct"
        assert not made.exists()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ["complex_arithmetic", "n_queens"])
@pytest.mark.parametrize(
    "text", ["nan", "nan+nanj", "inf", "[" * 5000, "\udc00\x00", "1/0", "\u0661", "x" * (MAX_ANSWER + 1), "exit()"]
)
def test_odd_text_is_wrong(name: str, text: str) -> None:
    task = task_of(f"reasoning_gym/{name}")
    row, solved = task.solved_example()
    assert task.judge(completion(text), row).reason in ("wrong", "partial")
    assert task.judge(solved, row).reason == "correct"  # as before


@pytest.mark.usefixtures("short")
def test_an_answer_that_never_ends_is_wrong() -> None:
    task = task_of("reasoning_gym/countdown")
    row, solved = task.solved_example()
    verdict = task.judge(completion("9**9**9**9"), row)
    assert (verdict.reason, verdict.reward) == ("wrong", 0.0)
    assert task.judge(solved, row).reason == "correct"


def test_a_killed_process_is_started_again() -> None:
    process = ReasoningGymProcess()
    assert process.call("names") == NAMES
    assert process._process is not None
    process._process.kill()
    process._process.wait()
    assert process.call("names") == NAMES
    with pytest.raises(StoppedError):
        process.call("make", "knight_swap", {}, 500, 1, 0, 500, seconds=0.5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("reasoning_gym/knight_knaves", {}, ["did you mean reasoning_gym/knights_knaves?"]),
        ("reasoning_gym", {}, ["it names none", "chain_sum"]),
        ("reasoning_gym/knights_knaves", {"n_poeple": 3}, ["did you mean n_people?"]),
        ("reasoning_gym/knights_knaves", {"n_people": 100}, ["no problem came within 3 seconds"]),
        ("reasoning_gym/knights_knaves", {"n_people": "many"}, ["task_config", "many"]),
        ("reasoning_gym/knights_knaves", {"seed": 3}, ["set split_seed in the recipe"]),
        ("reasoning_gym/knights_knaves", {"size": 3}, ["set max_samples in the recipe"]),
        ("reasoning_gym/composite", {}, ["Must specify at least one dataset"]),
        ("reasoning_gym/rush_hour", {}, ["without a solution", "choose another"]),
    ],
)
def test_what_it_does_not_take_is_said(
    name: str, config: dict[str, Any], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mini_r1.tasks.reasoning_gym.SECONDS_TO_MAKE", 3.0)
    with pytest.raises(TaskError) as raised:
        task_of(name, config)
    message = str(raised.value)
    assert all(words in message for words in [*said, "Fix:"])
    assert "\n" not in message


@pytest.mark.parametrize("source", [Source("openai/gsm8k"), Source("generated", revision="main")])
def test_there_is_no_other_source(source: Source) -> None:
    with pytest.raises(UserError, match="makes up its own problems"):
        TASK.load(source)


def test_without_the_package_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    """At a dry run, where another package of that name can't be imported."""
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('No module named reasoning_gym')", encoding="utf-8")
    program = [sys.executable, "scripts/run_r1_grpo.py", "--config", str(RECIPE), "--dry_run"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])
    ended = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths})
    assert ended.returncode == 2
    lines = (ended.stdout + ended.stderr).splitlines()
    assert sum("pip install reasoning-gym" in line for line in lines) == 1
    assert not any("Traceback" in line for line in lines)


# --- as a task -------------------------------------------------------------------------------------------------------


def test_it_is_found_again_from_a_record() -> None:
    found = find_task({"task": "reasoning_gym/chain_sum", "task_config": {"min_terms": 2}})
    assert isinstance(found, ReasoningGym)
    assert (found.name, found.settings) == ("chain_sum", {"min_terms": 2})


def test_groups_and_lines_for_people() -> None:
    row, _ = TASK.solved_example()
    assert TASK.groups({"metadata": '{"difficulty": "easy"}'}) == {"difficulty": "easy"}
    assert TASK.groups(row) == {}  # of knights and knaves it is a table
    assert "\n" not in TASK.show(row)
    assert TASK.solution(row) == f"the answer: {row['answer']}"
    assert TASK.solution(dict(row) | {"answer": None}) is None


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_the_recipe_is_ready(byte_model: Path) -> None:
    local = f"--model_name_or_path {byte_model} --max_prompt_length 2048 --vllm_max_model_length 4096"
    printed = dry_run(RECIPE, *local.split())
    assert "preflight: ready" in printed
    assert "10,000 from generated" in printed or "10000 from generated" in printed
