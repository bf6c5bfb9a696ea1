"""Keys that contradict each other are refused before anything is loaded; keys that do nothing are said."""

from pathlib import Path

import pytest

from conftest import ROOT, TINY_RECIPE
from mini_r1.preflight.plan import Findings
from mini_r1.recipe.contradictions import DEPENDENTS, METRICS, find_contradictions, say_without_effect
from mini_r1.recipe.read import KEYS, read_recipe

BEST = "--load_best_model_at_end true"
PLATEAU = "--lr_scheduler_type reduce_lr_on_plateau"
# Words of a command line -> the keys that are refused.
REFUSED = {
    "--fp16 true --bf16 true": ["fp16"],
    "--fp16_full_eval true --bf16_full_eval true": ["fp16_full_eval"],
    "--fp16 true --bf16 false --dtype float16": ["dtype"],
    "--load_in_4bit true": ["load_in_4bit"],
    "--load_in_8bit true": ["load_in_8bit"],
    "--loss_type luspo": ["importance_sampling_level"],
    "--loss_type vespo --importance_sampling_level sequence": ["importance_sampling_level"],
    "--loss_type vespo --use_vllm true": ["vllm_importance_sampling_mode"],
    "--sync_ref_model true --beta 0": ["sync_ref_model"],
    "--sync_ref_model true --beta 0.1 --use_peft true": ["sync_ref_model"],
    "--delta 1.1": ["delta"],
    "--entropy_coef_min 0.5 --entropy_coef_max 0.1": ["entropy_coef_min"],
    "--skip_zero_advantage true --beta 0.01": ["skip_zero_advantage"],
    "--skip_zero_advantage true --entropy_coef 0.01": ["skip_zero_advantage"],
    "--skip_zero_advantage true --use_adaptive_entropy true": ["skip_zero_advantage"],
    "--skip_zero_advantage true --top_entropy_quantile 0.2": ["skip_zero_advantage"],
    "--skip_zero_advantage true --use_liger_kernel true": ["skip_zero_advantage"],
    "--share_prompts true --gradient_checkpointing true": ["share_prompts"],
    "--share_prompts true --use_liger_kernel true": ["share_prompts"],
    "--skip_old_logps true --use_liger_kernel true": ["skip_old_logps"],
    "--resample_uniform_groups 2 --scale_rewards batch": ["resample_uniform_groups"],
    "--resample_uniform_groups 2 --multi_objective_aggregation normalize_then_sum": ["resample_uniform_groups"],
    "--resample_uniform_groups 2 --shuffle_dataset false": ["resample_uniform_groups"],
    BEST: ["metric_for_best_model"],
    f"{BEST} --metric_for_best_model loss": ["metric_for_best_model"],
    f"{BEST} --metric_for_best_model rewards": ["metric_for_best_model"],
    f"{BEST} --metric_for_best_model reward --greater_is_better false": ["greater_is_better"],
    f"{BEST} --metric_for_best_model reward --eval_strategy no": ["load_best_model_at_end"],
    f"{PLATEAU} --eval_strategy no": ["lr_scheduler_type", "metric_for_best_model", "lr_scheduler_kwargs"],
    "--save_strategy best": ["metric_for_best_model"],
    f"{PLATEAU} --metric_for_best_model reward": ["lr_scheduler_kwargs"],
    f"{PLATEAU} --lr_scheduler_kwargs {{mode:\u00a0max}}": ["metric_for_best_model"],
}
TAKEN = [
    "--resample_uniform_groups 2 --skip_zero_advantage true --scale_rewards none",
    "--scale_rewards batch --multi_objective_aggregation normalize_then_sum --shuffle_dataset false",
    "--skip_zero_advantage true",
    "--share_prompts true --skip_zero_advantage true",
    "--skip_old_logps true --use_vllm true",
    "--loss_type luspo --importance_sampling_level sequence",
    "--loss_type vespo --use_vllm true --vllm_importance_sampling_mode token_mask",
    "--load_in_4bit true --use_peft true",
    "--sync_ref_model true --beta 0.1",
    "--delta 1.5",
    f"{BEST} --metric_for_best_model eval_reward",
    f"{PLATEAU} --metric_for_best_model reward --lr_scheduler_kwargs {{mode:\u00a0max}}",
]


def words_of(text: str) -> list[str]:
    """A command line, in which a hard space is part of a word."""
    plain = ["--skip_zero_advantage", "false"]  # which the recipe sets, and several of these contradict
    return ["--config", str(TINY_RECIPE), *plain, *(word.replace("\u00a0", " ") for word in text.split(" "))]


@pytest.mark.parametrize("text", REFUSED)
def test_a_contradiction_is_refused(text: str) -> None:
    found = find_contradictions(*read_recipe(words_of(text)))
    assert [problem.name for problem in found] == REFUSED[text]


@pytest.mark.parametrize("text", TAKEN)
def test_what_goes_together_is_taken(text: str) -> None:
    assert find_contradictions(*read_recipe(words_of(text))) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("--max_steps 2", "the run ends while it warms up, below its learning_rate: warmup_steps is 5, max_steps 2"),
        ("--max_steps 5", "the run ends while it warms up, below its learning_rate: warmup_steps is 5, max_steps 5"),
        ("--num_train_epochs 2", "num_train_epochs has no effect: max_steps is"),
        ("--lr_scheduler_type constant", "warmup_steps has no effect: lr_scheduler_type constant has no warm-up"),
        ("--lr_scheduler_type constant_with_warmup --lr_scheduler_kwargs {a:1}", "lr_scheduler_kwargs has no effect"),
        ("--eval_delay 5000", "there is no evaluation before the end: eval_delay is 5000"),
        ("--save_only_model true", "can't be resumed"),
        ("--lora_r 8 --lora_alpha 16", "lora_r, lora_alpha have no effect without use_peft: true"),
        ("--vllm_gpus 3", "vllm_gpus has no effect without use_vllm: true"),
        ("--ref_model_sync_steps 3", "ref_model_sync_steps has no effect without sync_ref_model: true"),
        ("--skip_old_logps true", "skip_old_logps has no effect without use_vllm: true"),
        (
            "--skip_old_logps true --use_vllm true --num_iterations 2",
            "skip_old_logps has no effect: a generation serves several updates, since",
        ),
        ("--hub_model_id me/it", "hub_model_id has no effect without push_to_hub: true"),
    ],
)
def test_what_does_nothing_is_said(text: str, line: str) -> None:
    lines = say_without_effect(*read_recipe(words_of(text)))
    assert any(line in said for said in lines), lines


def test_a_switch_that_the_recipe_turns_off_itself_is_no_surprise() -> None:
    assert say_without_effect(*read_recipe(words_of("--use_vllm false --vllm_gpus 3"))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "receipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_contradict_nothing_and_set_nothing_in_vain(path: Path) -> None:
    recipe = read_recipe(["--config", str(path)])
    assert find_contradictions(*recipe) == []
    assert say_without_effect(*recipe) == []


def test_the_table_names_keys_that_there_are() -> None:
    for rule in DEPENDENTS:
        assert rule.switch in KEYS
        for name in rule.keys:
            assert any(key.startswith(name) for key in KEYS), name
    assert "reward" in METRICS["grpo"]


def test_a_warning_is_said_at_each_start() -> None:
    report = Findings(warnings=["a has no effect"], summary="ok")
    assert report.verdict() == "warning: a has no effect\npreflight: ready: ok"
