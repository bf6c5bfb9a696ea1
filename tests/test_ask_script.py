"""The command that gives a policy one puzzle."""

import runpy

import pytest

from conftest import ROOT, TINY_BASE

main = runpy.run_path(str(ROOT / "scripts" / "ask.py"))["main"]
PUZZLE = ["--numbers", "19", "36", "55", "--target", "72"]


def test_it_prints_each_completion_with_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY_BASE), *PUZZLE, "--samples", "3", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Let me solve this step by step.\n<think>") == 3
    assert printed.count("; format ok; ") + printed.count("; format broken; ") == 3
    assert "a solution: " in printed


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        main([str(TINY_BASE), *PUZZLE, "--seed", seed])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder", *PUZZLE], "no/such/folder"),
        ([str(TINY_BASE), "--numbers", "5", "--target", "5"], "2 to 6 positive whole numbers"),
        ([str(TINY_BASE), *PUZZLE, "--samples", "0"], "at least 1"),
    ],
)
def test_wrong_input_is_one_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
