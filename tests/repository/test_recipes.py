"""Every recipe and accelerate configuration in the repo: accepted by the real parsers, and as its header says."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from trl import GRPOConfig, ModelConfig

from conftest import ROOT
from mini_r1.machine.launch import Launch, read_launch
from mini_r1.policy.shape import measure_shape, published_config
from mini_r1.preflight.memory import peak, step_of, training_items
from mini_r1.recipe.batches import plan_batches
from mini_r1.recipe.read import parse_recipe, read_recipe
from mini_r1.runs.holdout import DataSettings

RECIPES = sorted((ROOT / "receipes").glob("*.yaml"))
CONFIGS = sorted((ROOT / "configs" / "accelerate_configs").glob("*.yaml"))
ON_A_CPU = ["--use_cpu", "true", "--bf16", "false", "--tf32", "false"]  # a GPU's number formats raise without one
ORIGINAL = ROOT / "receipes" / "grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml"
# processes and GiB of the header's hardware
HARDWARE = {
    "grpo-qwen-2.5-3b-deepseek-r1-countdown": (3, 80),
    "grpo-qwen-2.5-3b-modern-countdown": (3, 80),
    "grpo-qwen-2.5-3b-base-r1-zero-countdown": (3, 80),
    "grpo-qwen-3-1.7b-base-lora-24gb-countdown": (1, 22.5),
    "grpo-qwen-2.5-1.5b-one-gpu-countdown": (1, 80),
    "grpo-qwen-2.5-7b-8-gpus-countdown": (7, 80),
    "grpo-qwen-2.5-3b-qlora-l4-countdown": (1, 22.5),
    "grpo-qwen-2.5-1.5b-reasoning-gym": (1, 80),
    "grpo-qwen-2.5-1.5b-gsm8k": (1, 80),
    "sft-qwen-2.5-0.5b-countdown": (1, 22.5),
    "grpo-qwen-2.5-0.5b-cold-start-countdown": (1, 22.5),
}
COLD_STARTED = {"runs/qwen-2.5-0.5b-sft": "Qwen/Qwen2.5-0.5B-Instruct"}  # what a cold start makes, and of what
GIB = 2**30


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_trl_takes_every_recipe(path: Path) -> None:
    """With its real parser, GRPOConfig and all."""
    script, training, model = parse_recipe(["--config", str(path), *ON_A_CPU])
    assert model.model_name_or_path
    assert training.max_steps > 0
    assert script.max_prompt_length > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_without_its_gpus(path: Path) -> None:
    """The values are those that TRL would parse."""
    _, read, _ = read_recipe(["--config", str(path)])
    _, parsed, _ = parse_recipe(["--config", str(path), *ON_A_CPU])
    names = ("learning_rate", "beta", "num_generations", "max_steps", "temperature", "loss_type", "warmup_steps")
    assert [getattr(read, name) for name in names] == [getattr(parsed, name) for name in names]


@pytest.mark.parametrize("name", HARDWARE)
def test_batches_and_memory_fit_the_hardware_of_the_header(name: str) -> None:
    processes, memory = HARDWARE[name]
    script, training, model = read_recipe(["--config", str(ROOT / "receipes" / f"{name}.yaml")])
    assert plan_batches(training, processes)[1] == []
    launch = Launch(processes, processes, engine="deepspeed", zero_stage=3) if processes > 1 else Launch()
    base = str(model.model_name_or_path)
    shape = measure_shape(published_config(COLD_STARTED.get(base, base)), model)
    needed = peak(training_items(shape, step_of(script, training, model), launch, int(memory * GIB))) / GIB
    assert needed < 0.95 * memory
    header = (ROOT / "receipes" / f"{name}.yaml").read_text()
    assert f"about {needed:.0f} GiB" in header
    for word in ("Hardware:", "Memory:", "Disk:", "Time:"):
        assert word in header


def test_every_recipe_for_gpus_has_its_hardware_above() -> None:
    for_gpus = {path.stem for path in RECIPES if not read_recipe(["--config", str(path)])[1].use_cpu}
    assert for_gpus == set(HARDWARE)


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem.startswith("sft-")], ids=lambda path: path.stem)
def test_after_a_cold_start_comes_a_recipe_that_holds_out_the_same_problems(path: Path) -> None:
    sft, first, _ = read_recipe(["--config", str(path)])
    texts = {other: other.read_text(encoding="utf-8") for other in RECIPES}
    (after,) = [other for other, text in texts.items() if f"model_name_or_path: {first.output_dir}\n" in text]
    grpo, then, _ = read_recipe(["--config", str(after)])
    assert (sft.method, grpo.method) == ("sft", "grpo")
    assert DataSettings.of(sft) == DataSettings.of(grpo)
    assert (first.max_completion_length, sft.max_prompt_length) == (then.max_completion_length, grpo.max_prompt_length)
    assert path.name in texts[after] and after.name in texts[path]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_base_model_is_prompted_with_plain_text_and_taught_to_end(path: Path) -> None:
    """Masked as truncated, the completions that go on after their answer would teach nothing."""
    script, training, model = read_recipe(["--config", str(path)])
    name = str(model.model_name_or_path)
    if "Qwen" in name and not name.endswith("-Instruct"):
        assert (script.prompt_style, training.mask_truncated_completions) == ("base", False)
    else:
        assert script.prompt_style == "chat"


def test_the_originals_hyperparameters() -> None:
    """As published: https://www.philschmid.de/mini-deepseek-r1."""
    script, training, model = read_recipe(["--config", str(ORIGINAL)])
    assert model.model_name_or_path == "Qwen/Qwen2.5-3B-Instruct"
    assert (training.learning_rate, training.lr_scheduler_type, training.warmup_steps) == (5e-7, "cosine", 0.03)
    assert (training.beta, training.num_generations, training.max_steps) == (0.001, 8, 450)
    assert (script.max_prompt_length, training.max_completion_length) == (256, 1024)
    assert (training.save_steps, training.seed, training.report_to) == (25, 42, ["tensorboard"])
    assert training.use_vllm
    assert training.vllm_mode == "server"


