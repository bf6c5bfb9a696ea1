"""The shipped tiny base: small, made by the code beside it, with the skills and without the habit."""

import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from conftest import ROOT, TINY_BASE
from mini_r1.results.evaluation import EvaluationSettings, evaluate
from mini_r1.runs.holdout import DataSettings, hold_out
from mini_r1.runs.records import Record
from mini_r1.tasks.countdown.puzzles import load_countdown
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tiny.base import Corpus, CorpusConfig
from mini_r1.tiny.skills import arithmetic_accuracy, enumeration
from mini_r1.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(TINY_BASE)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY_BASE)


@pytest.fixture(scope="module")
def held_out(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Record:
    puzzles = hold_out(DataSettings("generated:tiny")).held_out.select(range(128))
    return evaluate(
        model, tokenizer, puzzles, Countdown(), EvaluationSettings(samples=2, ks=(1, 2), max_completion_length=256)
    )


def test_it_is_small_and_a_qwen3(model: PreTrainedModel) -> None:
    assert model.config.model_type == "qwen3"
    assert 1e6 <= model.num_parameters() <= 3e6
    assert sum(path.stat().st_size for path in TINY_BASE.rglob("*")) <= 8 * 2**20


def test_its_tokenizer_is_the_one_that_the_code_builds(tokenizer: PreTrainedTokenizerBase) -> None:
    built = build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab()
    assert tokenizer.chat_template == built.chat_template
    assert tokenizer.eos_token == built.eos_token


def test_it_calculates(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    puzzles = load_countdown("generated:tiny", max_samples=1)
    accuracy = arithmetic_accuracy(model, Corpus(puzzles, tokenizer, CorpusConfig(), steps=1), random.Random(1))
    assert accuracy.keys() == set("+-*/")
    assert min(accuracy.values()) >= 0.98, accuracy


def test_it_keeps_the_format_and_mostly_guesses_and_gives_up_early(held_out: Record) -> None:
    """What leaves room for RL: a solve rate of at most 40 %, for want of the habit rather than of skill."""
    metrics = {name: estimate["value"] for name, estimate in held_out["metrics"].items()}
    assert metrics["format"] >= 0.97
    assert metrics["arithmetic"] >= 0.95
    assert 0.2 <= metrics["pass@1"] <= 0.45
    assert metrics["attempts"] < 2.5
    assert 0.05 <= metrics["enumerating"] <= 0.15  # 256 samples of a share near 0.1


def test_it_enumerates_right_where_its_first_line_is_given(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    puzzles = hold_out(DataSettings("generated:tiny")).held_out.select(range(128))
    corpus = Corpus(puzzles, tokenizer, CorpusConfig(), steps=1)
    assert enumeration(model, corpus, puzzles, seed=1)["in_order"] >= 0.8


def test_none_of_its_files_can_run_code() -> None:
    assert {path.suffix for path in TINY_BASE.iterdir()} <= {".json", ".jinja", ".md", ".safetensors"}


def test_its_readme_says_how_it_was_made() -> None:
    text = (TINY_BASE / "README.md").read_text()
    assert "python scripts/train_tiny_base.py --out" in text
    assert (ROOT / "scripts" / "train_tiny_base.py").exists()
