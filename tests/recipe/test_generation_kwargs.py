"""`generation_kwargs`: what chooses tokens may be set; what ends or reads a completion is refused, by its name."""

from inspect import signature
from typing import Any

import pytest
from transformers import GenerationConfig
from trl import GRPOConfig

from conftest import TINY_RECIPE
from helpers.requirements import require_module
from mini_r1.program.problems import Problem
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.keys import keys_of
from mini_r1.recipe.read import read_recipe
from mini_r1.recipe.values import ALLOWED, INSTEAD, WHY, check_generation_kwargs, check_values


def check(engine: str, written: str, *more: str) -> list[Problem]:
    use_vllm = str(engine == "vLLM").lower()
    words = ["--config", str(TINY_RECIPE), "--use_vllm", use_vllm, "--generation_kwargs", written, *more]
    return check_values(*read_recipe(words))


def engine_names(engine: str) -> set[str]:
    """Everything that the installed engine takes by name."""
    if engine == "transformers":
        return {*GenerationConfig().to_dict()}
    require_module("vllm", "pip install -r requirements-dev.txt")
    from vllm import SamplingParams

    return {*signature(SamplingParams).parameters}


@pytest.mark.parametrize("engine", ALLOWED)
def test_what_the_engine_takes_is_either_known_to_be_harmless_or_refused(engine: str) -> None:
    """The trainer would hand each of these on unseen."""
    _, training, _ = read_recipe(["--config", str(TINY_RECIPE), "--use_vllm", str(engine == "vLLM")])
    takes = engine_names(engine)
    assert set(ALLOWED[engine]) <= takes
    for name in takes - set(ALLOWED[engine]):
        training.generation_kwargs = {name: 1}
        (problem,) = check_generation_kwargs(training)
        assert problem.cause, name


def test_every_name_in_the_tables_is_some_engines_and_every_key_a_recipes() -> None:
    takes = engine_names("vLLM") | engine_names("transformers")
    assert {*INSTEAD, *WHY} <= takes
    assert set(INSTEAD.values()) <= set(keys_of(ScriptArguments, GRPOConfig))


@pytest.mark.parametrize(
    ("engine", "written", "words"),
    [
        ("vLLM", "{max_tokens: 5}", "set max_completion_length of the recipe instead"),
        ("vLLM", "{n: 2}", "set num_generations of the recipe"),
        ("vLLM", "{temperature: 0}", "set temperature of the recipe"),
        ("vLLM", "{seed: 1}", "set seed of the recipe"),
        ("vLLM", "{ignore_eos: true}", "changes when a completion ends"),
        ("vLLM", '{stop: ["</answer>"]}', "changes when a completion ends"),
        ("vLLM", "{stop_token_ids: [3]}", "changes when a completion ends"),
        ("vLLM", "{min_tokens: 5}", "changes when a completion ends"),
        ("vLLM", "{include_stop_str_in_output: true}", "changes when a completion ends"),
        ("vLLM", "{skip_special_tokens: false}", "what the trainer reads"),
        ("vLLM", '{bad_words: ["<"]}', "may hold"),
        ("vLLM", "{presence_penality: 1}", "did you mean presence_penalty?"),
        ("vLLM", "{presence_penalty: 3}", "from -2 to 2"),
        ("vLLM", "{typical_p: 0.9}", "it belongs to transformers"),
        ("transformers", "{presence_penalty: 1}", "it belongs to vLLM"),
        ("transformers", "{max_new_tokens: 5}", "set max_completion_length"),
        ("transformers", "{do_sample: false}", "that are sampled"),
        ("transformers", "{eos_token_id: 3}", "set tokenizer_name_or_path"),
        ("transformers", "{disable_compile: true}", "leave disable_compile out"),
        ("transformers", "{typical_p: 2}", "greater than 0 and at most 1"),
    ],
)
def test_each_refusal_says_what_to_do(engine: str, written: str, words: str) -> None:
    (problem,) = check(engine, written)
    assert problem.name == "generation_kwargs"
    assert words in str(problem)


def test_all_are_told_and_what_is_harmless_is_taken() -> None:
    assert len(check("vLLM", "{n: 2, stop: x, presence_penalty: 0.5}")) == 2
    assert check("vLLM", "{presence_penalty: 0.5, frequency_penalty: -1}") == []
    assert check("transformers", "{typical_p: 0.9, renormalize_logits: true}") == []


def test_structured_outputs_are_said_once() -> None:
    outputs: dict[str, Any] = {"engine": "vLLM", "written": "{structured_outputs: {regex: a+}}"}
    assert check(**outputs) == []
    (problem,) = check(outputs["engine"], outputs["written"], "--vllm_structured_outputs_regex", "a+")
    assert "vllm_structured_outputs_regex is set, too" in problem.cause
