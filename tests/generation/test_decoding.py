"""Decoding that drops ended sequences: the same tokens as transformers' own loop, the same distribution, less work."""

import functools
from collections import Counter
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import TINY_BASE
from helpers.countdown_prompts import render_prompt
from mini_r1.generation.cache import RoomyLayer
from mini_r1.generation.decoding import decode_without_ended

PUZZLES = [([19, 36, 55], 72), ([3, 4, 5], 17), ([80, 9, 2], 62), ([7, 7, 1], 50)]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY_BASE).eval()


@pytest.fixture(scope="module")
def prompts() -> dict[str, torch.Tensor]:
    """Four prompts, of which one is longer, so that the others are padded on the left."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE, padding_side="left")
    texts = [render_prompt(tokenizer, *puzzle) for puzzle in PUZZLES]
    texts[1] = "17 no\n" + texts[1]
    return dict(tokenizer(texts, return_tensors="pt", padding=True))


def test_greedy_decoding_is_that_of_transformers(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    settings = {**prompts, "do_sample": False, "max_new_tokens": 100}
    ours, theirs = (model.generate(**settings, custom_generate=f) for f in (decode_without_ended, None))
    assert torch.equal(ours, theirs)


def test_samples_depend_on_the_seed_alone(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    samples = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        samples.append(
            model.generate(**prompts, do_sample=True, max_new_tokens=60, custom_generate=decode_without_ended)
        )
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_samples_are_distributed_as_those_of_transformers(model: Any) -> None:
    """Whether a completion ends after one, two or more attempts: its length, over 600 samples of one prompt."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    prompt = tokenizer(render_prompt(tokenizer, *PUZZLES[0]), return_tensors="pt")
    counts = []
    for decode in (decode_without_ended, None):
        torch.manual_seed(0)
        sampled = model.generate(
            **prompt,
            do_sample=True,
            top_k=0,
            max_new_tokens=60,
            num_return_sequences=600,
            custom_generate=decode,
        )
        lengths = (sampled[:, prompt["input_ids"].shape[1] :] != model.config.pad_token_id).sum(1)
        counts.append(Counter(min(int(length) // 12, 4) for length in lengths))
    # Five standard deviations of a difference of two shares out of 600 are at most 0.144.
    shares = [[count[bin_] / 600 for bin_ in range(5)] for count in counts]
    assert shares[0] == pytest.approx(shares[1], abs=0.144)
    assert max(shares[0]) < 0.9


def test_ended_sequences_are_not_computed_on(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    sizes: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    torch.manual_seed(0)
    output = model.generate(**prompts, do_sample=True, max_new_tokens=120, custom_generate=decode_without_ended)
    hook.remove()
    lengths = (output[:, prompts["input_ids"].shape[1] :] != model.config.pad_token_id).sum(1)
    assert sizes[0] == len(PUZZLES)
    assert sum(sizes) == lengths.sum()


def test_a_prompt_of_several_sequences_is_read_once(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    """The same tokens, of which those of a prompt pass through the layers once, but for its last one."""
    which = torch.tensor([2, 1, 1, 0, 2, 1])
    several = {name: value[which] for name, value in prompts.items()}
    tokens: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    decoded = []
    for shares in (False, True):
        decode = functools.partial(decode_without_ended, share_prompts=shares)
        decoded.append(model.generate(**several, do_sample=False, max_new_tokens=100, custom_generate=decode))
        if not shares:
            tokens.clear()
    hook.remove()
    assert torch.equal(*decoded)
    assert tokens[:2] == [3 * (several["input_ids"].shape[1] - 1), len(which)]


def test_keys_and_values_stay_in_their_place(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    kinds: set[type] = set()
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: kinds.update(map(type, kwargs["past_key_values"].layers)), with_kwargs=True
    )
    model.generate(**prompts, do_sample=False, max_new_tokens=2, custom_generate=decode_without_ended)
    hook.remove()
    assert kinds == {RoomyLayer}


def test_the_length_limit_holds(model: Any, prompts: dict[str, torch.Tensor]) -> None:
    output = model.generate(**prompts, do_sample=True, max_new_tokens=7, custom_generate=decode_without_ended)
    assert output.shape == (len(PUZZLES), prompts["input_ids"].shape[1] + 7)
