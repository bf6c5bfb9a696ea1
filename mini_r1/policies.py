"""Loading a policy to look at it rather than to train it: a folder or a Hub id, a whole model or an adapter."""

from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        ValueError: if there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load the tokenizer of {model!r}: {error}") from error


def load_model(model: str) -> PreTrainedModel:
    """Load a model on the GPU in its own precision, or on the CPU in float32.

    Raises:
        ValueError: if there is none.
    """
    device, dtype = ("cuda", "auto") if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load the model {model!r}: {error}") from error
    return cast(Any, loaded).to(device)
