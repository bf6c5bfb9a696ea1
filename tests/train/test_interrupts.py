"""Signals in every phase of a run: while loading, in a step, in an evaluation, when the terminal is closed."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Train
from mini_r1.policy.checkpoints import missing
from mini_r1.recipe.contradictions import METRICS
from mini_r1.train import run as training_module
from mini_r1.train.interrupts import StopOnRequest, StopRequest
from mini_r1.train.trainer import R1Trainer

SIGNALS = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 130}


def send_soon(number: signal.Signals, seconds: float) -> None:
    """Signal this process while it is at work."""
    threading.Timer(seconds, lambda: os.kill(os.getpid(), number)).start()


def be_signalled(number: signal.Signals) -> None:
    """Something slow that a signal comes into."""
    send_soon(number, 0)
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_everything_loads_ends_the_run_at_once(
    number: signal.Signals, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(training_module, "build_trainer", lambda *_, **__: be_signalled(number))
    assert train(tmp_path) == 0
    assert capsys.readouterr().err.endswith("stopped before the first step\n")


def test_ctrl_c_while_everything_loads_is_left_to_the_program(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says "interrupted" (tests/program/test_failures.py)."""
    monkeypatch.setattr(training_module, "build_trainer", lambda *_, **__: be_signalled(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)


@pytest.mark.parametrize(("number", "in_the_middle_of_a_batch"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_an_evaluation_is_left_with_a_checkpoint_of_its_step(
    number: signal.Signals,
    in_the_middle_of_a_batch: bool,
    tmp_path: Path,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the batch on one process, after it on several; the same command then ends the run."""
    batches = {"begun": 0, "done": 0}
    predict = R1Trainer.prediction_step

    def watched(self: R1Trainer, *args: Any, **kwargs: Any) -> Any:
        batches["begun"] += 1
        if batches["begun"] == 1:
            send_soon(number, 0.05)
        result = predict(self, *args, **kwargs)
        batches["done"] += 1
        return result

    monkeypatch.setattr(R1Trainer, "prediction_step", watched)
    if not in_the_middle_of_a_batch:
        never = StopOnRequest(StopRequest()).token_by_token
        monkeypatch.setattr(StopOnRequest, "token_by_token", lambda self, *given, **more: never(*given, **more))
    more = ["--eval_on_start", "false", "--eval_puzzles", "20", "--per_device_eval_batch_size", "4"]
    assert train(tmp_path, *more, "--save_steps", "3") == SIGNALS[number]
    assert batches == {"begun": 1, "done": int(not in_the_middle_of_a_batch)}
    assert [folder.name for folder in tmp_path.glob("checkpoint-*") if missing(folder) is None] == ["checkpoint-2"]
    assert not (tmp_path / "model.safetensors").exists()
    samples = (tmp_path / "completion_samples" / "samples.jsonl").read_text(encoding="utf-8")
    assert ('"split": "test"' in samples) == (not in_the_middle_of_a_batch)
    assert train(tmp_path, *more, "--save_steps", "3") == 0
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("save_strategy", ["steps", "no"])
def test_an_evaluation_at_the_end_that_was_left_is_made_by_the_same_command(
    save_strategy: str, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no step leaves a checkpoint; the model is that of an unbroken run."""
    more = ["--eval_on_start", "false", "--eval_steps", "3", "--save_strategy", save_strategy, "--max_samples", "100"]
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    assert train(unbroken, *more) == 0
    with monkeypatch.context() as patch:
        signal_in_evaluation_of_step(4, patch)
        assert train(broken, *more) == 0
    assert not (broken / "model.safetensors").exists()
    assert missing(broken / "checkpoint-4") is None
    assert train(broken, *more) == 0
    for folder in (broken, unbroken):
        history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        assert [entry["step"] for entry in history if "eval_reward" in entry] == [3, 4]
    assert (broken / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


FOLLOWING = {
    "best": ["--load_best_model_at_end", "true", "--metric_for_best_model", METRICS["grpo"][0]],
    "best by one reward": ["--load_best_model_at_end", "true", "--metric_for_best_model", METRICS["grpo"][1]],
    "plateau": ["--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", "{mode: max}"],
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_what_follows_a_metric_bears_with_an_evaluation_that_was_left(
    name: str, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no metric then: nothing is the best, no learning rate falls, and the run can be resumed."""
    more = [*FOLLOWING[name], *([] if "best" in name else ["--metric_for_best_model", METRICS["grpo"][2]])]
    more += ["--eval_on_start", "false", "--max_samples", "100"]
    with monkeypatch.context() as patch:
        signal_in_evaluation_of_step(2, patch)
        assert train(tmp_path, *more) == 0
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_metric"] is None
    assert train(tmp_path, *more) == 0
    assert (tmp_path / "model.safetensors").exists()


def signal_in_evaluation_of_step(step: int, patch: pytest.MonkeyPatch) -> None:
    """Have a SIGTERM come in the first batch of an evaluation."""
    predict = R1Trainer.prediction_step

    def signalled(self: R1Trainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, *args, **kwargs)

    patch.setattr(R1Trainer, "prediction_step", signalled)


def test_a_closed_terminal_leaves_a_checkpoint(tmp_path: Path, small_arguments: list[str]) -> None:
    """Every write to it is an error from then on, also that of the progress bar."""
    controller, terminal = pty.openpty()
    more = ["--output_dir", str(tmp_path), "--max_steps", "10000", "--save_steps", "5000", "--eval_strategy", "no"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "run_r1_grpo.py"), *small_arguments, *more, "--eval_on_start", "false"],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
    )
    os.close(terminal)
    reader = threading.Thread(target=drain, args=(controller, tmp_path / "completion_samples" / "samples.jsonl"))
    reader.start()
    reader.join(150)
    assert process.wait(60) == 0
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert missing(checkpoint) is None


def drain(controller: int, until: Path) -> None:
    """Read what a terminal shows until a file is there, then hang up."""
    while not until.exists() and os.read(controller, 65536):
        pass
    os.close(controller)


def test_nohup_is_respected() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        StopRequest().install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
