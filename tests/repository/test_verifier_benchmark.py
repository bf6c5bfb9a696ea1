"""The comparison with other scorers: each is its project's own code, and the table says where they differ."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from helpers.requirements import require_module
from mini_r1.program.problems import UserError

VERIFIER = runpy.run_path(str(ROOT / "benchmarks" / "verifier.py"))
OWN = """
def compute_score(solution_str, ground_truth, method="strict", format_score=0.1, score=1.0):
    print("as the real one does, now and then")
    assert solution_str.startswith("Assistant: Let me solve this step by step.")
    return score if str(ground_truth["target"]) in solution_str and ground_truth["numbers"] else format_score
"""


def a_clone(folder: Path) -> Path:
    """What `--tinyzero` expects of a clone: the place of the function, and its arguments."""
    path = folder / "verl" / "utils" / "reward_score" / "countdown.py"
    path.parent.mkdir(parents=True)
    path.write_text(OWN, encoding="utf-8")
    return folder


def test_the_forms_are_judged_by_their_rules() -> None:
    ours = VERIFIER["scorers"](None)["ours"]
    assert [form.kind for form in VERIFIER["FORMS"] if ours(form) != form.right] == []
    assert {form.right for form in VERIFIER["FORMS"]} == {True, False}


def test_other_scorers_are_asked_in_their_own_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_module("reasoning_gym", "pip install -r requirements-dev.txt")
    judges = VERIFIER["scorers"](a_clone(tmp_path))
    assert list(judges) == ["ours", "the usual recipe", "TinyZero", "reasoning-gym"]
    forms = {form.kind: form for form in VERIFIER["FORMS"]}
    assert all(judge(forms["an equation"]) for name, judge in judges.items() if name != "TinyZero")
    assert [judges["TinyZero"](forms[kind]) for kind in ("with its value", "an equation")] == [True, False]
    assert not judges["the usual recipe"](forms["with its value"])
    assert judges["the usual recipe"](forms["a power"]) and not judges["ours"](forms["a power"])
    assert judges["reasoning-gym"](forms["a function"]) and not judges["the usual recipe"](forms["a function"])
    assert capsys.readouterr().out == ""


def test_what_is_no_clone_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"verl/utils/reward_score/countdown\.py\. Fix: git clone"):
        VERIFIER["scorers"](tmp_path)


def test_a_row_says_where_a_scorer_differs_and_another_verdict_is_bold() -> None:
    judges: dict[str, Any] = {"ours": VERIFIER["scorers"](None)["ours"], "all": lambda text: True}
    rows = VERIFIER["compare"](VERIFIER["FORMS"], judges)
    assert rows[-2].endswith("| 1.0 | nowhere |")
    assert rows[-1].endswith("| 1 of our `no_answer`, 1 of our `wrong_numbers`, 4 of our `not_allowed`, "
                             "1 of our `wrong_value` |")  # fmt: skip
    table = VERIFIER["verdicts"](judges)
    assert table[-1] == "| other verdicts |  | 0 | 7 |"
    assert [line.count("**solved**") for line in table[2:-1]] == [int(not form.right) for form in VERIFIER["FORMS"]]
