"""Pushing to the Hub: a real huggingface_hub client against a server on this machine."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import HubStrategy

from conftest import ROOT, Train
from helpers.hub_server import FakeHub
from helpers.processes import wait_until
from mini_r1.hub import push as hub_module
from mini_r1.hub.push import HubPush
from mini_r1.program.redact import redact, remember

TOKEN = "hf_ThisIsTheSecretOfTheTest"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub, and this process logged in to it."""
    with FakeHub(TOKEN) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-stored-token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_module, "LAST_WAITS", (0.0, 0.1))
        monkeypatch.setattr(hub_module, "FINAL_LIMIT", 20.0)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output folder of a run with two checkpoints."""
    folder = tmp_path / "my-run"
    for step in (1, 2):
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        for name in ("model.safetensors", "config.json", "optimizer.pt", "rng_state.pth"):
            (checkpoint / name).write_text(f"{name} {step}")
    (folder / "README.md").write_text("---\ntags: [a]\n---\ncard")
    return folder


def pusher(output: Path, strategy: HubStrategy = HubStrategy.EVERY_SAVE, **more: Any) -> HubPush:
    """A callback that pushes to tester/my-run."""
    return HubPush(TrainingArguments(output_dir=str(output), hub_strategy=strategy, **more))


def save(push: HubPush, step: int) -> None:
    """Tell the callback of a save."""
    push.on_save(TrainingArguments(output_dir=str(push.output)), TrainerState(global_step=step), TrainerControl())


def done(push: HubPush) -> bool:
    """Whether no push is under way."""
    return wait_until(lambda: not push.is_busy)


def test_a_run_pushes_each_save_privately_and_keeps_its_token_to_itself(
    hub: FakeHub, tmp_path: Path, train: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real trainer, with the token in the arguments, where transformers would pickle it."""
    folder = tmp_path / "aha"
    more = ["--push_to_hub", "true", "--hub_strategy", "every_save", "--hub_always_push", "true"]
    assert train(folder, *more, "--hub_token", TOKEN, "--hub_model_id", "tester/aha", "--eval_strategy", "no") == 0
    assert hub.private == {"tester/aha": True}
    messages = [message for message, _ in hub.commits]
    assert messages[0] == "Training in progress, step 2" and messages[-1] == "End of training"
    files = hub.files()
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert {"README.md", "run.json", "config.json", "tokenizer.json"} <= set(files)
    assert not [path for path in files if "optimizer" in path or "checkpoint" in path]
    assert b"hub_model_id: tester/aha" in files["README.md"]
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert not [path for path, content in files.items() if TOKEN.encode() in content]
    out, err = capfd.readouterr()
    assert TOKEN not in out + err
    assert out.strip().endswith("pushed to the Hub: tester/aha")
    assert not list(folder.glob(".hub-*"))


