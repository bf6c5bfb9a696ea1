"""Tokenizers and chat templates of the shapes that published models have, built here: nothing is downloaded.

The tokenizers are byte-level and without merges, so that any text survives the round trip; a test spoils one on
purpose. TRL's package brings the templates of many families, which are read from where it is installed; the others are
written here after their families' behaviour.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PUBLISHED = {
    path.stem: path
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
BOS, EOS = "<s>", "</s>"
# What Qwen2.5's own template does with messages and no tools, its default system prompt included.
CHATML = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Llama 3's: writes the BOS token, trims every message.
LLAMA = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}"
    "{{- '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
# Mistral 7B v0.1 and v0.2: no system role, turns in turn, no generation prompt.
MISTRAL = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate user/assistant/user/...') }}{%- endif %}"
    "{%- if message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}"
    "{%- else %}{{- message.content + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
# Mistral v0.3: the system text goes in front of the last user's.
MISTRAL_V3 = (
    "{{- bos_token }}{%- set system = '' %}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content + '\\n\\n' %}"
    "{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}"
    "{{- '[INST] ' + (system if loop.index0 >= (messages | length) - 2 else '') + message.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
# Zephyr's and TinyLlama's.
ZEPHYR = (
    "{%- for message in messages %}"
    "{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)


# Qwen3's: an empty thinking block before the last answer, and where the model is told not to think.
QWEN3 = (
    "{%- set last = namespace(question=0) %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}"
    "{%- endfor %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{{- '<think>\\n\\n</think>\\n\\n' if loop.index0 > last.question }}"
    "{{- message.content.split('</think>')[-1] | trim }}"
    "{%- else %}{{- message.content }}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
# Llama 3.2's: there is always a system message, and it begins with the date.
LLAMA_DATED = (
    "{{- bos_token }}"
    "{%- set system, others = '', messages %}"
    "{%- if messages[0].role == 'system' %}{%- set system, others = messages[0].content, messages[1:] %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday is ' + strftime_now('%d %b %Y') + '.\\n\\n' }}"
    "{{- system | trim + '<|eot_id|>' }}"
    "{%- for message in others %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
# Gemma 2's: refuses a system message, calls the assistant model.
GEMMA = (
    "{{- bos_token }}"
    "{%- if messages[0].role == 'system' %}{{- raise_exception('there is no system role') }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}"
    "{{- message.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
# DeepSeek-R1-Distill's: takes the thinking out of answers, and opens it for the model.
R1_DISTILL = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'assistant' %}"
    "{{- '<｜Assistant｜>' + message.content.split('</think>')[-1] + eos_token }}"
    "{%- else %}{{- ('<｜User｜>' if message.role == 'user' else '') + message.content }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"
)
# GLM 4.5's: nothing but the next turn ends one; the user's says that the model is not to think.
GLM = (
    "{{- '[gMASK]<sop>' }}"
    "{%- set quiet = enable_thinking is defined and not enable_thinking %}"
    "{%- for message in messages %}"
    "{{- '<|' + message.role + '|>\\n' }}"
    "{%- if message.role == 'assistant' %}{{- '<think></think>\\n' }}{%- endif %}"
    "{{- message.content + ('/nothink' if quiet and message.role == 'user' else '') }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' + ('\\n<think></think>' if quiet else '') }}{%- endif %}"
)


def byte_level(special: Sequence[str], plain: Sequence[str] = ()) -> Tokenizer:
    """One token per byte, per special token and per plain token added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return tokenizer


def chat_tokenizer(
    template: str | dict[str, str] | None,
    *,
    special: Sequence[str] = (),
    plain: Sequence[str] = (),
    bos: str | None = BOS,
    eos: str = EOS,
    around: str = "$A",
) -> PreTrainedTokenizerFast:
    """A tokenizer with a chat template that puts special tokens around a text as `around` says."""
    names = list(dict.fromkeys([*([bos] if bos else []), eos, *special]))
    backend = byte_level(names, plain)
    ids = [(name, backend.token_to_id(name)) for name in names]
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=eos, chat_template=template
    )


def qwen_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def llama_tokenizer(template: str = LLAMA, around: str = "<|begin_of_text|> $A") -> PreTrainedTokenizerFast:
    special = ["<|start_header_id|>", "<|end_header_id|>"]
    return chat_tokenizer(template, special=special, bos="<|begin_of_text|>", eos="<|eot_id|>", around=around)


class Family(NamedTuple):
    """A family of models: its chat template with the special tokens that it writes.

    Attributes:
        header: what stands between the user's text and the assistant's.
        bos: the token that the template or the tokenizer puts in front, if there is one.
        adds_bos: whether the tokenizer puts it there.
    """

    template: str | None
    header: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    adds_bos: bool = False

    def tokenizer(self) -> PreTrainedTokenizerFast:
        around = f"{self.bos} $A" if self.adds_bos else "$A"
        return chat_tokenizer(self.template, special=self.special, bos=self.bos, eos=self.eos, around=around)


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TO_QWEN, TO_LLAMA = (
    "<|im_end|>\n<|im_start|>assistant\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
)
# As their instruction-tuned models are published, but for the words of the templates.
FAMILIES = {
    "Qwen2.5": Family(CHATML, TO_QWEN, IM, "<|im_end|>"),
    "Qwen3": Family(QWEN3, TO_QWEN, IM, "<|im_end|>"),
    "Llama 3.1": Family(LLAMA, TO_LLAMA, HEADERS, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True),
    "Llama 3.2": Family(LLAMA_DATED, TO_LLAMA, HEADERS, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True),
    "Gemma": Family(
        *(GEMMA, "<end_of_turn>\n<start_of_turn>model\n", ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>", True)
    ),
    "Mistral 7B v0.1": Family(MISTRAL, " [/INST]", (), EOS, BOS, adds_bos=True),
    "Mistral 7B v0.3": Family(MISTRAL_V3, "[/INST] ", ("[INST]", "[/INST]"), EOS, BOS, adds_bos=True),
    "R1-Distill": Family(
        *(R1_DISTILL, "<｜Assistant｜>", ("<｜User｜>", "<｜Assistant｜>")),
        *("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", True),
    ),
    "GLM": Family(
        *(GLM, "<|assistant|>", ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"), "<|endoftext|>")
    ),
}
