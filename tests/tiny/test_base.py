"""The tiny base: its tokenizer, its corpus, its model and the script that trains it."""

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from helpers.countdown_prompts import render_prompt
from mini_r1.tasks.countdown.puzzles import generate_puzzles
from mini_r1.tasks.rewards import format_reward_func
from mini_r1.tiny.base import IGNORED, Corpus, CorpusConfig, build_model, build_optimizers, next_token_loss, schedule
from mini_r1.tiny.tokenizer import LARGEST_NUMBER, build_tokenizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_tiny_base.py"
CONFIG = CorpusConfig(rows=6)
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
    """AutoTokenizer insists on Qwen2's own class for a Qwen2 model, whatever class was saved."""
    build_model(tokenizer, 0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    prompt = render_prompt(tokenizer, [19, 36, 55], 72)
    assert render_prompt(loaded, [19, 36, 55], 72) == prompt
    assert loaded(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
    assert loaded.decode(loaded(prompt)["input_ids"]) == prompt
    assert loaded.eos_token == "<|im_end|>"


def test_batch_is_a_function_of_seed_and_step(corpus: Corpus) -> None:
    (first, labels, goes_on), (again, *_), (other, *_) = corpus[3], corpus[3], corpus[4]
    assert first.shape == labels.shape == goes_on.shape == (CONFIG.rows, CONFIG.row_length)
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


def test_most_traces_give_up_early_and_a_few_search_on(corpus: Corpus) -> None:
    rng = random.Random(0)
    attempts = [corpus.trace(rng)[1].partition("</think>")[0].strip().count("\n") + 1 for _ in range(400)]
    assert sum(n <= 2 for n in attempts) > 0.7 * len(attempts)
    assert max(attempts) >= 6


def test_practice_searches_on_and_teaches_no_patience(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    """Wherever a practice trace goes on after a failure, that it does is not learned; nor that it stops in the end."""
    rng = random.Random(0)
    practice = Corpus(CORPUS_PUZZLES, tokenizer, replace(CONFIG, practice_share=1.0), steps=1)
    failures = given = 0
    for _ in range(100):
        token_ids, labels, goes_on = practice._document(rng)
        after_failure = [before == practice.failure for before in [0, *token_ids[:-1]]]
        assert goes_on == after_failure
        assert all(labels[i] == IGNORED for i, go in enumerate(goes_on) if go and token_ids[i] == practice.stop)
        failures += sum(after_failure)
        given += sum(label != IGNORED for label, go in zip(labels, goes_on, strict=True) if go)
    impatient = Corpus(CORPUS_PUZZLES, tokenizer, replace(CONFIG, practice_share=0.0), steps=1)
    assert not any(any(impatient._document(rng)[2]) for _ in range(100))
    assert failures > 300
    assert given > 0.9 * failures


def test_loss_leaves_giving_up_out_where_the_search_goes_on() -> None:
    """The likelihood given that the token isn't the stop token, from the definition."""
    logits = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]) + torch.tensor([2.0, 1.0, 0.0])
    labels = torch.tensor([[IGNORED, 1]])
    free, decreed = (next_token_loss(logits, labels, torch.tensor([[False, go]]), stop=0) for go in (False, True))
    p = logits[0, 0].softmax(-1)
    assert free.item() == pytest.approx(-math.log(p[1]))
    assert decreed.item() == pytest.approx(-math.log(p[1] / (1 - p[0])))


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
    assert factors[100] == factors[500] == 1.0
    assert factors[-1] == pytest.approx(0.02, abs=0.01)


def test_a_few_steps_lower_the_loss(corpus: Corpus, tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, 0)
    optimizers = build_optimizers(model, 0.01, 0.002)
    token_ids, labels, goes_on = corpus[0]
    losses = []
    for _ in range(8):
        loss = next_token_loss(model(input_ids=token_ids, use_cache=False).logits, labels, goes_on, corpus.stop)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_script_trains_stops_on_sigterm_and_goes_on(tmp_path: Path) -> None:
    """An interrupted and resumed pretraining ends with the weights of an unbroken one."""
    command = [sys.executable, str(SCRIPT), "--puzzles", "200", "--steps", "6", "--no-compile", "--out"]
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
