"""Who generates a run's completions, and on which GPUs, according to its recipe. This module imports quickly."""

from typing import Literal, Protocol

GpuIds = str | list[str] | None  # as a recipe gives them: "2,3", ["2", "3"], or none
Generation = Literal["own server", "other server", "colocate", "transformers"]
NO_HOST = "0.0.0.0"  # vllm_server_host where a recipe names none, as in TRL


class GenerationKeys(Protocol):
    """The keys of GRPOConfig that decide."""

    use_vllm: bool
    vllm_mode: str
    vllm_server_base_url: str | None
    vllm_server_host: str


def generation_kind(training: GenerationKeys) -> Generation:
    """Who generates: a vLLM server of our own or somebody else's, vLLM inside the training process, transformers."""
    if not training.use_vllm:
        return "transformers"
    if training.vllm_mode == "colocate":
        return "colocate"
    named = training.vllm_server_base_url is not None or training.vllm_server_host != NO_HOST
    return "other server" if named else "own server"


def generation_gpu_ids(vllm_gpus: GpuIds) -> list[str]:
    """Split the recipe's key: "2,3" names two GPUs; None none, which means the last visible one."""
    text = vllm_gpus if isinstance(vllm_gpus, str) else ",".join(vllm_gpus or [])
    return [part.strip() for part in text.split(",") if part.strip()]
