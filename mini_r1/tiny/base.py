"""The tiny base policy: a 1 M parameter Qwen2 that can calculate, copy and keep the format, but gives up too early.

It is pretrained from scratch on text that this module writes, so that RL starts where R1-Zero started: from a base that
has the skills and lacks the habit. Two kinds of document:

* arithmetic, `45 + 12 = 57, 96 / 4 = 24, ...`, where only the results are learned;
* puzzles with a search trace (`mini_r1.tasks.countdown.thinking`), where the completion is learned. The patience of
  each trace, how many failed attempts it bears, is drawn from a power law: most give up after one or two attempts, a
  few search on. That rare long search is what GRPO can find and reinforce. Some traces are *practice*: they search on
  until they succeed, so that copying and checking are learned far into a thinking too, but the decision to go on is
  not: after a failure, the next token is learned as if giving up were impossible (the likelihood given that the
  search goes on).

Two more things differ from the textbook, measured in assets/tiny-countdown-base/README.md: matrices are trained with
Muon (https://kellerjordan.github.io/posts/muon/) and number embeddings start with Fourier features, which models of
arithmetic find by themselves (https://arxiv.org/abs/2406.03445).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from mini_r1.prompts.build import PromptWriter
from mini_r1.tasks.countdown.puzzles import WORLDS, World
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.countdown.thinking import FAILURE, OPERATIONS, Attempt, enumerate_attempts, write_trace
from mini_r1.tiny.tokenizer import LARGEST_NUMBER

IGNORED = -100  # the label that cross_entropy skips
FOURIER_PERIODS = (2, 3, 5, 7, 10, 20, 40, 80, 160, 400)
FOURIER_SCALE = 0.06  # three times the standard deviation of the other embedding entries
PRACTICE_CHOICE = 3  # puzzles of which the hardest is practised

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
Document: TypeAlias = tuple[list[int], list[int], list[bool]]  # token ids, labels, and where `goes_on`


@dataclass(frozen=True)
class CorpusConfig:
    """What the base reads.

    Attributes:
        rows, row_length: shape of a batch, in documents packed whole into rows of so many tokens.
        arithmetic_share: share of the rows that are arithmetic.
        insight: probability that an attempt is a known solution rather than a random one.
        patience_exponent: a trace bears k failures with probability proportional to k ** -patience_exponent ...
        max_patience: ... for k up to this.
        practice_share: share of the traces that are practice ...
        practice_attempts: ... with so many attempts at most, which fit into a row.
        world: bounds of the arithmetic; the puzzles are given apart.
    """

    rows: int = 21
    row_length: int = 288
    arithmetic_share: float = 0.2
    insight: float = 0.05
    patience_exponent: float = 2.0
    max_patience: int = 16
    practice_share: float = 0.0
    practice_attempts: int = 20
    seed: int = 42
    world: World = WORLDS["tiny"]


class Corpus(torch.utils.data.Dataset[Batch]):
    """Batch number `step` of the corpus: a function of the configuration, the seed and `step` alone.

    Indexing gives `(token_ids, labels, goes_on)`, all of shape (rows, row_length): labels are `IGNORED` where none is
    learned, and `goes_on` marks those that are learned given that the search isn't given up.
    """

    def __init__(self, puzzles: Dataset, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig, steps: int) -> None:
        self.nums: list[list[int]] = list(puzzles["nums"])
        self.targets: list[int] = list(puzzles["target"])
        self.tokenizer, self.config, self.steps = tokenizer, config, steps
        self.prompts = PromptWriter(tokenizer, Countdown())
        self.equations = _all_equations(config.world.operators, config.world.max_intermediate or LARGEST_NUMBER)
        self.patience_weights = [k**-config.patience_exponent for k in range(1, config.max_patience + 1)]
        self.equals, self.failure, self.stop = (
            int(cast(Any, tokenizer).convert_tokens_to_ids(token)) for token in (" = ", f" {FAILURE}\n", "</think>")
        )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.config.seed} {step}")
        arithmetic_rows = round(self.config.rows * self.config.arithmetic_share)
        rows = [self._arithmetic_row(rng) for _ in range(arithmetic_rows)]
        rows += list(self._trace_rows(rng, self.config.rows - arithmetic_rows))
        token_ids, labels, goes_on = zip(*rows, strict=True)
        return torch.tensor(token_ids), torch.tensor(labels), torch.tensor(goes_on)

    def _arithmetic_row(self, rng: random.Random) -> Document:
        count = self.config.row_length // 6  # tokens of one equation, with its comma
        text = "".join(rng.choice(rng.choice(self.equations)) + ", " for _ in range(count))
        token_ids = self.tokenizer(text)["input_ids"]
        # A result is learned where it follows " = ".
        labels = [
            t if before == self.equals else IGNORED for before, t in zip([0, *token_ids], token_ids, strict=False)
        ]
        return self._pad((token_ids, labels, [False] * len(labels)))

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
        """One puzzle with a search: prompt, completion and end token."""
        practice = rng.random() < self.config.practice_share
        prompt, completion = self.trace(rng, practice)
        ids = self.tokenizer(prompt)["input_ids"]
        learned = self.tokenizer(completion + self.tokenizer.eos_token)["input_ids"]
        after_failure = [practice and before == self.failure for before in [0, *learned[:-1]]]
        labels = [IGNORED if go and t == self.stop else t for t, go in zip(learned, after_failure, strict=True)]
        return ids + learned, [IGNORED] * len(ids) + labels, [False] * len(ids) + after_failure

    def trace(self, rng: random.Random, practice: bool = False) -> tuple[str, str]:
        """One puzzle with a search, impatient unless for practice: its prompt and its completion."""
        puzzles = [self._draw_puzzle(rng) for _ in range(PRACTICE_CHOICE if practice else 1)]
        # Practice is long because its puzzles are hard, not because it is made to miss.
        nums, target, attempts = min(puzzles, key=lambda p: sum(a.value == p[1] for a in p[2]) / len(p[2]))
        (patience,) = rng.choices(range(1, self.config.max_patience + 1), self.patience_weights)
        if practice:
            patience = self.config.practice_attempts
        completion, _ = write_trace(attempts, target, patience, self.config.insight, rng)
        return self.prompts.write({"nums": nums, "target": target}), completion

    def _draw_puzzle(self, rng: random.Random) -> tuple[list[int], int, list[Attempt]]:
        index, world = rng.randrange(len(self.nums)), self.config.world
        nums = rng.sample(self.nums[index], len(self.nums[index]))
        attempts = enumerate_attempts(nums, world.operators, world.max_intermediate or LARGEST_NUMBER)
        return nums, self.targets[index], attempts

    def _pad(self, row: Document) -> Document:
        gap = self.config.row_length - len(row[0])
        return row[0] + [self.tokenizer.pad_token_id] * gap, row[1] + [IGNORED] * gap, row[2] + [False] * gap


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


def next_token_loss(logits: Tensor, labels: Tensor, goes_on: Tensor, stop: int) -> Tensor:
    """Mean cross-entropy of the learned tokens.

    Args:
        logits: (rows, length, vocabulary).
        labels: (rows, length).
        goes_on: (rows, length), labels whose likelihood is taken given that the token isn't `stop`.
    """
    predictions = logits[:, :-1].float()
    impossible = nn.functional.one_hot(torch.tensor(stop), predictions.shape[-1]).bool() & goes_on[:, 1:, None]
    predictions = predictions.masked_fill(impossible, -torch.inf)
    return nn.functional.cross_entropy(predictions.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


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