def test_a_rejected_token_does_not_stop_training(
    hub: FakeHub, tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Status 0, the cause, and the command to push by hand as the last line."""
    hub.token = "hf_AnotherTokenThanTheOneGiven"
    assert train(tmp_path / "aha", "--push_to_hub", "true", "--max_steps", "2", "--eval_strategy", "no") == 0
    assert (tmp_path / "aha" / "model.safetensors").exists()
    last = capsys.readouterr().out.strip().splitlines()[-2:]
    assert last[0].startswith("NOT pushed to the Hub:") and "rejected the token (401)" in last[0]
    assert last[1].startswith("to push it by hand: hf upload aha ")
    assert "Training continues" in caplog.text and TOKEN not in caplog.text


@pytest.mark.parametrize("fault", ["drop", 503])
def test_a_push_that_fails_is_done_again_at_the_next_save(
    fault: str | int, hub: FakeHub, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push = pusher(output)
    hub.faults = [fault]
    save(push, 1)
    assert done(push)
    assert push.failure and not hub.commits
    assert "not pushed to the Hub" in caplog.text
    save(push, 2)
    assert done(push)
    assert hub.files()["model.safetensors"] == b"model.safetensors 2"


def test_the_last_push_is_tried_again_after_a_pause(
    hub: FakeHub, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults = ["drop"]
    assert pusher(output).finish()
    assert hub.seen_commits == 2 and len(hub.commits) == 1
    assert capsys.readouterr().out == "pushed to the Hub: my-run\n"


def test_a_hub_that_hangs_holds_nothing_up(
    hub: FakeHub, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saves return at once, and the end gives up after its limit."""
    monkeypatch.setattr(hub_module, "FINAL_LIMIT", 0.5)
    hub.faults = ["hang"]
    push = pusher(output)
    save(push, 1)
    assert wait_until(lambda: hub.seen_commits == 1)
    save(push, 2)
    assert not push.finish()
    assert "took longer than" in capsys.readouterr().out
    assert push._thread is not None and push._thread.daemon and push._thread is not threading.current_thread()


def test_an_upload_keeps_the_files_of_a_checkpoint_that_is_deleted_meanwhile(hub: FakeHub, output: Path) -> None:
    """As the rotation of checkpoints does."""
    staged = hub_module.stage(output, output / "checkpoint-1", {})
    for path in (output / "checkpoint-1").iterdir():
        path.unlink()
    assert (staged / "model.safetensors").read_text() == "model.safetensors 1"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (HubStrategy.END, set()),
        (HubStrategy.EVERY_SAVE, {"README.md", "model.safetensors", "config.json"}),
        (HubStrategy.CHECKPOINT, {"last-checkpoint/optimizer.pt", "last-checkpoint/rng_state.pth"}),
        (HubStrategy.ALL_CHECKPOINTS, {"checkpoint-1/optimizer.pt", "checkpoint-2/optimizer.pt"}),
    ],
)
def test_hub_strategy_says_what_a_save_pushes(
    strategy: HubStrategy, expected: set[str], hub: FakeHub, output: Path
) -> None:
    push = pusher(output, strategy)
    save(push, 2)
    assert done(push) and push.failure is None
    files = set(hub.files())
    assert expected <= files
    assert strategy is not HubStrategy.END or not files
    assert strategy is not HubStrategy.EVERY_SAVE or files == expected


def test_public_only_if_asked(hub: FakeHub, output: Path) -> None:
    assert pusher(output, hub_private_repo=False).finish()
    assert hub.private == {"tester/my-run": False}


def test_the_command_by_hand_pushes_the_same(hub: FakeHub, output: Path) -> None:
    """It is run as printed, by a shell."""
    push = pusher(output)
    (output / "config.json").write_text("{}")
    command = push.command_by_hand(output)
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ran = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert set(hub.files()) == {"README.md", "config.json"}
    assert hub.private == {"tester/my-run": True}


def test_an_error_that_quotes_the_token_is_told_without_it(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As httpx does with a token that has a space in it."""

    def upload(*args: Any) -> None:
        raise httpx.LocalProtocolError("Illegal header value b'Bearer hf_Part one-of-two'")

    remember("hf_Part one-of-two")
    monkeypatch.setattr(HubPush, "_upload", upload)
    monkeypatch.setattr(hub_module, "LAST_WAITS", (0.0,))
    assert not pusher(output).finish()
    said = capsys.readouterr().out + caplog.text
    assert "Illegal header value" in said and "one-of-two" not in said and "hf_Part" not in said


@pytest.mark.parametrize(
    "text",
    [
        f"token is {TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        "run.py --hub_token unusual-shape --seed 1",
        "run.py --hub_token=unusual-shape",
        "hub_token: unusual-shape",
        "https://me:unusual-shape@huggingface.co/x",
    ],
)
def test_redacts_tokens_by_shape_and_place(text: str) -> None:
    redacted = redact(text)
    assert TOKEN not in redacted and "unusual-shape" not in redacted and "[REDACTED]" in redacted


def test_leaves_other_text_alone() -> None:
    text = "python run.py --learning_rate 5e-7 --model hf_small https://huggingface.co/a/b"
    assert redact(text) == text


def test_logs_of_every_library_and_tracebacks_are_redacted(tmp_path: Path) -> None:
    """In a process of its own: it changes how all log records are made."""
    code = (
        "import logging\nfrom mini_r1.program.failures import in_words, work_begins\nwith in_words():\n work_begins();"
        "log = logging.getLogger('transformers.x'); log.propagate = False; log.addHandler(logging.StreamHandler());"
        f"log.warning('a %s', '{TOKEN}');\n"
        f" try: raise ValueError('{TOKEN}')\n except ValueError: log.exception('b')\n"
        f" raise RuntimeError('c own-secret-value {TOKEN}')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MY_API_KEY": "own-secret-value", "TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    (log,) = tmp_path.glob("*error.log")
    assert ran.stderr.count("[REDACTED]") == 4, ran.stderr
    shown = ran.stderr + log.read_text(encoding="utf-8")
    assert TOKEN not in shown and "own-secret-value" not in shown
