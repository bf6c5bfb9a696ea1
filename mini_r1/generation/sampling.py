"""Samples completions of a policy as the trainer does: `generate` at a temperature, with no other filter.

Slower than vLLM on a large GPU, but it needs no server, runs on a CPU, and gives the same text every time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from mini_r1.generation.decoding import decode_without_ended


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote.

    Attributes:
        text: without special tokens.
        tokens: its length, with the end token.
        truncated: whether it ran out of room before an end token.
    """

    text: str
    tokens: int
    truncated: bool


def generate_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    samples: int,
    temperature: float,
    max_completion_length: int,
    batch_size: int,
    seed: int,
    reward: Callable[[int, str], float] | None = None,
    watch: Callable[[str], None] | None = None,
) -> list[list[Completion]]:
    """Generate `samples` completions of each prompt, on the model's device.

    Nothing but the temperature shapes the distribution: no top-p, top-k or repetition penalty, whatever the model's
    generation_config.json says. The completions depend on `seed` and on `batch_size`; the global random state, the
    model's mode and its generation_config are left as they were.

    Args:
        prompts: tokenised with `tokenizer(text=prompts)`, special tokens included, as TRL does.
        temperature: 0 for greedy.
        max_completion_length: in tokens.
        batch_size: sequences at a time.
        reward: of a completion, from the prompt's index and the text; its mean is shown in the progress bar.
        watch: called with the text so far after each token, instead of a progress bar; needs a `batch_size` of 1.

    Returns:
        `samples` completions for each prompt.
    """
    token_ids = tokenizer(text=list(prompts))["input_ids"]
    order = [index for index in range(len(prompts)) for _ in range(samples)]
    config = _generation_config(model, tokenizer, temperature, max_completion_length)
    completions: list[list[Completion]] = [[] for _ in prompts]
    total_reward = 0.0
    bar = tqdm(
        total=len(order), desc="sampling" if temperature else "greedy", unit="completion", disable=watch is not None
    )
    with bar, _ready_to_generate(model, config, seed):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            written = _generate_batch(model, tokenizer, [token_ids[index] for index in batch], config, watch)
            for index, completion in zip(batch, written, strict=True):
                completions[index].append(completion)
                total_reward += reward(index, completion.text) if reward else 0.0
            bar.update(len(batch))
            if reward:
                bar.set_postfix(solved=f"{total_reward / (start + len(batch)):.1%}")
    return completions


def _generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float, max_completion_length: int
) -> GenerationConfig:
    """Plain sampling or greedy decoding that ends, as in TRL, at any end token the tokenizer or the model names."""
    declared = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])} - {None}
    pad = tokenizer.pad_token_id
    sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
    return GenerationConfig(
        do_sample=temperature > 0,
        **sampling,
        repetition_penalty=1.0,
        max_new_tokens=max_completion_length,
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad if pad is not None else min(ends, default=0),
    )


@contextmanager
def _ready_to_generate(model: PreTrainedModel, config: GenerationConfig, seed: int) -> Iterator[None]:
    """Seed; evaluation mode; and `config` alone, since `generate` fills its unset fields from the model's own."""
    # A PEFT wrapper copies its config into the model it wraps, and would leave ours there.
    get_base_model = getattr(model, "get_base_model", None)
    owners: list[PreTrainedModel] = [model, *([get_base_model()] if get_base_model else [])]
    configs, training = [owner.generation_config for owner in owners], model.training
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        try:
            for owner in owners:
                owner.generation_config = config
            model.eval()
            torch.manual_seed(seed)
            yield
        finally:
            model.train(training)
            for owner, own in zip(owners, configs, strict=True):
                owner.generation_config = own


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[Sequence[int]],
    config: GenerationConfig,
    watch: Callable[[str], None] | None,
) -> list[Completion]:
    rows = [torch.tensor(row, device=model.device) for row in token_ids]
    # On the left, so that every prompt ends where its completion starts.
    prompts = pad_sequence(rows, batch_first=True, padding_value=config.pad_token_id, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")

    def see(input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """A criterion that stops nothing, but sees the one sequence after each token."""
        (row,) = input_ids[:, prompts.shape[1] :].tolist()
        cast(Any, watch)(str(tokenizer.decode(row, skip_special_tokens=True)))
        return torch.zeros(1, dtype=torch.bool, device=input_ids.device)

    output = cast(Any, model).generate(
        input_ids=prompts,
        attention_mask=mask,
        generation_config=config,
        stopping_criteria=StoppingCriteriaList([see] if watch else []),
        custom_generate=decode_without_ended,
    )
    ends = set(config.eos_token_id or [])
    completions = []
    for row in output[:, prompts.shape[1] :].tolist():
        # The first end token decides; the padding after it may be a token that the policy can also write.
        length = next((position for position, token in enumerate(row, start=1) if token in ends), None)
        text = str(tokenizer.decode(row[:length], skip_special_tokens=True))
        completions.append(Completion(text, length or len(row), truncated=length is None))
    return completions
