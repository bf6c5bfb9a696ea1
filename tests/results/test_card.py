"""The model card: what it says, and that it follows the files of the run."""

import json
import os
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from mini_r1.results.card import render_card, update_card, write_card

RUN = {
    "command": "python scripts/run_r1_grpo.py --config a.yaml --hub_token hf_abcdefghijklmnop",
    "model": "Qwen/Qwen2.5-3B-Instruct",
    "seed": 42,
    "steps": 450,
    "seconds": 5400.0,
    "hardware": "4 x NVIDIA H100",
    "processes": 3,
    "versions": {"torch": "2.13.0", "trl": "1.16.0"},
    "data": {"dataset": "Jiayi-Pan/Countdown-Tasks-3to4", "split": "train", "max_samples": 50000, "test_size": 0.1},
    "recipe": {"learning_rate": 5e-7, "model_name_or_path": "Qwen/Qwen2.5-3B-Instruct", "num_generations": 8},
}
LOG = [{"step": step, "eval_solved": share} for step, share in ((0, 0.1), (450, 0.5))]


def evaluation(value: float) -> str:
    """An evaluation.json of one model."""
    metrics = {"pass@1": {"value": value, "low": value - 0.1, "high": value + 0.1}}
    return json.dumps([{"model": "run", "dataset": "d", "puzzles": 512, "metrics": metrics}])


def test_says_base_data_recipe_versions_and_command_without_the_token() -> None:
    text = render_card("aha", RUN, LOG, [])
    metadata = ModelCard(text).data.to_dict()
    assert metadata["base_model"] == RUN["model"] and metadata["datasets"] == ["Jiayi-Pan/Countdown-Tasks-3to4"]
    assert "license" not in metadata and "grpo" in metadata["tags"]
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == RUN["recipe"]
    for part in ("450 steps, seed 42", "torch 2.13.0", "--hub_token [REDACTED]", "90.0 minutes", "step 450: 50.0 %"):
        assert part in text
    assert "hf_abcdefgh" not in text


def test_a_local_base_and_generated_puzzles_are_not_named_as_if_on_the_hub(tmp_path: Path) -> None:
    """The Hub refuses a card whose base is no repository."""
    run = RUN | {"model": str(tmp_path), "data": RUN["data"] | {"dataset": "generated:tiny"}}  # type: ignore[operator]
    metadata = ModelCard(render_card("aha", run, [], [])).data.to_dict()
    assert not {"base_model", "datasets"} & set(metadata)


def test_an_evaluation_made_later_gets_into_the_card_and_leaves_with_its_model(tmp_path: Path) -> None:
    write_card(tmp_path, RUN, LOG)
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": LOG}))
    (tmp_path / "evaluation.json").write_text(evaluation(0.6))
    assert update_card(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "| metric | run |\n| --- | --- |\n| pass@1 | 0.600 [0.500, 0.700] |\n" in card
    checkpoint = tmp_path / "checkpoint-451"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    later = (tmp_path / "evaluation.json").stat().st_mtime + 10
    os.utime(checkpoint / "trainer_state.json", (later, later))
    write_card(tmp_path, RUN, LOG)
    assert "0.600" not in (tmp_path / "README.md").read_text()


def test_a_broken_evaluation_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{")
    write_card(tmp_path, RUN, LOG)
    assert "step 450: 50.0 %" in (tmp_path / "README.md").read_text()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert not update_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
