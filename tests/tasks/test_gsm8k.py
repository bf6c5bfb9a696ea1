"""GSM8K: which texts are the right number, which rows are refused and how, and the prompt that a model gets."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from conftest import ROOT, dry_run
from mini_r1.program.problems import UserError
from mini_r1.tasks.gsm8k import Gsm8k, Gsm8kError, read_number
from mini_r1.tasks.registry import TaskError, rewards_of, task_of
from mini_r1.tasks.task import Source

ROWS = [
    {"question": f"Ann has {n} apples and gets {n} more. How many?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"}
    for n in range(1, 41)
]
TASK = Gsm8k()


def completion(answer: str) -> str:
    return f"hm</think>\n<answer> {answer} </answer>"


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "text",
    ["72", " 72 ", "72.0", "72.", "+72", "$72", "$72.00", "72%", "72 %", "0072", "144/2", "144 / 2", "72.000", "72%."],
)
def test_the_same_number_written_otherwise(text: str) -> None:
    assert read_number(text) == 72


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567", Fraction(1234567)),
        ("-$5", Fraction(-5)),
        ("$-5", Fraction(-5)),
        ("\u22125", Fraction(-5)),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("1/3", Fraction(1, 3)),
        ("12345678901234567890.5", Fraction(24691357802469135781, 2)),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "seventy-two", "72 apples", "6 * 12", "6*12 = 72", "72 or 73", "7 2", "72 72", "12,34", "1,2345", ",72"),
        *(
            "1/0",
            "0/0",
            "1//2",
            "1/2/3",
            "1.2.3",
            "--72",
            "-$-72",
            "1e3",
            "1_000",
            "0x48",
            "inf",
            "nan",
            "\u0667\u0662",
        ),
        *("__import__('os').getcwd()", "9**9**9", "9" * 5000, "1/" + "9" * 5000, "(" * 100_000, "72\x00", "72</think>"),
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "reason", "reward"),
    [
        (completion("1,072"), "correct", 1.0),
        (completion("1072.0"), "correct", 1.0),
        (completion("1072.0001"), "wrong_number", 0.0),
        (completion("1071"), "wrong_number", 0.0),
        (completion("-1072"), "wrong_number", 0.0),
        (completion("about 1072"), "not_a_number", 0.0),
        ("<answer>1072</answer> is it? </think> no", "no_answer", 0.0),
        ("</think><answer>1072", "no_answer", 0.0),
        (completion("1072") + completion("7"), "wrong_number", 0.0),
    ],
)
def test_every_verdict_has_its_reason(text: str, reason: str, reward: float) -> None:
    verdict = TASK.judge(text, {"question": "?", "answer": "a #### 3 of them\n#### 1,072"})
    assert (verdict.reason, verdict.reward) == (reason, reward)
    assert reason in TASK.reasons


def test_the_rewards_are_the_form_and_the_verdict() -> None:
    texts = [completion("2"), completion("3"), "2"]
    verdicts = [TASK.judge(text, ROWS[0]) for text in texts]
    judged = {"verdicts": verdicts, "in_format": [TASK.in_format(text) for text in texts]}
    given = {name: reward(texts, **judged) for name, reward in rewards_of(TASK).items()}
    assert given == {"format": [1.0, 1.0, 0.0], "answer": [1.0, 0.0, 0.0]}


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_and_a_folder_give_the_rows(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"train.{ending}"
    if ending == "parquet":
        Dataset.from_list(ROWS).to_parquet(str(file))
    else:
        written(file, ROWS)
    assert TASK.load(Source(str(file))).to_list() == ROWS
    assert TASK.load(Source(str(tmp_path))).to_list() == ROWS


def test_the_choice_among_more_rows_is_seeded(tmp_path: Path) -> None:
    name = written(tmp_path / "all.jsonl", ROWS)
    first, again, other = (TASK.load(Source(name, max_samples=5, seed=seed)).to_list() for seed in (1, 1, 2))
    assert len(first) == 5
    assert first == again != other


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"question": "?", "answer": "72"}, ["####", "'72'"]),
        ({"question": "?", "answer": "#### many"}, ["'many'", "not a number"]),
        ({"question": "", "answer": "#### 1"}, ["'question'", "''"]),
        ({"question": "?"}, ["answer"]),
        ({"question": "?", "answer": 72}, ["answer", "72"]),
        ([1, 2], ["[1, 2]"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: Any, said: list[str]) -> None:
    name = written(tmp_path / "bad.jsonl", [*ROWS[:3], bad])
    with pytest.raises(Gsm8kError) as raised:
        TASK.load(Source(name))
    message = str(raised.value)
    assert "row 3" in message
    assert all(word in message for word in [name, *said, "Fix:"])
    assert "\n" not in message


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{json.dumps(ROWS[0])}\n{{"question": "?\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2, is not JSON"):
        TASK.load(Source(str(path)))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source("./nowhere.jsonl"), "there is no file or folder"),
        (Source(__file__), "is not one of .jsonl"),
        (Source("./nowhere.jsonl", revision="main"), "is for data sets on the Hub"),
        (Source("./nowhere.jsonl", max_samples=0), "at least 1"),
    ],
)
def test_a_source_that_there_is_not(source: Source, said: str) -> None:
    with pytest.raises(UserError, match=said):
        TASK.load(source)


def test_an_empty_file_and_a_missing_split_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(Gsm8kError, match="Fix:"):
        TASK.load(Source(str(tmp_path / "train.jsonl")))
    written(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(Gsm8kError, match="check dataset_split"):
        TASK.load(Source(str(tmp_path), split="nope"))


def test_without_the_hub_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the Hub\nand more")

    monkeypatch.setattr("mini_r1.tasks.gsm8k.load_dataset", unreachable)
    with pytest.raises(Gsm8kError, match=r"no route to the Hub\. Fix: check name"):
        TASK.load(Source(TASK.default_source))


def test_its_configuration_is_one_of_two() -> None:
    assert Gsm8k().variant == "main"
    assert task_of("gsm8k/socratic").config == {"name": "socratic"}
    with pytest.raises(TaskError, match="main or socratic"):
        task_of("gsm8k", {"name": "hard"})
    with pytest.raises(TaskError, match="it has nam; did you mean name"):
        task_of("gsm8k", {"nam": "main"})


# --- as a task -------------------------------------------------------------------------------------------------------


def test_it_is_registered_and_asks_the_hub_by_default() -> None:
    task = task_of("gsm8k")
    assert task.is_on_hub(task.default_source)
    assert not task.is_on_hub("./mine.jsonl")
    assert not task.generates(task.default_source)


def test_keys_groups_and_lines_for_people() -> None:
    spaced = ROWS[0] | {"question": ROWS[0]["question"].replace(" ", "\n")}
    assert TASK.key(spaced) == TASK.key(ROWS[0]) != TASK.key(ROWS[1])
    assert TASK.groups({"answer": "one\n\ntwo\n#### 2"}) == {"how many steps": "2 steps"}
    assert "\n" not in TASK.show(spaced)
    assert TASK.solution(ROWS[0]) == ROWS[0]["answer"]


# --- the recipe ------------------------------------------------------------------------------------------------------

RECIPE = ROOT / "receipes" / "grpo-qwen-2.5-1.5b-gsm8k.yaml"


def test_the_recipe_is_ready_with_a_file_of_this_form(tmp_path: Path, byte_model: Path) -> None:
    name = written(tmp_path / "train.jsonl", ROWS)
    local = f"--model_name_or_path {byte_model} --dataset_id_or_path {name} --max_prompt_length 1024"
    printed = dry_run(RECIPE, *local.split(), "--vllm_max_model_length", "2048")
    assert "preflight: ready" in printed
    assert f"{len(ROWS)} from {name}" in printed
