"""What the tiny base can do: calculate, and enumerate where it has begun to; and how rarely it begins to."""

import random
from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from mini_r1.generation.sampling import generate_completions
from mini_r1.tasks.countdown.thinking import OPENER, enumerate_attempts, read_thinking, write_enumeration
from mini_r1.tasks.task import rows_of
from mini_r1.tiny.base import Corpus
from mini_r1.tiny.tokenizer import LARGEST_NUMBER

MAX_COMPLETION_LENGTH = 320  # tokens, as in the recipe


def arithmetic_accuracy(model: nn.Module, corpus: Corpus, rng: random.Random, count: int = 1000) -> dict[str, float]:
    """Share of right results, per operator, over `count` equations drawn from all that the world allows."""
    accuracy = {}
    for operator, table in zip(corpus.config.world.operators, corpus.equations, strict=True):
        sample: Sequence[str] = rng.sample(table, min(count, len(table)))
        token_ids = torch.tensor(corpus.tokenizer(list(sample))["input_ids"])  # (count, 5): a op b = c
        with torch.no_grad():
            predicted = model(input_ids=token_ids[:, :-1], use_cache=False).logits[:, -1].argmax(-1)
        accuracy[operator] = (predicted == token_ids[:, -1]).float().mean().item()
    return accuracy


def enumeration(model: PreTrainedModel, corpus: Corpus, puzzles: Dataset, seed: int) -> dict[str, float]:
    """How often the model enumerates by itself, and whether it does it right where its first line is given.

    One sample of each puzzle at temperature 1.

    Returns:
        enumerates: share of the samples that say so.
        in_order: share that, with the opening line given, are right to the end: each attempt in its place until the
            first that succeeds, and its equation as the answer.
    """
    rows, world = list(rows_of(puzzles)), corpus.config.world
    prompts = [corpus.prompts.write(row) for row in rows]
    opened = [f"{prompt}\n{OPENER}\n" for prompt in prompts]
    free, led = (
        [
            completions[0].text
            for completions in generate_completions(
                model,
                corpus.tokenizer,
                texts,
                samples=1,
                temperature=1.0,
                max_completion_length=MAX_COMPLETION_LENGTH,
                batch_size=256,
                seed=seed,
            )
        ]
        for texts in (prompts, opened)
    )
    largest = world.max_intermediate or LARGEST_NUMBER
    right = [
        write_enumeration(enumerate_attempts(row["nums"], world.operators, largest), row["target"]) for row in rows
    ]
    return {
        "enumerates": sum(read_thinking(text).enumerates for text in free) / len(rows),
        "in_order": sum(f"\n{OPENER}\n{text}" == whole for text, whole in zip(led, right, strict=True)) / len(rows),
    }
