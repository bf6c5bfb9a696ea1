"""Which names are taken for models, and what is said of the others; loading without a traceback."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY_BASE
from mini_r1.policy.loading import ModelError, load_model, load_tokenizer, resolve_model

MODELS = [
    *("runs/aha-seed1", "runs/aha-seed42", "runs/aha-seed42/checkpoint-9", "runs/aha-seed42/checkpoint-130"),
    *("runs/half/checkpoint-26", "runs/half/checkpoint-104", "out/first/checkpoint-5", "assets/tiny-countdown-base"),
    *("Qwen/Qwen2.5-1.5B-Instruct",),  # downloaded from the Hub to a folder of that name
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models in it, and no network."""
    for name in MODELS:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "file").touch()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a request was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*MODELS, "./runs/aha-seed1", "gpt2", "Qwen/Qwen2.5-3B-Instruct", "user/aha-seed41"])
def test_a_folder_with_a_model_and_a_hub_id_are_taken(here: Path, name: str) -> None:
    assert Path(resolve_model(name)) == Path(name)


def test_home_and_trailing_slash(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert resolve_model("~/runs/aha-seed1/") == str(here / "runs" / "aha-seed1")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("runs/ahaseed42", "runs/aha-seed42"),
        ("run/aha-seed42", "runs/aha-seed42"),
        ("Runs/aha-seed42", "runs/aha-seed42"),
        ("aha-seed-42", "runs/aha-seed42"),
        ("./aha-seed42", "runs/aha-seed42"),
        ("out/frist/checkpoint-5", "out/first/checkpoint-5"),
        ("out/frst", "out/first/checkpoint-5"),
        ("runs/aha-seed42/checkpoint-13", "runs/aha-seed42/checkpoint-130"),
        ("assets/tiny-countdwn-base", "assets/tiny-countdown-base"),
        ("tiny-countdown-base", "assets/tiny-countdown-base"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(here: Path, name: str, meant: str) -> None:
    with pytest.raises(ModelError) as error:
        resolve_model(name)
    message = str(error.value)
    assert repr(name) in message
    assert f"did you mean {meant}?" in message or meant in message.partition("models here: ")[2].split(", ")[0]
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("runs/half", "holds no model (no config.json or adapter_config.json); models here: runs/half/checkpoint-26, "),
        ("runs/notes", "holds no model"),
        ("runs", "holds no model"),
        ("", "holds no model"),
        ("file", "is a file"),
        ("runs/x/", "there is no model folder"),
        ("../x", "there is no model folder"),
        ("~nobody-of-that-name/x", "there is no model folder"),
        ("a/b/c", "there is no model folder"),
        ("checkpoint-26", "there is no model folder"),
        ("two words", "neither a folder nor a Hub id"),
        ("user/na\0me", "neither a folder nor a Hub id"),
        ("x" * 5_000, "neither a folder nor a Hub id"),
        ("/" + "x" * 5_000, "there is no model folder"),
    ],
)
def test_no_model(here: Path, name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=r"models here|is a file") as error:
        resolve_model(name)
    assert reason in str(error.value)


def test_a_long_list_is_cut(here: Path) -> None:
    for index in range(30):
        shutil.copytree("runs/aha-seed1", f"runs/other-{index}")
    with pytest.raises(ModelError, match=r"and 2. more"):
        resolve_model("runs/nothing-like-it")


def test_without_any_model_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="make aha"):
        resolve_model("runs/aha-seed42")


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "missing weights"])
def test_a_damaged_model_is_one_line(tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(TINY_BASE, tmp_path / "model")
    if damage == "missing weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:40])
    with pytest.raises(ModelError, match="cannot load the") as error:
        load_tokenizer(str(folder))
        load_model(str(folder))
    assert "\n" not in str(error.value)
