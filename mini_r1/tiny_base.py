"""The tiny base policy: a 1 M parameter Qwen2 that can calculate, copy and keep the format, but gives up too early.

It is pretrained from scratch on text that this module writes, so that RL starts where R1-Zero started: from a base that
has the skills and lacks the habit. Two kinds of document:

* arithmetic, `45 + 12 = 57, 96 / 4 = 24, ...`, where only the results are learned;
* puzzles with a search trace (`mini_r1.traces`), where the completion is learned. The patience of each trace, how many
  failed attempts it bears, is drawn from a power law: most give up after one or two attempts, a few search on. That
  rare long search is what GRPO can find and reinforce.

Differs from the textbook in two places, measured in assets/tiny-countdown-base/README.md: matrices are trained with
Muon (https://kellerjordan.github.io/posts/muon/) and number embeddings start with Fourier features, which models of
arithmetic find by themselves (https://arxiv.org/abs/2406.03445).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from mini_r1.countdown import WORLDS, World
from mini_r1.prompts import render_prompt
from mini_r1.tiny_tokenizer import LARGEST_NUMBER
from mini_r1.traces import OPERATIONS, enumerate_attempts, write_trace

IGNORED = -100  # the label that cross_entropy skips
FOURIER_PERIODS = (2, 3, 5, 7, 10, 20, 40, 80, 160, 400)
FOURIER_SCALE = 0.06  # three times the standard deviation of the other embedding entries

Batch: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CorpusConfig:
    """What the base reads.

    Attributes:
        rows, row_length: shape of a batch, in documents packed whole into rows of so many tokens.
        arithmetic_share: share of the rows that are arithmetic.
        insight: probability that an attempt is a known solution rather than a random one.
        patience_exponent: a trace bears k failures with probability proportional to k ** -patience_exponent ...
        max_patience: ... for k up to this.
        world: bounds of the arithmetic; the puzzles are given apart.
    """

    rows: int = 24
    row_length: int = 256
    arithmetic_share: float = 0.2
    insight: float = 0.05
    patience_exponent: float = 2.0
    max_patience: int = 16
    seed: int = 42
    world: World = WORLDS["tiny"]


class Corpus(torch.utils.data.Dataset[Batch]):
    """Batch number `step` of the corpus: a function of the configuration, the seed and `step` alone.

    Indexing gives `(token_ids, labels)`, both of shape (rows, row_length); labels are `IGNORED` where none is learned.
    """

    def __init__(self, puzzles: Dataset, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig, steps: int) -> None:
        self.nums: list[list[int]] = list(puzzles["nums"])
        self.targets: list[int] = list(puzzles["target"])
        self.tokenizer, self.config, self.steps = tokenizer, config, steps
        self.equations = _all_equations(config.world.operators, config.world.max_intermediate or LARGEST_NUMBER)
        self.patience_weights = [k**-config.patience_exponent for k in range(1, config.max_patience + 1)]
        self.equals = tokenizer.convert_tokens_to_ids(" = ")

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.config.seed} {step}")
        arithmetic_rows = round(self.config.rows * self.config.arithmetic_share)
        rows = [self._arithmetic_row(rng) for _ in range(arithmetic_rows)]
        rows += list(self._trace_rows(rng, self.config.rows - arithmetic_rows))
        token_ids, labels = zip(*rows, strict=True)
        return torch.tensor(token_ids), torch.tensor(labels)

    def _arithmetic_row(self, rng: random.Random) -> tuple[list[int], list[int]]:
        count = self.config.row_length // 6  # tokens of one equation, with its comma
        text = "".join(rng.choice(rng.choice(self.equations)) + ", " for _ in range(count))
        token_ids = self.tokenizer(text)["input_ids"]
        # A result is learned where it follows " = ".
        labels = [
            t if before == self.equals else IGNORED for before, t in zip([0, *token_ids], token_ids, strict=False)
        ]
        return self._pad(token_ids, labels)

    def _trace_rows(self, rng: random.Random, count: int) -> Iterator[tuple[list[int], list[int]]]:
        """Pack whole documents into `count` rows; a document that no longer fits begins the next row."""
        token_ids: list[int] = []
        labels: list[int] = []
        while count:
            prompt, completion = self.trace(rng)
            ids = self.tokenizer(prompt)["input_ids"]
            learned = self.tokenizer(completion + self.tokenizer.eos_token)["input_ids"]
            if len(token_ids) + len(ids) + len(learned) > self.config.row_length:
                if token_ids:
                    yield self._pad(token_ids, labels)
                    count -= 1
                token_ids, labels = [], []
            if len(ids) + len(learned) <= self.config.row_length:
                token_ids = token_ids + ids + learned
                labels = labels + [IGNORED] * len(ids) + learned

    def trace(self, rng: random.Random) -> tuple[str, str]:
        """One puzzle with a search: its prompt and its completion."""
        index = rng.randrange(len(self.nums))
        nums, target = rng.sample(self.nums[index], len(self.nums[index])), self.targets[index]
        world = self.config.world
        attempts = enumerate_attempts(nums, world.operators, world.max_intermediate or LARGEST_NUMBER)
        (patience,) = rng.choices(range(1, self.config.max_patience + 1), self.patience_weights)
        completion, _ = write_trace(attempts, target, patience, self.config.insight, rng)
        return render_prompt(self.tokenizer, nums, target), completion

    def _pad(self, token_ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        gap = self.config.row_length - len(token_ids)
        return token_ids + [self.tokenizer.pad_token_id] * gap, labels + [IGNORED] * gap


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


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2 of about 1.1 M parameters whose number embeddings carry Fourier features."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=512,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
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
        torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Factor of the learning rate: linear warm-up, constant to half way, then linear to 2 %."""
    decay = 1 - 0.98 * max(0.0, 2 * step / steps - 1)
    return min(1.0, (step + 1) / warmup) * decay


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the learned tokens. logits: (rows, length, vocabulary), labels: (rows, length)."""
    predictions = logits[:, :-1].float().flatten(0, 1)
    return nn.functional.cross_entropy(predictions, labels[:, 1:].flatten(), ignore_index=IGNORED)


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
