"""The tiny base policy: a 1 M parameter Qwen3 that can calculate and enumerate, but mostly guesses and gives up.

It is pretrained from scratch on text that this module writes, so that RL starts where R1-Zero started: from a base that
has the skills and lacks the habit. Two kinds of document, the first alone to begin with:

* arithmetic, `45 + 12 = 57, 96 / 4 = 24, ...`, where only the results are learned;
* puzzles with a search (`mini_r1.tasks.countdown.thinking`), where the completion is learned. Most guess: how many
  failures the search bears is drawn from a power law, so most give up after one or two. A few enumerate: they say so,
  then try everything in one fixed order until it succeeds. That rare habit is what GRPO can find and reinforce. Many
  more documents are *practice* in enumerating, which teach how it is done and not to do it: the line that says so is
  given, not learned. In the second part of the pretraining no guessing bears more than two failures. Else GRPO makes
  the guessing patient instead, which is nearer.

Two more things differ from the textbook, measured in assets/tiny-countdown-base/README.md: matrices are trained with
Muon (`mini_r1.tiny.muon`) and number embeddings start with Fourier features, which models of arithmetic find by
themselves (https://arxiv.org/abs/2406.03445).
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from mini_r1.prompts.build import PromptWriter
from mini_r1.tasks.countdown.puzzles import WORLDS, World
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.countdown.thinking import (
    OPENER,
    OPERATIONS,
    Attempt,
    enumerate_attempts,
    write_enumeration,
    write_guesses,
)
from mini_r1.tiny.muon import Muon
from mini_r1.tiny.tokenizer import LARGEST_NUMBER

IGNORED = -100  # the label that cross_entropy skips
FOURIER_PERIODS = (2, 3, 5, 7, 10, 20, 40, 80, 160, 400)
FOURIER_SCALE = 0.06  # three times the standard deviation of the other embedding entries
PRACTICE_CHOICE = 3  # puzzles of which the one that takes the longest enumeration is practised

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
Document: TypeAlias = tuple[list[int], list[int], list[int]]  # token ids, labels and positions


@dataclass(frozen=True)
class CorpusConfig:
    """What the base reads.

    Attributes:
        rows, row_length: shape of a batch, in documents packed whole into rows of so many tokens.
        arithmetic_first: share of the batches, the first, that are arithmetic alone.
        arithmetic_share: share of the rows that are arithmetic after that.
        insight: probability that a guess is a known solution rather than a random attempt.
        patience_exponent: guessing bears k failures with probability proportional to k ** -patience_exponent ...
        max_patience: ... for k up to this.
        enumerating_share: share of the puzzles that are solved by enumerating, where the choice to do so is learned.
        practice_share: share of all puzzles that are practice: enumerated too, with that choice hidden.
        world: bounds of the arithmetic; the puzzles are given apart.
    """

    rows: int = 8
    row_length: int = 384
    arithmetic_first: float = 0.07
    arithmetic_share: float = 0.25
    insight: float = 0.05
    patience_exponent: float = 2.0
    max_patience: int = 16
    enumerating_share: float = 0.07
    practice_share: float = 0.5
    seed: int = 42
    world: World = WORLDS["tiny"]


class Corpus(torch.utils.data.Dataset[Batch]):
    """Batch number `step` of the corpus: a function of the configuration, the seed and `step` alone.

    Indexing gives `(token_ids, labels, positions)`, all of shape (rows, row_length): labels are `IGNORED` where none is
    learned, and positions start from 0 again with each document, by which transformers keeps attention inside of it.
    """

    def __init__(self, puzzles: Dataset, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig, steps: int) -> None:
        self.nums: list[list[int]] = list(puzzles["nums"])
        self.targets: list[int] = list(puzzles["target"])
        self.tokenizer, self.config, self.steps = tokenizer, config, steps
        self.prompts = PromptWriter(tokenizer, Countdown())
        self.equations = _all_equations(config.world.operators, config.world.max_intermediate or LARGEST_NUMBER)
        self.patience_weights = [k**-config.patience_exponent for k in range(1, config.max_patience + 1)]
        self.equals, self.opener = (
            int(cast(Any, tokenizer).convert_tokens_to_ids(token)) for token in (" = ", f"{OPENER}\n")
        )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.config.seed} {step}")
        share = 1.0 if step < self.steps * self.config.arithmetic_first else self.config.arithmetic_share
        arithmetic_rows = round(self.config.rows * share)
        rows = [self._arithmetic_row(rng) for _ in range(arithmetic_rows)]
        rows += list(self._trace_rows(rng, self.config.rows - arithmetic_rows))
        token_ids, labels, positions = zip(*rows, strict=True)
        return torch.tensor(token_ids), torch.tensor(labels), torch.tensor(positions)

    def _arithmetic_row(self, rng: random.Random) -> Document:
        count = self.config.row_length // 6  # tokens of one equation, with its comma
        text = "".join(rng.choice(rng.choice(self.equations)) + ", " for _ in range(count))
        token_ids = self.tokenizer(text)["input_ids"]
        # A result is learned where it follows " = ".
        labels = [
            t if before == self.equals else IGNORED for before, t in zip([0, *token_ids], token_ids, strict=False)
        ]
        return self._pad((token_ids, labels, list(range(len(token_ids)))))

    def _trace_rows(self, rng: random.Random, count: int) -> Iterator[Document]:
        """Pack whole documents into `count` rows; a document that no longer fits begins the next row."""
        row: Document = ([], [], [])
        while count:
            document = self._document(rng)
            if len(row[0]) + len(document[0]) > self.config.row_length:
                yield self._pad(row)
                count -= 1
                row = ([], [], [])
            row = (row[0] + document[0], row[1] + document[1], row[2] + document[2])

    def _document(self, rng: random.Random) -> Document:
        """One puzzle with a search that fits into a row: prompt, completion and end token."""
        practice = rng.random() < self.config.practice_share
        prompt, completion = self.search(rng, practice)
        ids = self.tokenizer(prompt)["input_ids"]
        learned = self.tokenizer(completion + self.tokenizer.eos_token)["input_ids"]
        if len(ids) + len(learned) > self.config.row_length:
            return self._document(rng)
        labels = [IGNORED if practice and t == self.opener else t for t in learned]
        return ids + learned, [IGNORED] * len(ids) + labels, list(range(len(ids) + len(learned)))

    def search(self, rng: random.Random, practice: bool = False) -> tuple[str, str]:
        """One puzzle and a search for its solution, by guessing or enumerating: its prompt and its completion."""
        enumerates = practice or rng.random() < self.config.enumerating_share
        puzzles = [self._draw_puzzle(rng) for _ in range(PRACTICE_CHOICE if practice else 1)]
        nums, target, attempts = max(puzzles, key=lambda p: next(i for i, a in enumerate(p[2]) if a.value == p[1]))
        if enumerates:
            completion = write_enumeration(attempts, target)
        else:
            (patience,) = rng.choices(range(1, self.config.max_patience + 1), self.patience_weights)
            completion, _ = write_guesses(attempts, target, patience, self.config.insight, rng)
        return self.prompts.write({"nums": nums, "target": target}), completion

    def _draw_puzzle(self, rng: random.Random) -> tuple[list[int], int, list[Attempt]]:
        index, world = rng.randrange(len(self.nums)), self.config.world
        nums = rng.sample(self.nums[index], len(self.nums[index]))
        attempts = enumerate_attempts(nums, world.operators, world.max_intermediate or LARGEST_NUMBER)
        return nums, self.targets[index], attempts

    def _pad(self, row: Document) -> Document:
        gap = self.config.row_length - len(row[0])
        return row[0] + [self.tokenizer.pad_token_id] * gap, row[1] + [IGNORED] * gap, row[2] + list(range(gap))


def _all_equations(operators: str, largest: int) -> list[list[str]]:
    """For each operator, every `a op b = c` with a >= b and all three whole and within 0..largest."""
    tables = []
    for operator in operators:
        table = []
        for a in range(largest + 1):
            for b in range(a + 1):
                if operator == "/" and (b == 0 or a % b):
                    continue
                result = OPERATIONS[operator](a, b)
                if result <= largest:
                    table.append(f"{a} {operator} {b} = {result}")
        tables.append(table)
    return tables


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 of about 1.1 M parameters whose number embeddings carry Fourier features."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=512,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    numbers = torch.arange(LARGEST_NUMBER + 1, dtype=torch.float32)
    waves = [f(2 * math.pi * numbers / period) for period in FOURIER_PERIODS for f in (torch.cos, torch.sin)]
    size = [numbers / (LARGEST_NUMBER / 2) - 1, numbers.log1p() / math.log(math.sqrt(LARGEST_NUMBER)) - 1]
    features = torch.stack([*waves, *size], dim=1)  # (numbers, features)
    ids = tokenizer.convert_tokens_to_ids([str(n) for n in range(LARGEST_NUMBER + 1)])
    with torch.no_grad():
        model.model.embed_tokens.weight[ids, : features.shape[1]] += FOURIER_SCALE * features
    return model


def build_optimizers(model: nn.Module, muon_lr: float, adamw_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for embeddings, norms and biases."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=muon_lr),
        torch.optim.AdamW(others, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Factor of the learning rate: linear warm-up, constant for a quarter of the steps, then linear to 2 %."""
    decay = 1 - 0.98 * max(0.0, (4 * step / steps - 1) / 3)
    return min(1.0, (step + 1) / warmup) * decay


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the learned tokens; logits (rows, length, vocabulary), labels (rows, length)."""
    predictions = logits[:, :-1].float().flatten(0, 1)
    return nn.functional.cross_entropy(predictions, labels[:, 1:].flatten(), ignore_index=IGNORED)
