"""The tiny policy's tokenizer: one token per integer, per sign and per fixed sentence of the prompt.

It is a Qwen2 tokenizer in Qwen2.5's ChatML format, so that loading, prompts, prefill and training take the same path as
with the 3B model; but the English of the R1 prompt, which a 1 M parameter model can't and needn't read, costs one token
a sentence. Other printable ASCII falls back to single characters; anything else is dropped.
"""

import re
import string

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer

from mini_r1.tasks.countdown.task import USER_PROMPT
from mini_r1.tasks.countdown.thinking import OPENER
from mini_r1.tasks.task import ASSISTANT_PREFILL, SYSTEM_PROMPT

LARGEST_NUMBER = 200
PAD, START, END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
SIGNS = (" + ", " - ", " * ", " / ", " = ", ", ", " yes\n", " no\n")
ROLES = ("system\n", "user\n", "assistant\n")

# What Qwen2.5's template renders for messages without tools: https://arxiv.org/abs/2412.15115, ChatML.
CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def _prompt_sentences() -> list[str]:
    """The constant pieces of the R1 prompt, cut at the places where the numbers and the target go in."""
    user = re.split(r"\{\w+\}", USER_PROMPT)
    # str(list) writes its own brackets; the tags keep tokens of their own.
    user = [user[0] + "[", "]" + user[1], *user[2:]]
    return [s for s in (SYSTEM_PROMPT, *user, ASSISTANT_PREFILL.removesuffix("<think>")) if s]


def build_tokenizer() -> Qwen2Tokenizer:
    """Build it from scratch; deterministic, nothing is learned and nothing is downloaded."""
    numbers = [str(n) for n in range(LARGEST_NUMBER + 1)]
    pieces = [*_prompt_sentences(), *ROLES, *TAGS, *SIGNS, f"{OPENER}\n"]
    characters = [*string.printable[:95], "\n"]
    words = list(dict.fromkeys([PAD, START, END, UNKNOWN, *numbers, *pieces, *characters]))
    tokenizer = Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[],
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHATML_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    # An added token is matched as a whole, the longest first, before any byte-pair encoding.
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False) for word in words if word not in tokenizer.all_special_tokens]
    )
    return tokenizer