# --- the original against TRL's defaults, then and now ---------------------------------------------------------------

THEN = yaml.safe_load((ROOT / "tests" / "repository" / "trl_0_14.yaml").read_text())


def defaults_of_today() -> dict[str, Any]:
    """The default of each key of a recipe that is TRL's or transformers'."""
    made = {}
    for field in [*fields(GRPOConfig), *fields(ModelConfig)]:
        made[field.name] = field.default_factory() if field.default_factory is not MISSING else field.default
    return made


def test_every_default_that_differs_from_that_of_trl_0_14_is_decided() -> None:
    """A new pin of TRL or transformers that changes a default, or adds a key, fails here until somebody has looked."""
    missing = object()
    today = defaults_of_today()
    differing = {key for key, value in today.items() if THEN["defaults"].get(key, missing) != value}
    decided = [*THEN["written_out"], *THEN["own_value"], *THEN["same_result"]]
    assert sorted(decided) == sorted(differing)
    assert all(THEN["same_result"].values())


def test_the_original_writes_out_what_has_changed() -> None:
    written = yaml.safe_load(ORIGINAL.read_text())
    for key, value in THEN["written_out"].items():
        assert (key, written.get(key)) == (key, value)
    assert set(THEN["own_value"]) <= written.keys()


def test_what_the_table_calls_off_is_off_in_the_original() -> None:
    """Most reasons in the table say "off, as then": the recipe sets none of those keys, nor what they hang on."""
    written = yaml.safe_load(ORIGINAL.read_text())
    assert not written.keys() & THEN["same_result"].keys()
    _, training, _ = read_recipe(["--config", str(ORIGINAL)])
    assert training.num_iterations == 1
    assert training.steps_per_generation in (None, training.gradient_accumulation_steps)


# --- every recipe ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_needs_an_account(path: Path) -> None:
    _, training, _ = read_recipe(["--config", str(path)])
    assert not training.push_to_hub
    assert training.report_to in ("tensorboard", ["tensorboard"], "none")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_with_vllm_says_how_its_samples_are_weighted(path: Path) -> None:
    """TRL's default drops completions that are merely long; a recipe has to choose, and to say why."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not written.get("use_vllm"):
        return
    if written.get("vllm_importance_sampling_correction", True):
        assert written["vllm_importance_sampling_mode"] == "token_truncate"
        assert written["vllm_importance_sampling_clip_max"] == 2.0
        assert "modern recipe" in path.read_text(encoding="utf-8") or "trl#4772" in path.read_text(encoding="utf-8")
    else:
        assert path == ORIGINAL


# --- configurations of accelerate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_takes_every_configuration(path: Path) -> None:
    """With its own loader, which refuses unknown keys."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"


@pytest.mark.parametrize(
    ("environment", "engine", "stage"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "deepspeed", 3),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "deepspeed", 2),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "true"}, "fsdp", 3),
        ({}, "ddp", 0),
    ],
)
def test_the_launch_is_read_from_the_environment(environment: dict[str, str], engine: str, stage: int) -> None:
    launch = read_launch({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "4", "LOCAL_RANK": "1", **environment})
    assert (launch.engine, launch.zero_stage) == (engine, stage)
    assert (launch.machines, launch.machine_rank, launch.local_processes) == (2, 1, 3)


def test_a_deepspeed_file_of_the_recipe_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}')
    launch = read_launch({"WORLD_SIZE": "2"}, str(file))
    assert (launch.engine, launch.zero_stage, launch.offload_optimizer) == ("deepspeed", 3, True)
