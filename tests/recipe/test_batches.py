"""The arithmetic of a GRPO step, and the rules of TRL that it is held to."""

import pytest

from conftest import ROOT, TINY_RECIPE
from mini_r1.program.problems import Problem
from mini_r1.recipe.batches import BatchPlan, check_own_groups, plan_batches
from mini_r1.recipe.read import parse_recipe, read_recipe
from mini_r1.recipe.text import RecipeError


def plan(processes: int, **more: object) -> tuple[BatchPlan, list[Problem]]:
    flags = [text for key, value in more.items() for text in (f"--{key}", str(value))]
    _, training, _ = read_recipe(["--config", str(TINY_RECIPE), *flags])
    return plan_batches(training, processes)


def test_the_originals_step_is_24_prompts_and_192_completions() -> None:
    _, training, _ = read_recipe(["--config", str(ROOT / "receipes/grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml")])
    batches, problems = plan_batches(training, processes=3)
    assert problems == []
    assert batches.prompts_per_step == 24
    assert (batches.completions_per_step, batches.generation_batch) == (192, 192)
    assert batches.groups_per_rank == 8
    assert batches.generations_per_step == 1


def test_the_nearest_valid_values_are_offered_and_are_valid() -> None:
    """10 completions per rank x 3 don't divide by 8."""
    wrong = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2, "num_generations": 8}
    _, (problem,) = plan(3, **wrong)
    assert problem.name == "num_generations"
    assert "num_generations 6 or 10" in problem.fix
    assert "per_device_train_batch_size 4 or 8" in problem.fix
    assert "gradient_accumulation_steps 8" in problem.fix
    for better in ({"num_generations": 6}, {"per_device_train_batch_size": 4}, {"gradient_accumulation_steps": 8}):
        assert plan(3, **{**wrong, **better, "eval_strategy": "no", "eval_on_start": False})[1] == []


@pytest.mark.parametrize(
    "more",
    [
        {"per_device_train_batch_size": 12, "num_generations": 8},
        {"generation_batch_size": 100},
        {"generation_batch_size": 128, "steps_per_generation": 1},
        {"per_device_eval_batch_size": 6, "num_generations_eval": 4},
    ],
)
def test_what_trl_refuses_is_found_before_it(more: dict[str, object]) -> None:
    """Each rule is TRL's own: its GRPOConfig raises on the same recipe."""
    assert plan(1, **more)[1]
    flags = [text for key, value in more.items() for text in (f"--{key}", str(value))]
    with pytest.raises(RecipeError):
        parse_recipe(["--config", str(TINY_RECIPE), *flags])


def test_what_trl_takes_is_no_problem() -> None:
    for more in ({}, {"generation_batch_size": 256}, {"steps_per_generation": 2}):
        flags = [text for key, value in more.items() for text in (f"--{key}", str(value))]
        parse_recipe(["--config", str(TINY_RECIPE), *flags])
        assert plan(1, **more)[1] == []


def test_two_steps_per_generation() -> None:
    batches, _ = plan(2, steps_per_generation=2)
    assert batches.generation_batch == 512
    assert batches.generations_per_step == 0.5


def test_replacing_groups_takes_processes_with_whole_groups() -> None:
    """2 x 4 completions a process are half a group of 16, of which both together generate one."""
    split, problems = plan(2, per_device_train_batch_size=4, steps_per_generation=2, num_generations=16)
    assert problems == [] and check_own_groups(split, tries=0) is None
    said = str(check_own_groups(split, tries=3))
    assert "resample_uniform_groups is 3: a process generates 8 = 4 per device x 2 steps per generation" in said
    assert "per_device_train_batch_size 8; or resample_uniform_groups 0" in said
    better, _ = plan(2, per_device_train_batch_size=8, steps_per_generation=2, num_generations=16)
    assert check_own_groups(better, tries=3) is None


def test_a_bad_batch_is_told_with_its_arithmetic() -> None:
    said = str(plan(1, num_generations=7)[1][0])
    assert "num_generations is 7: the generation batch is 128 = 1 ranks x 128 per device x 1" in said
    assert "num_generations 4 or 8" in said
