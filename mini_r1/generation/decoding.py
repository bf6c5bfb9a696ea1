"""Sampling in which a finished sequence leaves the batch, instead of staying in it as padding.

The lengths of a policy's completions differ much: with a mean of 60 tokens and a longest of 240, three quarters of what
transformers' own loop computes is padding. The distribution of the samples is the same; the random numbers fall
differently. Plugs into `generate(custom_generate=...)`
(https://huggingface.co/docs/transformers/generation_strategies#custom-generation-methods).
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from mini_r1.generation.cache import give_room
from mini_r1.generation.distinct import distinct_prompts
from mini_r1.generation.grouped import grouped_attention

SHRINK_AT = 0.125  # share of the batch that has to have ended before it is made smaller, which copies the cache


@torch.no_grad()
@grouped_attention()
def decode_without_ended(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    share_prompts: bool = False,
    **model_kwargs: Any,
) -> Tensor:
    """What `generate` calls once it has prepared everything: sampling, or greedy decoding without `do_sample`.

    Args:
        input_ids: prompts, left-padded, (sequences, prompt length).
        share_prompts: read a prompt once for all the sequences that begin with it.
        model_kwargs: attention_mask of the same shape, past_key_values (an empty dynamic cache), and others of no use.

    Raises:
        FloatingPointError: if the model gives NaN or infinite scores.

    Returns:
        prompts and completions, right-padded, (sequences, prompt length + longest completion).
    """
    cache, mask = model_kwargs["past_key_values"], model_kwargs["attention_mask"]
    give_room(cache)
    pad = generation_config.pad_token_id
    texts, new = input_ids, input_ids  # of the rows still in the batch: all so far, and what the model has not read
    rows = torch.arange(len(input_ids), device=input_ids.device)  # where they belong in the output
    ended = torch.zeros_like(rows, dtype=torch.bool)
    if share_prompts and input_ids.shape[1] > 1:
        _read_prompts(model, input_ids[:, :-1], mask[:, :-1], cache)
        new = input_ids[:, -1:]
    finished: list[tuple[Tensor, Tensor]] = []  # (rows, texts)
    while len(rows):
        logits = _read(model, new, mask, cache)
        scores = cast(Any, logits_processor)(texts, logits.float())
        if not scores.amax(-1).isfinite().all():  # on a GPU, sampling from these would end the whole process
            raise FloatingPointError("the policy's probabilities are not finite (NaN or infinite)")
        chosen = torch.multinomial(scores.softmax(-1), 1) if generation_config.do_sample else scores.argmax(-1, True)
        new = chosen.masked_fill(ended[:, None], pad)
        texts = torch.cat([texts, new], dim=1)
        mask = torch.cat([mask, (~ended)[:, None].to(mask.dtype)], dim=1)
        ended = ended | stopping_criteria(texts, None)
        if ended.all() or ended.sum() >= max(1, SHRINK_AT * len(rows)):
            left = ~ended
            finished.append((rows[ended], texts[ended]))
            rows, texts, new, mask, ended = (tensor[left] for tensor in (rows, texts, new, mask, ended))
            cache.batch_select_indices(left.nonzero().squeeze(1))
    output = input_ids.new_full((len(input_ids), max(text.shape[1] for _, text in finished)), pad)
    for where, text in finished:
        output[where, : text.shape[1]] = text
    return output


def _read(model: PreTrainedModel, new: Tensor, mask: Tensor, cache: Cache) -> Tensor:
    """Let the model read new tokens, (rows, tokens); the logits after the last of them, (rows, vocabulary)."""
    outputs = model(
        input_ids=new,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cast(Tensor, outputs.logits[:, -1])


def _read_prompts(model: PreTrainedModel, prompts: Tensor, mask: Tensor, cache: Cache) -> None:
    """Fill an empty cache with the prompts of all rows, of which each is read once."""
    distinct, counted, which = distinct_prompts(prompts, mask)
    _read(model, distinct, counted, cache)
    cache.batch_select_indices(which)
