"""Which attention a model is loaded with if the recipe's choice is not installed.

FlashAttention 2 comes in two ways: the package flash-attn, a source build that needs nvcc, and a finished build on the
Hub, which transformers loads by its name with the package kernels. Without either, PyTorch's own attention does.
"""

from importlib.util import find_spec

import torch
from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_FALLBACK
from transformers.utils.import_utils import KERNELS_MAX_VERSION, KERNELS_MIN_VERSION, is_flash_attn_2_available

FLASH = "flash_attention_2"
FLASH_FROM_HUB: str = FLASH_ATTN_KERNEL_FALLBACK[FLASH]
KERNELS = f"kernels>={KERNELS_MIN_VERSION},<{KERNELS_MAX_VERSION}"  # what transformers takes


def attention_implementation(wanted: str | None) -> tuple[str | None, str | None]:
    """The attention to load the model with, and a line to log if it is not the one wanted."""
    if wanted not in (FLASH, FLASH_FROM_HUB) or (wanted == FLASH and find_spec("flash_attn") is not None):
        return wanted, None
    if hub_build_is_here():
        note = f"flash-attn is not installed: using its build {FLASH_FROM_HUB} from the Hub (the same attention)"
        return FLASH_FROM_HUB, note if wanted == FLASH else None
    missing = "flash-attn is not installed" if wanted == FLASH else f"{FLASH_FROM_HUB} can't be loaded here"
    return "sdpa", (
        f"{missing}: using PyTorch's sdpa attention (same results, a little slower); "
        f"`pip install '{KERNELS}'` gets a finished build on a machine with a GPU"
    )


def hub_build_is_here() -> bool:
    """Whether the Hub's build can be loaded: a GPU, the package kernels, and a build for this PyTorch.

    The first call downloads the build; a machine without a GPU asks nobody.
    """
    return torch.cuda.is_available() and is_flash_attn_2_available(kernels_fallback_ok=True)
