"""A task or a reward is a line in the recipe: ours by name, anybody's by its dotted path, and mistakes in words."""

import argparse
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from conftest import ROOT, TINY_BASE, TINY_RECIPE
from helpers.chat_tokenizers import llama_tokenizer, qwen_tokenizer
from helpers.requirements import skip_or_fail
from helpers.walk import walk
from helpers.walker import Step
from mini_r1.preflight.checks import check_run
from mini_r1.program.problems import UserError
from mini_r1.prompts.build import PromptWriter
from mini_r1.recipe.read import read_recipe
from mini_r1.recipe.text import RecipeError
from mini_r1.recipe.values import check_rewards
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.registry import TASKS, TaskError, find_task, rewards_of, task_of
from mini_r1.tasks.task import Row, Task, json_object

REWARDS = ["format", "answer", "my_module.brevity", "my_module.sees_its_column"]
# Beside what README shows: a reward that takes a column of the data.
MORE = """

def sees_its_column(completions, n, **kwargs):
    return [float(len(n) == len(completions)) for _ in completions]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's folder: a file with README's task and reward, and a recipe that names them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    task, reward = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_module.py").write_text(f"{task}\n\n{reward}{MORE}", encoding="utf-8")
    recipe = TINY_RECIPE.read_text(encoding="utf-8").replace("assets/", f"{ROOT}/assets/")
    lines = [
        line for line in recipe.splitlines() if line.partition(":")[0] not in ("dataset_id_or_path", "max_samples")
    ]
    lines += ["task: my_module:Double", "task_config: {first: 3}", f"reward_funcs: [{', '.join(REWARDS)}]"]
    lines += [
        "reward_weights: [1, 1, 0.5, 0]",
        "max_prompt_length: 400",
        "max_samples: 60",
        "eval_puzzles: 4",
        "per_device_train_batch_size: 16",
    ]
    lines += ["num_generations: 4", "max_completion_length: 16", "max_steps: 2", "output_dir: run"]
    lines += ["per_device_eval_batch_size: 8", "eval_steps: 1", "save_steps: 1"]
    keys = [line.partition(":")[0] for line in lines]
    last = {key: line for key, line in zip(keys, lines, strict=True) if key and not key.startswith(("#", " "))}
    (tmp_path / "mine.yaml").write_text("\n".join(last.values()) + "\n", encoding="utf-8")
    return tmp_path


def test_a_task_and_a_reward_from_outside_need_no_line_of_the_repository(folder: Path) -> None:
    """Checked, trained, evaluated, asked and reported, in another folder than the repository's."""
    train = ("run_r1_grpo.py", "--config", "mine.yaml")
    options = ["--puzzles", "4", "--samples", "1", "--out", "run/evaluation.json"]
    row = ("--row", '{"n": 12}', "--max-completion-length", "8")
    here, above = str(folder), str(folder.parent)
    steps = [
        Step("check", (*train, "--dry_run"), folder=here),
        Step("train", train, folder=here),
        Step("evaluate", ("evaluate.py", str(TINY_BASE), "run", *options), folder=here),
        Step("ask", ("ask.py", "run", *row), folder=here),
        Step("ask elsewhere", ("ask.py", str(folder / "run"), *row), folder=above),
        Step("report", ("report.py", "run"), folder=here),
    ]
    said = walk(steps, folder / "printed", {})
    failed = {name: one.err for name, one in said.items() if one.status}
    assert failed.keys() == {"ask elsewhere"}, failed
    assert said["ask elsewhere"].status == 2 and "error: task is 'my_module:Double'" in said["ask elsewhere"].err
    assert "preflight: ready" in said["check"].out and said["ask"].out.startswith("> 2 x 12\n")
    record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["rewards"] == REWARDS
    assert record["data"]["task"] == "my_module:Double" and record["data"]["task_config"] == {"first": 3}
    log = json.loads((folder / "run" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    names = {name for entry in log for name in entry}
    assert {"solved", "format", "verdict/wrong", "rewards/brevity/mean", "eval_solved"} <= names
    assert not any(name.startswith("thinking/") for name in names)  # this task measures nothing of that kind
    samples = (folder / "run" / "completion_samples" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert (
        json.loads(samples[0])["rewards"]["my_module.sees_its_column"] == 1
        and list(json.loads(samples[0])["rewards"]) == REWARDS
    )
    page = (folder / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "doubling: double a number" in page
    assert "doubling" in (folder / "run" / "README.md").read_text(encoding="utf-8")


def test_a_report_can_be_made_where_the_task_is_not(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert find_task({"task": "nobody.has:This"}) is None
    assert find_task({}) is not None  # a record from before there were other tasks
    assert find_task("broken") is None


OURS = ("countdown", "gsm8k", "gsm8k/socratic", "reasoning_gym/knights_knaves")


def ours(name: str) -> Task:
    """One of our tasks, if its package is here."""
    if name.startswith("reasoning_gym") and importlib.util.find_spec("reasoning_gym") is None:
        skip_or_fail("reasoning-gym is not installed")
    return task_of(name)


def test_no_task_of_ours_is_left_out() -> None:
    assert {name.partition("/")[0] for name in OURS} == set(TASKS)


@pytest.mark.parametrize("name", OURS)
def test_every_task_of_ours_says_what_it_has_to(name: str) -> None:
    task = ours(name)
    row, completion = task.solved_example()
    assert task.judge(completion, row).reason == "correct" and task.in_format(completion)
    assert set(task.default_rewards) <= set(task.rewards)
    assert set(task.columns) <= set(row)
    assert task.show(row) and task.question(row) and task.key(row)
    names = task.measure(completion, row).keys()
    for text in ("", "\ud800", "<answer>" * 1000, "x" * 100_000):
        assert task.judge(text, row).reason in task.reasons
        assert not task.in_format(text)
        assert task.measure(text, row).keys() == names >= task.measure_in_training(text, row).keys()


@pytest.mark.parametrize("tokenizer", [qwen_tokenizer(), llama_tokenizer()], ids=["qwen", "llama"])
@pytest.mark.parametrize("name", OURS)
def test_a_prompt_ends_in_the_prefill_and_a_right_answer_comes_back(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    task = ours(name)
    row, answer = task.solved_example()
    prompt = PromptWriter(tokenizer, task).write(row)
    assert prompt.endswith(task.prefill)
    assert task.question(row) in prompt and "<answer>" in task.question(row)
    back = str(tokenizer.decode(tokenizer(text=answer, add_special_tokens=False)["input_ids"]))
    assert task.judge(back, row).reason == "correct"
    assert task.in_format(back)


class Unfinished(Task):
    """A task that leaves out nearly everything."""

    def key(self, row: Row) -> str:
        return ""


class Refusing(Countdown):
    """A task that does not like its configuration."""

    def __init__(self, config: Any = None) -> None:
        raise RuntimeError("no such level: 9")


def no_kwargs(completions: list[str]) -> list[float]:
    """A reward that TRL could not call."""
    return [0.0 for _ in completions]


def format_reward_func(completions: list[str], **kwargs: Any) -> list[float]:
    """A reward of the same name as one of ours."""
    return [0.0 for _ in completions]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("countdwn", "there is no such task; did you mean countdown?"),
        ("chess", "needed: countdown"),
        ("no_such_module:Task", "No module named 'no_such_module'"),
        (f"{__name__}:Missing", f"{__name__} has no Missing"),
        (f"{__name__}:ROOT", "it is not such a class"),
        (f"{__name__}:Unfinished", "it does not define in_format, judge"),
        (f"{__name__}:Refusing", "no such level: 9"),
        (":", "package.module:NAME"),
        ("..:x", "package.module:NAME"),
    ],
)
def test_a_task_that_there_is_not_is_said_in_words(name: str, told: str) -> None:
    with pytest.raises(TaskError) as refused:
        task_of(name)
    assert told in str(refused.value)
    assert str(refused.value).startswith("task is ") and "Fix: " in str(refused.value)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["format", "equatoin"], "did you mean equation?"),
        (["format", "format"], "format occurs twice"),
        ([], "it names no reward"),
        (["no_such_module.reward"], "No module named 'no_such_module'"),
        ([f"{__name__}.missing"], "has no missing"),
        ([f"{__name__}.ROOT"], "it is not a function"),
        ([f"{__name__}.no_kwargs"], "it does not take **kwargs"),
        (["format", f"{__name__}.format_reward_func"], "several functions are called format_reward_func"),
    ],
)
def test_a_reward_that_there_is_not_is_said_in_words(names: list[str], told: str) -> None:
    with pytest.raises(TaskError) as refused:
        rewards_of(Countdown(), names)
    assert told in str(refused.value) and "Fix: " in str(refused.value)


def test_every_reward_of_a_run_is_what_it_says() -> None:
    columns: dict[str, list[Any]] = {
        "completions": [
            "</think><answer>3 + 4</answer>",
            "</think><answer>3 * 4</answer>",
            "</think><answer>3</answer>",
        ],
        "completion_ids": [[0] * length for length in (80, 90, 100)],
        "target": [7] * 3,
        "nums": [[3, 4]] * 3,
    }
    task = Countdown()
    columns["verdicts"] = [task.judge(text, {"nums": [3, 4], "target": 7}) for text in columns["completions"]]
    found = rewards_of(task, ["format", "equation", "numbers", "soft_overlong"], max_completion_length=100)
    assert {name: function(**columns) for name, function in found.items()} == {
        "format": [1, 1, 1],
        "equation": [1, 0, 0],
        "numbers": [1, 1, 0],
        "soft_overlong": [0, -0.5, -1],
    }


def test_weights_are_for_the_rewards_that_the_recipe_names() -> None:
    script, training, _ = read_recipe(
        ["--config", str(TINY_RECIPE), "--reward_funcs", "equation", "--reward_weights", "1"]
    )
    assert script.reward_funcs == ["equation"] and check_rewards(script, training) == []
    script, training, _ = read_recipe(["--config", str(TINY_RECIPE), "--reward_weights", "1"])
    (problem,) = check_rewards(script, training)
    assert "for format and equation in this order" in str(problem)


@pytest.mark.parametrize(
    "wrong", [["--task", "countdwn"], ["--task_config", "{level: 3}"], ["--reward_funcs", "equatoin"]]
)
def test_the_preflight_says_it_once_and_no_more(wrong: list[str]) -> None:
    script, training, model = read_recipe(["--config", str(TINY_RECIPE), *wrong])
    report = check_run(script, training, model, {})
    assert [problem.name for problem in report.problems] == [wrong[0][2:]], report.verdict()


def test_a_task_config_is_a_mapping() -> None:
    with pytest.raises(RecipeError, match="task_config"):
        read_recipe(["--config", str(TINY_RECIPE), "--task_config", "[1, 2]"])


def test_a_row_for_ask_has_every_column() -> None:
    with pytest.raises(UserError, match="--row: question, answer missing"):
        task_of("gsm8k").read_arguments(argparse.Namespace(row={}))


@pytest.mark.parametrize("text", ["[1]", "3", '"x"', "{", "", "[" * 100_000])
def test_what_is_no_json_object_is_said_in_words(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a JSON object"):
        json_object(text)
