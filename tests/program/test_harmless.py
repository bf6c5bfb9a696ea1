"""What only shows or describes a run may break in any way: the run goes on, and says so once."""

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from conftest import Train
from mini_r1.hub.push import HubPush
from mini_r1.program.harmless import harmless, make_harmless
from mini_r1.results import card as model_card
from mini_r1.train import samples
from mini_r1.train.progress import SolveRateProgress

SHORT = ["--max_steps", "2", "--save_steps", "1", "--eval_strategy", "no", "--eval_on_start", "false"]


def test_a_failure_is_one_warning_and_no_result(caplog: pytest.LogCaptureFixture) -> None:
    @harmless
    def draw(what: str) -> str:
        if what == "bad":
            raise OSError(28, "No space left on device")
        return what

    assert [draw("bad"), draw("good"), draw("bad")] == [None, "good", None]
    assert len(caplog.records) == 1
    assert "draw failed, the run continues without: " in caplog.text and "is full" in caplog.text


def test_an_interrupt_is_not_held_up() -> None:
    @harmless
    def draw() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw()


def test_callbacks_that_decide_something_still_can_end_a_run() -> None:
    class Decides(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("stop")

    callback = Decides()
    make_harmless([callback])
    with pytest.raises(ValueError, match="stop"):
        callback.on_step_end()


def test_everything_that_shows_breaks_and_the_run_ends_with_its_model(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Card, TensorBoard, bar and samples all fail at every call, as on a disk that is read-only for them alone."""

    def broken(name: str) -> Any:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise OSError(30, "Read-only file system", "/somewhere")

        fail.__qualname__ = name
        return fail

    monkeypatch.setattr(model_card, "render_card", broken("render_card"))
    monkeypatch.setattr(samples.SampleRecorder, "_write", broken("_write"))
    for callback in (TensorBoardCallback, SolveRateProgress):
        for event in ("on_train_begin", "on_step_end", "on_log", "on_train_end"):
            monkeypatch.setattr(callback, event, broken(f"{callback.__name__}.{event}"))
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path, *SHORT) == 0
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "checkpoint-2" / "complete.json").exists()
    warnings = [r.getMessage() for r in caplog.records if "the run continues without" in r.getMessage()]
    assert len(warnings) == len(set(warnings))
    for part in ("write_card", "on_save", "_record", "TensorBoardCallback.on_log", "SolveRateProgress.on_log"):
        assert any(part in warning for warning in warnings), warnings


def test_pushes_are_among_what_only_shows() -> None:
    class Push(HubPush):
        def __init__(self) -> None:
            pass

        def on_save(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no network")

    push = Push()
    make_harmless([push], more=(HubPush,))
    assert push.on_save() is None  # type: ignore[func-returns-value]


def test_a_record_that_a_killed_process_left_unfinished_is_no_reason_not_to_resume(tmp_path: Path) -> None:
    recorder = samples.SampleRecorder(tmp_path, per_step=1)
    good = '{"step": 0, "split": "train", "row": {}, "shown": "", "completion": "", "answer": null, "reason": "x"'
    good += ', "rewards": {}, "attempts": 0}'
    (tmp_path / samples.RECORDS).write_text(f'{good}\n{{"step": 1, "spl', encoding="utf-8")
    recorder.rewind(1)
    assert (tmp_path / samples.RECORDS).read_text(encoding="utf-8").count("\n") == 1
