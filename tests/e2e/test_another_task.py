"""A task of reasoning-gym, end to end: a policy that knows it a little learns it by GRPO, and the report shows it."""

import json
import random
import runpy
import signal
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from conftest import ROOT, TINY_RECIPE
from helpers.requirements import require_module
from mini_r1.prompts.build import PromptWriter
from mini_r1.recipe.read import parse_recipe
from mini_r1.tasks.answers import INSTRUCTION
from mini_r1.tasks.registry import task_of
from mini_r1.tasks.task import Source
from mini_r1.tiny.base import build_model
from mini_r1.tiny.tokenizer import build_tokenizer
from mini_r1.train.run import run

pytestmark = pytest.mark.slow
require_module("reasoning_gym", "pip install -r requirements-dev.txt")

CONFIG = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}  # 4 + 3, 2 - 9
RECIPE = """
task: reasoning_gym/chain_sum
task_config: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}
max_samples: 400
max_prompt_length: 96
eval_puzzles: 40
max_steps: 26
warmup_steps: 2
eval_steps: 13
save_steps: 13
per_device_train_batch_size: 64
per_device_eval_batch_size: 64
max_completion_length: 24
length_buckets: 1
"""


def little_knowing_policy(folder: Path) -> Path:
    """A policy that has read completions of which half have the format, and half of those the right answer."""
    rng, task = random.Random(1), task_of("reasoning_gym/chain_sum", CONFIG)
    tokenizer = build_tokenizer()
    rows = task.load(Source("generated", max_samples=400)).to_list()
    sentence = rows[0]["question"].partition(":")[0]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (INSTRUCTION, sentence)])
    writer, model = PromptWriter(tokenizer, task), build_model(tokenizer, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(100):
        texts = [(writer.write(row), half_right(row["answer"], rng)) for row in rng.choices(rows, k=32)]
        read(model, optimizer, tokenizer, texts)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def half_right(answer: str, rng: random.Random) -> str:
    """One of four completions, in the form or not, right or not."""
    said = answer if rng.random() < 0.5 else str(rng.randrange(19))
    return f" ok</think>\n<answer>{said}</answer>" if rng.random() < 0.5 else f" ok</think>\n{said}"


def read(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[tuple[str, str]],
) -> None:
    """One supervised step on the completions."""
    pairs = [(tokenizer(text=p)["input_ids"], tokenizer(text=c)["input_ids"]) for p, c in texts]
    rows = [(p + c + [tokenizer.eos_token_id], [-100] * len(p) + c + [tokenizer.eos_token_id]) for p, c in pairs]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([label + [-100] * (longest - len(label)) for _, label in rows])
    optimizer.zero_grad()
    model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()


def test_a_run_of_another_task_learns_and_is_reported(tmp_path: Path) -> None:
    base, folder, recipe = little_knowing_policy(tmp_path / "base"), tmp_path / "run", tmp_path / "recipe.yaml"
    kept = [line for line in TINY_RECIPE.read_text(encoding="utf-8").splitlines() if not line.startswith("dataset")]
    keys = {line.partition(":")[0] for line in RECIPE.splitlines() if line} | {"model_name_or_path", "output_dir"}
    kept = [line for line in kept if line.partition(":")[0] not in keys]
    own = f"model_name_or_path: {base}\noutput_dir: {folder}\n"
    recipe.write_text("\n".join([*kept, RECIPE, own]), encoding="utf-8")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    assert run(*parse_recipe(["--config", str(recipe)])) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)

    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    for name in ("format", "reward"):  # the form is what so few steps can teach
        logged = [entry[name] for entry in history if name in entry]
        assert sum(logged[-5:]) / 5 > sum(logged[:5]) / 5 + 0.1

    out = folder / "evaluation.json"
    evaluate = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]
    assert evaluate([str(base), str(folder), "--puzzles", "20", "--out", str(out)]) == 0
    assert runpy.run_path(str(ROOT / "scripts" / "report.py"))["main"]([str(folder)]) == 0
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "reasoning-gym" in page
    assert "chain_sum" in page
