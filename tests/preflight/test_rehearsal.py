"""What TRL's GRPOConfig refuses is found without the recipe's GPUs, and nothing is left behind."""

import os

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from conftest import ROOT, TINY_RECIPE
from mini_r1.preflight.rehearsal import rehearse
from mini_r1.recipe.read import parse_recipe, read_recipe
from mini_r1.recipe.text import RecipeError

BEST = ("--load_best_model_at_end", "true", "--metric_for_best_model", "reward")
# What no rule of ours covers: each raises in TRL's or transformers' own words.
REFUSED = {
    "auto_find_batch_size": ["--auto_find_batch_size", "true"],
    "log_completions_hub_repo": ["--log_completions_hub_repo", "me/x", "--log_completions", "false"],
    "load_best_model_at_end": [*BEST, "--save_strategy", "epoch"],
    "load_best_model_at_end ": [*BEST, "--save_steps", "7"],
    "dataloader_prefetch_factor": ["--dataloader_prefetch_factor", "2"],
    "vllm_importance_sampling_clip_min": ["--vllm_importance_sampling_clip_min", "9"],
    "accelerator_config": ["--accelerator_config", "{nonsense: 1}"],
    "generation_batch_size": ["--generation_batch_size", "100"],
    "debug": ["--debug", "nosuch"],
    "fsdp_config": ["--fsdp", "true", "--fsdp_config", "nofile.json"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_trl_refuses_the_rehearsal_refuses(name: str) -> None:
    """The class is the real one: whatever it raises becomes one line."""
    words = ["--config", str(TINY_RECIPE), *REFUSED[name]]
    with pytest.raises(RecipeError, match="can't be used"):
        parse_recipe(words)
    problem = rehearse(read_recipe(words)[1], processes=1)
    assert problem is not None
    assert name.strip() in (problem.name, *problem.fix.split()) or name == "accelerator_config"
    assert problem.cause
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    "words",
    [
        ["--lr_scheduler_type", "cosine_with_min_lr"],
        ["--lr_scheduler_type", "warmup_stable_decay"],
        ["--lr_scheduler_kwargs", "{nonsense: 1}"],
    ],
)
def test_the_schedule_is_built(words: list[str]) -> None:
    """transformers builds it with the first step, minutes later."""
    assert rehearse(read_recipe(["--config", str(TINY_RECIPE), *words])[1], 1) is not None
    kwargs = ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", "{min_lr: 1.0e-8}"]
    assert rehearse(read_recipe(["--config", str(TINY_RECIPE), *kwargs])[1], 1) is None


@pytest.mark.parametrize("path", sorted((ROOT / "receipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_for_gpus_pass_without_one(path: object) -> None:
    processes = 7 if "7b-8-gpus" in str(path) else 3 if "3b-deepseek" in str(path) or "modern" in str(path) else 1
    script, training, _ = read_recipe(["--config", str(path)])
    assert rehearse(training, processes, script.method) is None


def test_the_number_of_processes_is_the_launchs() -> None:
    """128 completions x 3 ranks are no multiple of 256."""
    words = ["--config", str(TINY_RECIPE), "--num_generations", "256", "--eval_strategy", "no"]
    training = read_recipe(words)[1]
    assert rehearse(training, 2) is None
    assert "must be divisible" in str(rehearse(training, 3))


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As rank 1 of 3 under DeepSpeed: no process group is joined, no state kept, no variable or value changed."""
    for key, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "x", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(key, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    training = read_recipe(["--config", str(TINY_RECIPE), "--fsdp", "true", "--fsdp_config", "{fsdp_version: 2}"])[1]
    before, values = dict(os.environ), repr(vars(training))
    assert rehearse(training, 3) is None
    assert dict(os.environ) == before
    assert repr(vars(training)) == values
    assert PartialState._shared_state == {}
    assert not torch.distributed.is_initialized()
    assert not torch.cuda.is_initialized()
