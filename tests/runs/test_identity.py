"""A run's record: every key is classified, and a change of one is told from a harmless one."""

from dataclasses import fields

import pytest
from trl import GRPOConfig, ModelConfig

from conftest import ROOT, TINY_BASE
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.read import parse_recipe, read_recipe
from mini_r1.runs.identity import DECIDING, HARMLESS, UNRECORDED, RunRecord, changes, record_run

KEYS = {key.name for kind in (ScriptArguments, GRPOConfig, ModelConfig) for key in fields(kind) if key.init}


def record(arguments: list[str], *more: str) -> RunRecord:
    """The record of a recipe, as the preflight makes it."""
    return record_run(read_recipe([*arguments, *more])[0])


def test_every_key_of_a_recipe_is_in_one_class() -> None:
    """A key that TRL adds or removes has to be thought about."""
    assert set() == KEYS ^ (DECIDING | HARMLESS | UNRECORDED)
    assert len(KEYS) == len(DECIDING) + len(HARMLESS) + len(UNRECORDED)
    assert not {key for key in DECIDING | HARMLESS if key.endswith("_token")}


@pytest.mark.parametrize("recipe", sorted((ROOT / "receipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_record_holds_what_was_written_and_survives_json(recipe: object) -> None:
    """Not what GRPOConfig derives from it on this machine; and no key is lost."""
    written = record(["--config", str(recipe)])
    assert set(written.settings) == DECIDING | HARMLESS
    assert RunRecord.from_json(written.as_json()) == written
    assert changes(written, written) == ([], [])


def test_the_built_configuration_gives_the_same_record(small_arguments: list[str]) -> None:
    script, training, _ = parse_recipe(small_arguments)
    assert training.steps_per_generation == 1
    assert record_run(script) == record(small_arguments)


@pytest.mark.parametrize(
    ("options", "deciding", "harmless"),
    [
        (["--learning_rate", "1e-5"], ["learning_rate: 0.0004 -> 1e-05"], []),
        (["--seed", "7", "--beta", "0.1"], ["beta: 0 -> 0.1", "seed: 42 -> 7"], []),
        (["--test_size", "0.2"], ["test_size: 0.1 -> 0.2"], []),
        (["--use_peft", "true"], ["use_peft: false -> true"], []),
        (["--save_steps", "1", "--max_steps", "9"], [], ["max_steps: 4 -> 9", "save_steps: 2 -> 1"]),
        (["--output_dir", "elsewhere", "--dry_run"], [], []),
        (["--model_name_or_path", str(TINY_BASE.parent / ".." / "assets" / TINY_BASE.name)], [], []),
    ],
)
def test_a_change_is_named_with_old_and_new(
    options: list[str], deciding: list[str], harmless: list[str], small_arguments: list[str]
) -> None:
    found = changes(record(small_arguments), record(small_arguments, *options))
    assert [sorted(map(str, kind)) for kind in found] == [deciding, harmless]


def test_a_record_holds_no_secret(small_arguments: list[str]) -> None:
    written = record(small_arguments, "--hub_token", "hf_abcdefghijklmnop", "--vllm_server_args", "--api-key secret-1")
    assert "hf_abcdefgh" not in str(written) and "secret-1" not in str(written)
