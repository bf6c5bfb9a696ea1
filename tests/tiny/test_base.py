"""The tiny base: its tokenizer, its corpus, its model and the script that trains it."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from helpers.countdown_prompts import render_prompt
from mini_r1.tasks.countdown.puzzles import generate_puzzles
from mini_r1.tasks.countdown.thinking import OPENER
from mini_r1.tasks.rewards import format_reward_func
from mini_r1.tiny.base import IGNORED, Corpus, CorpusConfig, build_model, build_optimizers, next_token_loss, schedule
from mini_r1.tiny.muon import Muon
from mini_r1.tiny.tokenizer import LARGEST_NUMBER, build_tokenizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_tiny_base.py"
CONFIG = CorpusConfig(arithmetic_first=0.0)
CORPUS_PUZZLES = generate_puzzles(50, seed=1, world=CONFIG.world)


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return build_tokenizer()


@pytest.fixture(scope="module")
def corpus(tokenizer: Qwen2Tokenizer) -> Corpus:
    return Corpus(CORPUS_PUZZLES, tokenizer, CONFIG, steps=10)


@pytest.mark.parametrize(
    "text", ["12 + 5 = 17, 365 no\n", "Any other text! (like this)\n", " \n  \n", "<think>1</think>"]
)
def test_tokenizer_round_trip(tokenizer: Qwen2Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_and_sentences_are_single_tokens(tokenizer: Qwen2Tokenizer) -> None:
    assert all(len(tokenizer(str(n))["input_ids"]) == 1 for n in range(LARGEST_NUMBER + 1))
    prompt = render_prompt(tokenizer, [19, 36, 55], 72)
    assert len(tokenizer(prompt)["input_ids"]) == 22
    assert tokenizer.decode(tokenizer(prompt)["input_ids"]) == prompt


def test_tokenizer_survives_saving_and_auto_loading(tokenizer: Qwen2Tokenizer, tmp_path: Path) -> None:
    """AutoTokenizer insists on Qwen2's own class for a Qwen3 model, whatever class was saved."""
    build_model(tokenizer, 0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    prompt = render_prompt(tokenizer, [19, 36, 55], 72)
    assert render_prompt(loaded, [19, 36, 55], 72) == prompt
    assert loaded(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
    assert loaded.decode(loaded(prompt)["input_ids"]) == prompt
    assert loaded.eos_token == "<|im_end|>"


def test_batch_is_a_function_of_seed_and_step(corpus: Corpus) -> None:
    (first, labels, positions), (again, *_), (other, *_) = corpus[3], corpus[3], corpus[4]
    assert first.shape == labels.shape == positions.shape == (CONFIG.rows, CONFIG.row_length)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_results_and_completions_are_learned(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    token_ids, labels, _ = corpus[0]
    learned = labels != IGNORED
    assert torch.equal(token_ids[learned], labels[learned])
    arithmetic = str(tokenizer.decode(token_ids[0][learned[0]]))
    assert arithmetic.isdigit()
    trace = str(tokenizer.decode(token_ids[-1][learned[-1]]))
    assert "Using the numbers" not in trace
    completions = trace.split("<|im_end|>")[:-1]
    assert completions
    assert format_reward_func(completions, [0] * len(completions)) == [1.0] * len(completions)


def test_first_batches_are_arithmetic_alone(tokenizer: Qwen2Tokenizer) -> None:
    corpus = Corpus(CORPUS_PUZZLES, tokenizer, replace(CONFIG, arithmetic_first=0.5), steps=2)
    rows_with_puzzles = [sum("Using" in text for text in tokenizer.batch_decode(corpus[step][0])) for step in (0, 1)]
    assert rows_with_puzzles == [0, 6]


def test_most_guessing_gives_up_early_and_a_little_searches_on(corpus: Corpus) -> None:
    rng = random.Random(0)
    searches = [corpus.search(rng)[1].partition("</think>")[0].strip() for _ in range(400)]
    attempts = [text.count("\n") + 1 for text in searches if OPENER not in text]
    assert sum(n <= 2 for n in attempts) > 0.7 * len(attempts)
    assert max(attempts) >= 6
    assert 0.04 < 1 - len(attempts) / len(searches) < 0.12  # the rare habit


def test_practice_enumerates_and_does_not_teach_to(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    """All of a practised enumeration is learned but that it is one; elsewhere that is learned too."""
    rng = random.Random(0)
    for share in (1.0, 0.0):
        searches = Corpus(
            CORPUS_PUZZLES, tokenizer, replace(CONFIG, practice_share=share, enumerating_share=1.0), steps=1
        )
        for _ in range(50):
            token_ids, labels, _ = searches._document(rng)
            start = token_ids.index(searches.opener)
            assert labels[start] == (IGNORED if share else searches.opener)
            assert labels[start + 1 :] == token_ids[start + 1 :]
            assert len(token_ids) <= CONFIG.row_length


def test_muon_moves_a_matrix_as_torchs_does() -> None:
    """The same direction to 3 %, for what torch computes in bfloat16, whatever the shape."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((16, 64), (64, 16), (32, 32))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(ours, lr=0.01),
        torch.optim.Muon(theirs, lr=0.01, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        before = [p.detach().clone() for p in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for mine, other, old in zip(ours, theirs, before, strict=True):
            assert (mine - other).norm() < 0.06 * (other - old).norm()


def test_model_is_small_and_number_embeddings_start_with_fourier_features(tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, 0)
    assert 1.0e6 < model.num_parameters() < 3.0e6
    embeddings = model.model.embed_tokens.weight.detach()
    ids = tokenizer.convert_tokens_to_ids([str(n) for n in range(100)])
    parity = embeddings[ids, 0]  # the cosine of period 2
    assert parity[::2].mean() - parity[1::2].mean() == pytest.approx(0.12, abs=0.02)


def test_optimizers_share_out_every_parameter_once(tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, 0)
    held = [id(p) for o in build_optimizers(model, 0.01, 0.001) for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_schedule_warms_up_stays_and_decays() -> None:
    factors = [schedule(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[100] == factors[250] == 1.0
    assert factors[625] == pytest.approx(0.51, abs=0.01)
    assert factors[-1] == pytest.approx(0.02, abs=0.01)


def test_a_document_does_not_see_the_one_before_it_in_its_row(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, 0)
    token_ids, _, positions = (part[-1:] for part in corpus[0])
    second = positions[0].tolist().index(0, 1)
    changed = token_ids.clone()
    changed[0, :second] = tokenizer("7")["input_ids"][0]
    with torch.no_grad():
        logits, others = (
            model(input_ids=ids, position_ids=positions, use_cache=False).logits[0] for ids in (token_ids, changed)
        )
    assert not torch.equal(logits[second - 1], others[second - 1])
    assert torch.equal(logits[second:], others[second:])


def test_a_few_steps_lower_the_loss(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, 0)
    optimizers = build_optimizers(model, 0.01, 0.002)
    token_ids, labels, positions = corpus[0]
    losses = []
    for _ in range(8):
        loss = next_token_loss(model(input_ids=token_ids, position_ids=positions, use_cache=False).logits, labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_script_trains_stops_on_sigterm_and_goes_on(tmp_path: Path) -> None:
    """An interrupted and resumed pretraining ends with the weights of an unbroken one."""
    command = [sys.executable, str(SCRIPT), "--puzzles", "200", "--steps", "6", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True, text=True)
    stopped = subprocess.Popen([*command, str(tmp_path / "parts")], stderr=subprocess.PIPE, text=True)
    assert stopped.stderr is not None
    for line in stopped.stderr:  # tqdm ends its lines with a carriage return, which text mode translates
        if "pretraining" in line and " 2/6 " in line:
            stopped.terminate()
            break
    stopped.stderr.read()
    assert stopped.wait(timeout=60) == 0
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    done = subprocess.run([*command, str(tmp_path / "parts")], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout[done.stdout.index("{") :])["arithmetic"].keys() == set("+-*/")
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "parts")]
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "0", "--steps 0: give at least 1"),
        ("--puzzles", "9", "--puzzles 9: give at least 10"),
        ("--max-patience", "0", "--max-patience 0: give at least 1"),
        ("--enumerating-share", "1.5", "--enumerating-share 1.5: give 0 to 1"),
        ("--init", "no/such/base", "there is no model folder 'no/such/base'"),
    ],
)
def test_a_wrong_option_is_one_line(option: str, value: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--puzzles", "200", option, value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
