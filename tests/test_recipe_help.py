"""--help: short, ours first, at once; --help-all has every key."""

import dataclasses
import subprocess
import sys

import pytest

from conftest import ROOT
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.help import GROUPS, OFTEN, long_help, short_help
from mini_r1.recipe.read import KEYS, read_recipe


def test_help_imports_nothing_that_takes_time() -> None:
    command = [sys.executable, "-X", "importtime", "scripts/run_r1_grpo.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for module in ("torch", "transformers", "trl", "datasets"):
        assert f"| {module}\n" not in done.stderr
    assert "--config FILE" in done.stdout.splitlines()[0]
    assert "receipes/grpo-tiny-countdown.yaml" in done.stdout
    assert len(done.stdout.splitlines()) < 110


def test_each_key_of_our_own_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(key.name for key in dataclasses.fields(ScriptArguments) if key.init)


def test_help_all_has_every_key() -> None:
    text = long_help()
    assert text.startswith(short_help())
    assert [key for key in KEYS if f"  --{key}\n" not in text] == []
    assert max(map(len, text.splitlines()[1:])) <= 120


def test_the_keys_named_as_the_most_used_exist() -> None:
    named = OFTEN.partition(":")[2].replace(",", " ").strip(". ").split()
    assert set(named) <= set(KEYS)


@pytest.mark.parametrize("word", ["--help", "-h", "--help-all", "--help_all"])
def test_help_wins_over_whatever_else_is_given(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_recipe(["--config", "nowhere", word])
    assert ended.value.code == 0
    assert "--config FILE" in capsys.readouterr().out
