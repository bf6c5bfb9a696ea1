"""--help: short, ours first, at once; --help-all has every key."""

import dataclasses
import re
import subprocess
import sys
from typing import get_args

import pytest
from transformers.training_args import OptimizerNames

from conftest import ROOT
from mini_r1.recipe.arguments import TRL_KEYS, Group, ScriptArguments
from mini_r1.recipe.help import long_help, short_help
from mini_r1.recipe.read import KEYS, read_recipe


def test_help_imports_nothing_that_takes_time() -> None:
    command = [sys.executable, "-X", "importtime", "scripts/run_r1_grpo.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for module in ("torch", "transformers", "trl", "datasets"):
        assert f"| {module}\n" not in done.stderr
    assert "--config FILE" in done.stdout.splitlines()[0]
    assert "receipes/grpo-tiny-countdown.yaml" in done.stdout
    assert len(done.stdout.splitlines()) < 150


def test_every_key_of_our_own_has_a_group_and_a_help() -> None:
    groups = get_args(Group)
    keys = [key for key in dataclasses.fields(ScriptArguments) if key.init]
    assert [key.name for key in keys if key.metadata.get("group") not in groups] == [], f"give each one of {groups}"
    assert [key.name for key in keys if not key.metadata.get("help")] == []


def test_help_shows_each_key_once_under_its_group() -> None:
    sections = dict(part.split("\n", 1) for part in short_help().split("\n\n")[3:])
    assert tuple(sections) == get_args(Group)
    shown = {name: group for group, text in sections.items() for name in re.findall(r"^  --(\w+)$", text, re.MULTILINE)}
    assert shown == {key.name: key.metadata["group"] for key in dataclasses.fields(ScriptArguments) if key.init}


def test_help_all_has_every_key() -> None:
    text = long_help()
    assert text.startswith(short_help())
    assert [key for key in KEYS if f"  --{key}\n" not in text] == []
    assert all(name.value in text for name in OptimizerNames)
    assert "--help-all shows all" not in text
    assert max(map(len, text.splitlines()[1:])) <= 120


def test_the_most_used_keys_of_trl_exist_and_are_named_in_their_group() -> None:
    names = [name for group in TRL_KEYS.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) <= set(KEYS) - {key.name for key in dataclasses.fields(ScriptArguments)}
    words = re.findall(r"\w+", short_help())
    assert [name for name in names if name not in words] == []


@pytest.mark.parametrize("word", ["--help", "-h", "--help-all", "--help_all"])
def test_help_wins_over_whatever_else_is_given(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_recipe(["--config", "nowhere", word])
    assert ended.value.code == 0
    assert "--config FILE" in capsys.readouterr().out
