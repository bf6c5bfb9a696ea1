"""Checkpoints: only complete ones are resumed, and only by the launch that wrote them."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from conftest import TINY_BASE
from mini_r1.policy.checkpoints import (
    MANIFEST,
    TORCH,
    ZERO,
    ZERO3,
    CheckpointError,
    choose_checkpoint,
    missing,
    read_checkpoint,
    write_manifest,
)
from mini_r1.train.resume import TakeNewSteps

FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


def make_checkpoint(output: Path, step: int, processes: int = 1, manifest: bool = True) -> Path:
    """A checkpoint with real weights and small real files of torch.save."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    shutil.copy(TINY_BASE / "model.safetensors", folder)
    ranks = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    for name in ["optimizer.pt", "scheduler.pt", *ranks]:
        torch.save({"state": torch.zeros(1000)}, folder / name)
    (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    if manifest:
        write_manifest(folder, step, TORCH, processes)
    return folder


def make_deepspeed(output: Path, step: int, stage: int, processes: int) -> Path:
    """The same with the files of DeepSpeed, named as it names them."""
    folder = make_checkpoint(output, step, processes, manifest=False)
    (folder / "optimizer.pt").unlink()
    shards = folder / f"global_step{step}"
    shards.mkdir()
    (folder / "latest").write_text(shards.name)
    for rank in range(processes):
        torch.save({}, shards / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        model = f"zero_pp_rank_{rank}_mp_rank_00" if stage == 3 else "mp_rank_00"
        torch.save({}, shards / f"{model}_model_states.pt")
    write_manifest(folder, step, ZERO3 if stage == 3 else ZERO, processes)
    return folder


@pytest.fixture
def training(tmp_path: Path) -> Iterator[TrainingArguments]:
    """A launch of one process on a CPU."""
    yield TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")


def test_the_newest_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path, training: TrainingArguments) -> None:
    """By number, not by name or time."""
    assert choose_checkpoint(training) is None
    for step in (10, 9):
        make_checkpoint(tmp_path, step)
    chosen = choose_checkpoint(training)
    assert chosen == read_checkpoint(tmp_path / "checkpoint-10")
    assert (chosen.step, chosen.engine, chosen.processes) == (10, TORCH, 1)


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_half_written_checkpoint_is_skipped_with_one_warning(
    name: str, cut: bool, tmp_path: Path, training: TrainingArguments, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of its files is absent or cut off."""
    make_checkpoint(tmp_path, 2)
    path = make_checkpoint(tmp_path, 4) / name
    content = path.read_bytes()
    path.unlink()
    if cut:
        path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        chosen = choose_checkpoint(training)
    assert chosen is not None
    assert chosen.step == 2
    (warning,) = caplog.messages
    assert str(path.parent) in warning and name in warning


def test_a_checkpoint_that_was_interrupted_or_that_another_program_wrote_is_not_resumed(
    tmp_path: Path, training: TrainingArguments, caplog: pytest.LogCaptureFixture
) -> None:
    """The manifest is the last file, and only ours: skipped with a line, or refused with one where it is named."""
    make_checkpoint(tmp_path, 2)
    folder = make_checkpoint(tmp_path, 4, manifest=False)
    assert choose_checkpoint(training) == read_checkpoint(tmp_path / "checkpoint-2")
    assert "checkpoint-4 is not complete (missing: complete.json, which Mini-R1 writes last" in caplog.text
    training.resume_from_checkpoint = str(folder)
    with pytest.raises(CheckpointError, match=f"or another program wrote.*model_name_or_path={folder} "):
        choose_checkpoint(training)


def test_a_checkpoint_without_an_optimizer_is_not_resumed(tmp_path: Path) -> None:
    """As save_only_model leaves it; the Trainer would begin with a new optimizer, and say nothing."""
    folder = make_checkpoint(tmp_path, 2, manifest=False)
    (folder / "optimizer.pt").unlink()
    write_manifest(folder, 2, TORCH, processes=1)
    assert "save_only_model" in str(missing(folder))


def test_a_named_checkpoint_that_is_not_whole_is_an_error(tmp_path: Path, training: TrainingArguments) -> None:
    """The user asked for this one."""
    make_checkpoint(tmp_path, 2)
    (make_checkpoint(tmp_path, 4) / "optimizer.pt").unlink()
    training.resume_from_checkpoint = str(tmp_path / "checkpoint-4")
    with pytest.raises(CheckpointError, match=r"checkpoint-4 is not complete \(missing: optimizer\.pt"):
        choose_checkpoint(training)


@pytest.mark.parametrize("cut", [True, False])
def test_the_manifest_covers_files_that_no_other_check_looks_at(cut: bool, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 3, manifest=False)
    config = folder / "config.json"
    config.write_text('{"model_type": "qwen2"}')
    write_manifest(folder, 3, TORCH, processes=1)
    assert missing(folder) is None
    config.write_text("{") if cut else config.unlink()
    assert "config.json" in (missing(folder) or "")


def test_a_cut_manifest_does_not_count(tmp_path: Path) -> None:
    """It is written in one piece, so a broken one says that something else went wrong."""
    folder = make_checkpoint(tmp_path, 2)
    (folder / MANIFEST).write_text('{"processes": 1')
    assert missing(folder) == f"a readable {MANIFEST}"


@pytest.mark.parametrize(("stage", "engine"), [(2, ZERO), (3, ZERO3)])
def test_each_part_of_each_process_of_deepspeed_counts(stage: int, engine: str, tmp_path: Path) -> None:
    """By the names that it gives them."""
    folder = make_deepspeed(tmp_path, 2, stage, processes=2)
    assert missing(folder) is None
    assert (read_checkpoint(folder).engine, read_checkpoint(folder).processes) == (engine, 2)
    for path in [*folder.glob("global_step2/*.pt"), folder / "latest", folder / "rng_state_1.pth"]:
        content = path.read_bytes()
        path.unlink()
        assert path.name in str(missing(folder))
        path.write_bytes(content)


@pytest.mark.parametrize(("stage", "processes"), [(0, 2), (2, 1), (3, 2)])
def test_another_engine_or_number_of_processes_is_refused(
    stage: int, processes: int, tmp_path: Path, training: TrainingArguments
) -> None:
    """With both named, and the way to go on."""
    folder = make_deepspeed(tmp_path, 2, stage, processes) if stage else make_checkpoint(tmp_path, 2, processes)
    with pytest.raises(CheckpointError, match=f"this launch is 1 process with PyTorch.*model_name_or_path={folder}"):
        choose_checkpoint(training)


def test_a_resumed_run_takes_every_interval_from_the_recipe(training: TrainingArguments) -> None:
    """Shares of the steps too; the checkpoint's state has those that it was written with."""
    training.save_steps, training.eval_steps, training.logging_steps = 5, 0.2, 3
    state = TrainerState(max_steps=100, save_steps=50, eval_steps=50, logging_steps=50)
    TakeNewSteps().on_train_begin(training, state, TrainerControl())
    assert (state.save_steps, state.eval_steps, state.logging_steps) == (5, 20, 3)
