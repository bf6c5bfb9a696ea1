"""The memory model: its parts against published numbers, and how they answer to ZeRO, LoRA and 4 bits."""

from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from conftest import ROOT, TINY_BASE, TINY_RECIPE
from mini_r1.machine.launch import Launch
from mini_r1.policy.shape import ModelShape, load_config, measure_shape, published_config
from mini_r1.preflight.memory import Item, Step, peak, server_items, step_of, training_items
from mini_r1.recipe.read import read_recipe

GB = 10**9
SIZES = {"0.5B": 494_032_768, "1.5B": 1_543_714_304, "3B": 3_085_938_688, "7B": 7_615_616_512}


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    """Qwen2.5-3B."""
    return measure_shape(published_config("Qwen/Qwen2.5-3B-Instruct"))


def sizes(items: list[Item]) -> dict[str, float]:
    return {item.name: item.size for item in items}


def zero(stage: int, gpus: int = 4) -> Launch:
    return Launch(processes=gpus, local_processes=gpus, engine="deepspeed", zero_stage=stage)


STEP = Step(micro_batch=8, prompt=256, completion=1024)


@pytest.mark.parametrize(("size", "parameters"), SIZES.items())
def test_parameters_are_those_of_the_published_weights(size: str, parameters: int) -> None:
    """As the model cards give them: 0.49, 1.54, 3.09 and 7.61 billion."""
    assert measure_shape(published_config(f"Qwen/Qwen2.5-{size}-Instruct")).parameters == parameters


def test_parameters_of_the_base_models_are_the_published_ones() -> None:
    """As the model cards give them: 3.09 billion, and 1.7 billion of which 1.4 are not in the embedding."""
    assert measure_shape(published_config("Qwen/Qwen2.5-3B")).parameters == SIZES["3B"]
    shape = measure_shape(published_config("Qwen/Qwen3-1.7B-Base"))
    assert round(shape.parameters / 1e9, 2) == 1.72
    assert round((shape.parameters - shape.vocabulary * shape.hidden) / 1e9, 1) == 1.4


def test_a_local_models_shape_is_read_from_its_config() -> None:
    config, missing = load_config(ModelConfig(model_name_or_path=str(TINY_BASE)))
    assert missing is None
    assert measure_shape(config).parameters == AutoModelForCausalLM.from_pretrained(TINY_BASE).num_parameters()
    assert measure_shape(config).vocabulary == 312


@pytest.mark.parametrize(("stage", "bytes_per_parameter"), [(0, 16), (1, 4 + 12 / 4), (2, 2 + 14 / 4), (3, 16 / 4)])
def test_zero_divides_as_in_the_paper(stage: int, bytes_per_parameter: float, shape: ModelShape) -> None:
    """Rajbhandari et al. 2020, figure 1: 16 bytes per parameter, less and less of them on each of 4 GPUs."""
    found = sizes(training_items(shape, STEP, zero(stage), 0))
    total = found["weights"] + found["gradients"] + found["optimizer"]
    assert total == pytest.approx(bytes_per_parameter * shape.parameters)


def test_offload_takes_the_optimizer_off_the_gpu(shape: ModelShape) -> None:
    assert "optimizer" not in sizes(training_items(shape, STEP, replace(zero(3), offload_optimizer=True), 0))


def test_plain_training_holds_float32_weights_and_no_second_master(shape: ModelShape) -> None:
    found = sizes(training_items(shape, STEP, Launch(), 0))
    assert found["weights"] + found["gradients"] + found["optimizer"] == 16 * shape.parameters


def test_a_reference_model_costs_its_weights(shape: ModelShape) -> None:
    found = sizes(training_items(shape, replace(STEP, reference=True), zero(3), 0))
    assert found["reference model"] == found["weights"]


