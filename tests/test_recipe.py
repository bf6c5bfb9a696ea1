"""Recipes: read as written, and a bad one is refused with one message that says what to do."""

from pathlib import Path

import pytest

from mini_r1.recipe import RecipeError, attention_implementation, model_init_kwargs, parse_recipe

TINY = str(Path(__file__).parents[1] / "receipes" / "grpo-tiny-countdown.yaml")


def test_the_command_line_overrides_the_recipe() -> None:
    script, training, _ = parse_recipe(["--config", TINY, "--learning_rate", "3e-5", "--eval_puzzles", "7"])
    assert training.learning_rate == 3e-5
    assert script.eval_puzzles == 7


def test_what_the_recipe_says_of_the_model_reaches_the_model() -> None:
    _, _, model = parse_recipe(["--config", TINY, "--model_revision", "abc", "--dtype", "bfloat16"])
    kwargs, note = model_init_kwargs(model)
    assert kwargs == {"revision": "abc", "attn_implementation": "sdpa", "dtype": "bfloat16"}
    assert note is None


def test_flash_attention_falls_back_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_r1.recipe.find_spec", lambda name: None)
    assert attention_implementation("flash_attention_2")[0] == "sdpa"
    assert "flash-attn is not installed" in str(attention_implementation("flash_attention_2")[1])
    monkeypatch.setattr("mini_r1.recipe.find_spec", lambda name: object())
    assert attention_implementation("flash_attention_2") == ("flash_attention_2", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config"], "--config needs the path"),
        (["--config", "receipes/none.yaml"], "there is no recipe 'receipes/none.yaml'"),
        (["--use_cpu", "true", "--bf16", "false"], "model_name_or_path is not set"),
        (["--config", TINY, "--test_size", "1.5"], "test_size=1.5 is not between 0 and 1"),
        (["--config", TINY, "--max_samples", "0"], "max_samples=0 is not a positive"),
        (["--config", TINY, "--eval_puzzles", "-1"], "eval_puzzles=-1 is not a positive"),
        (["--config", TINY, "--samples_per_step", "-1"], "samples_per_step=-1 is negative"),
        (["--config", TINY, "--resume_from_checkpoint", "nowhere"], "resume_from_checkpoint='nowhere' is no folder"),
        (["--config", TINY, "--num_generations", "7"], "num_generations"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        parse_recipe(arguments)


def test_unknown_key_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model_name_or_path: x\nuse_cpu: true\nbf16: false\nlearning_rat: 1\n")
    with pytest.raises(RecipeError, match="learning_rat"):
        parse_recipe(["--config", str(recipe)])
