"""The sizes of a model, known without its weights: from its config.json, or the one published for a recipe's model.

Parameters are counted on the model that transformers builds from the configuration on the `meta` device, so they are
exact for every architecture that it knows.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from trl import ModelConfig, get_peft_config

# config.json of https://huggingface.co/Qwen/Qwen2.5-* and Qwen3-*, so that the recipes' memory is known offline, too:
# (model_type, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size,
# tied)
_PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2.5-3B": ("qwen2", 2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-3B-Instruct": ("qwen2", 2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen/Qwen3-1.7B-Base": ("qwen3", 2048, 6144, 28, 16, 8, 151936, True),
}
_PUBLISHED_POSITIONS = 32768


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What memory depends on; counts are parameters.

    Attributes:
        parameters: all of the model, tied ones once.
        linear: those in the linear layers inside the decoder, which 4-bit and 8-bit loading store in few bits.
        layer: those of one decoder layer.
        adapter: those of the LoRA adapter; 0 without one.
        hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, positions: as in the configuration.
    """

    parameters: int
    linear: int
    layer: int
    adapter: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int

    @property
    def kv_elements_per_token(self) -> int:
        """Keys and values that one token leaves in the cache, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def load_config(model: ModelConfig, trust_remote_code: bool = False) -> tuple[PretrainedConfig, str | None]:
    """Load the configuration of the recipe's model.

    Returns:
        the configuration, and why it is the published one instead of the model's own, if it is.

    Raises:
        OSError, ValueError: if the model's own can't be had and none is published here; the message is transformers'.
    """
    name = str(model.model_name_or_path)
    try:
        revision = model.model_revision
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code), None
    except (OSError, ValueError) as error:
        if name not in _PUBLISHED:
            raise
        return published_config(name), str(error).strip().splitlines()[0]


def published_config(name: str) -> PretrainedConfig:
    """The configuration of one of the recipes' models as published, for its sizes only."""
    kind, hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = _PUBLISHED[name]
    return AutoConfig.for_model(
        kind,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=_PUBLISHED_POSITIONS,
    )


def measure_shape(config: PretrainedConfig, model: ModelConfig | None = None) -> ModelShape:
    """Count the parameters that a configuration makes, without making them.

    Args:
        config: of a decoder-only language model.
        model: the recipe's, for its LoRA adapter.

    Raises:
        ValueError: if transformers can't build a causal language model from it, or LoRA finds nothing to adapt.
    """
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(config)
        network.tie_weights()
        parameters, linear, layer = _count(network), _count_linear(network), _count(_decoder_layers(network)[0])
        lora: Any = get_peft_config(model) if model is not None else None
        adapter = _count(get_peft_model(network, lora), trainable=True) if lora is not None else 0
    text = config.get_text_config()
    return ModelShape(
        parameters=parameters,
        linear=linear,
        layer=layer,
        adapter=adapter,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        positions=getattr(text, "max_position_embeddings", None) or 0,
    )


def _count(module: torch.nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _count_linear(network: PreTrainedModel) -> int:
    """Weights of all linear layers but the head, which bitsandbytes leaves as it is."""
    head: Any = network.get_output_embeddings()
    linears = (m for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    return sum(linear.weight.numel() for linear in linears)


def _decoder_layers(network: torch.nn.Module) -> torch.nn.ModuleList:
    """The longest list of modules: the decoder's layers."""
    lists = [module for module in network.modules() if isinstance(module, torch.nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(network).__name__} has no list of decoder layers: its memory can't be estimated")
    return max(lists, key=len)


def keeps_every_token(config: PretrainedConfig) -> bool:
    """Whether each layer keeps keys and values of all tokens, as those with a sliding window or a state do not."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