def test_four_bits_and_lora(shape: ModelShape) -> None:
    """Q-LoRA: half a byte and its scales per weight; gradients and moments of the adapter only."""
    recipe = str(ROOT / "receipes/grpo-qwen-2.5-3b-qlora-l4-countdown.yaml")
    _, _, model = read_recipe(["--config", recipe])
    adapted = measure_shape(published_config("Qwen/Qwen2.5-3B-Instruct"), model)
    assert adapted.adapter == 29_933_568  # as PEFT counts them for rank 16 on all linear layers
    step = replace(STEP, weight_bytes=2, lora=True, linear_bytes=0.5)
    found = sizes(training_items(adapted, step, Launch(), 0))
    assert found["weights"] < 2.3 * GB < 2 * shape.parameters / 2
    assert found["optimizer"] == 8 * adapted.adapter
    weights = training_items(adapted, replace(step, linear_bytes=None), Launch(), 0)[0]
    assert weights.size == 2 * shape.parameters + 4 * adapted.adapter
    assert weights.how == "2 B per frozen parameter, 4 B of the adapter's"


def test_checkpointing_saves_most_of_the_activations(shape: ModelShape) -> None:
    with_, without = (
        sizes(training_items(shape, replace(STEP, checkpointing=on), zero(3), 0))["activations"] for on in (True, False)
    )
    assert with_ < without / 8


def test_activations_grow_with_the_batch_and_the_length(shape: ModelShape) -> None:
    def size(step: Step) -> float:
        return sizes(training_items(shape, step, zero(3), 0))["activations"]

    assert size(replace(STEP, micro_batch=16)) == pytest.approx(2 * size(STEP))
    assert size(replace(STEP, completion=2 * 1280 - 256)) == pytest.approx(2 * size(STEP))


def test_a_shared_prompt_is_counted_once(shape: ModelShape) -> None:
    def found(step: Step) -> dict[str, float]:
        return sizes(training_items(shape, replace(step, triton=False), zero(3), 0))

    shared = replace(STEP, shared_prompts=1)
    saved = STEP.prompt * (STEP.micro_batch - 1)
    share = 1 - saved / (STEP.micro_batch * STEP.tokens)
    assert found(shared)["activations"] == pytest.approx(share * found(STEP)["activations"])
    assert found(shared)["logits"] < found(STEP)["logits"]  # the head sees no prompts


@pytest.mark.parametrize(
    ("completions", "group", "updates", "prompts"),
    [(8, 8, 1, 1), (4, 8, 1, 1), (16, 8, 1, 2), (12, 8, 1, 3), (8, 8, 2, None), (3, 8, 1, 2)],
)
def test_a_micro_batch_has_the_prompts_of_its_groups(
    completions: int, group: int, updates: int, prompts: int | None
) -> None:
    values = {"per_device_train_batch_size": completions, "num_generations": group, "gradient_accumulation_steps": 8}
    flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    several = ["--steps_per_generation", str(8 * updates), "--share_prompts", "true"]
    assert step_of(*read_recipe(["--config", str(TINY_RECIPE), *flags, *several])).shared_prompts == prompts


def test_a_sleeping_vllm_counts_only_while_it_generates(shape: ModelShape) -> None:
    awake = replace(STEP, vllm_share=0.3)
    asleep = replace(awake, vllm_sleeps=True)
    awake_peak, asleep_peak = (peak(training_items(shape, step, Launch(), 80 * GB)) for step in (awake, asleep))
    assert asleep_peak < awake_peak


def test_the_peak_counts_the_largest_phase_once() -> None:
    items = [Item("a", 1, ""), Item("b", 5, "", "generation"), Item("c", 3, "", "optimizer step"), Item("d", 1, "")]
    assert peak(items) == 7


def test_the_servers_cache_is_what_the_weights_leave(shape: ModelShape) -> None:
    found = sizes(server_items(shape, 1, 80 * GB, 0.9, STEP))
    assert sum(found.values()) == pytest.approx(72 * GB)
    # 36 layers x 2 heads of 128 x keys and values x 2 bytes
    assert shape.kv_elements_per_token * 2 == 36_864
