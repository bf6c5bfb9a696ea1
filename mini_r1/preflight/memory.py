"""How much memory a GRPO step takes on one training GPU, item by item, before any of it is allocated.

Weights, gradients and optimizer as in ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1 and figure 1):
2 + 2 + 12 bytes per parameter in mixed precision with Adam, each divided over the processes from stage 3, 2 and 1 on.
Activations as counted by Korthikanti et al. 2022 (arXiv:2205.05198, section 4), tensor by tensor for a decoder with
RMSNorm, grouped-query attention and a gated MLP, without the attention matrix, which sdpa and flash-attn never store;
with gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) one residual per layer and one layer in full.
Logits as trl 1.16 computes them (trl/kernels/chunked_logprob.py): tile by tile, with the head's gradient in float32.
`benchmarks/memory_model.py` compares the sum with measured peaks.
"""

from dataclasses import dataclass
from typing import Literal

from trl import GRPOConfig, ModelConfig

from mini_r1.machine.gpus import generation_kind, uses_gpus
from mini_r1.machine.launch import Launch
from mini_r1.policy.shape import ModelShape
from mini_r1.recipe.arguments import ScriptArguments

Phase = Literal["always", "forward and backward", "optimizer step", "generation"]

# trl 1.16: TOKEN_CHUNK_SIZE in kernels/chunked_logprob.py, _CHUNKED_LOGPROB_CHUNK_SIZE in trainer/utils.py.
LOGITS_TOKENS, LOGITS_VOCABULARY = 4096, 32768
# DeepSpeed's defaults (runtime/zero/config.py), in elements; accelerate's plugin leaves them.
REDUCE_BUCKET, LIVE_PARAMETERS, SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000
# CUDA context, cuBLAS workspaces and NCCL buffers, as nvidia-smi shows them beside PyTorch's own: a round figure.
CUDA_OVERHEAD = 1_500_000_000
# NF4: 4 bits and, per block of 64, an fp32 scale, itself in 8 bits per block of 256 if nested (Dettmers et al. 2023,
# arXiv:2305.14314, section 3): bytes per parameter.
NF4, NF4_NESTED, INT8 = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / (64 * 256), 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """One part of the memory: bytes on one GPU, in which phase, and how it is counted."""

    name: str
    size: float
    how: str
    phase: Phase = "always"


@dataclass(frozen=True, slots=True)
class Step:
    """The parts of a recipe that determine memory.

    Attributes:
        micro_batch: completions that a GPU computes at a time.
        prompt, completion: their longest, in tokens.
        shared_prompts: prompts that pass through the layers for all completions of a micro-batch; None: one for each.
        weight_bytes: of a parameter as loaded: 4 for float32, 2 for bfloat16.
        compute_bytes: of a number in a matrix product: 2 under bf16 or fp16.
        checkpointing: gradient checkpointing.
        reference: a frozen copy of the model is held for the KL term.
        lora: only an adapter is trained.
        linear_bytes: of a parameter in a linear layer of a quantised model; None: as `weight_bytes`.
        optimizer_bytes: Adam's two moments per trained parameter; 2 for 8-bit Adam, 0 for plain SGD.
        generated: completions that a GPU generates at a time with transformers; 0 if vLLM does it.
        vllm_share: of the GPU, held by vLLM inside the training process (colocate); 0 otherwise.
        vllm_sleeps: vLLM gives its share back while training.
        on_gpu: whether a CUDA context is there.
        triton: the GPU kernels of TRL, which score only completion tokens and need no float32 copies of a tile.
    """

    micro_batch: int
    prompt: int
    completion: int
    shared_prompts: int | None = None
    weight_bytes: int = 4
    compute_bytes: int = 2
    checkpointing: bool = True
    reference: bool = False
    lora: bool = False
    linear_bytes: float | None = None
    optimizer_bytes: int = 8
    generated: int = 0
    vllm_share: float = 0.0
    vllm_sleeps: bool = False
    on_gpu: bool = True
    triton: bool = True

    @property
    def tokens(self) -> int:
        """The longest sequence."""
        return self.prompt + self.completion

    @property
    def computed(self) -> int:
        """Tokens of a micro-batch that pass through the layers."""
        prompts = self.micro_batch if self.shared_prompts is None else self.shared_prompts
        return self.micro_batch * self.completion + prompts * self.prompt


def step_of(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> Step:
    """The parts of a recipe that determine memory."""
    bits = bool(model.load_in_4bit or model.load_in_8bit)
    linear = (NF4_NESTED if model.use_bnb_nested_quant else NF4) if model.load_in_4bit else INT8
    mixed = bool(training.fp16 or training.bf16 in (True, None))
    weights = 2 if model.dtype in ("bfloat16", "float16") else 4
    generation = generation_kind(training)
    optimizer = str(getattr(training.optim, "value", training.optim))
    micro, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    at_a_time = micro * (training.steps_per_generation or accumulation)
    share = float(training.vllm_gpu_memory_utilization) if generation == "colocate" else 0.0
    return Step(
        micro_batch=micro,
        prompt=script.max_prompt_length,
        completion=int(training.max_completion_length or 0),
        shared_prompts=_shared_prompts(script, training),
        weight_bytes=weights,
        compute_bytes=2 if mixed else weights,
        checkpointing=bool(training.gradient_checkpointing),
        reference=training.beta != 0,
        lora=bool(model.use_peft),
        linear_bytes=linear if bits else None,
        optimizer_bytes=0 if optimizer == "sgd" else 2 if "8bit" in optimizer else 8,
        generated=at_a_time if generation == "transformers" and script.method == "grpo" else 0,
        vllm_share=share,
        vllm_sleeps=bool(training.vllm_enable_sleep_mode),
        on_gpu=uses_gpus(training),
        triton=uses_gpus(training),
    )


def _shared_prompts(script: ScriptArguments, training: GRPOConfig) -> int | None:
    """The most prompts that a micro-batch can have; None: as many as it has completions."""
    several_updates = (training.steps_per_generation or 0) > training.gradient_accumulation_steps
    if not script.share_prompts or several_updates:  # each of which has only some completions of a group
        return None
    completions, group = training.per_device_train_batch_size, int(training.num_generations or 1)
    is_even = max(completions, group) % min(completions, group) == 0
    return min(completions, -(-completions // group) + (not is_even))


def training_items(shape: ModelShape, step: Step, launch: Launch, capacity: int) -> list[Item]:
    """Itemise the memory of one training process, in bytes.

    Args:
        shape: of the model.
        step: of the recipe.
        launch: divides weights, gradients and optimizer.
        capacity: of the GPU, which vLLM takes a share of in colocate mode.
    """
    items = [*_model_items(shape, step, launch), *_batch_items(shape, step, launch)]
    if step.on_gpu:
        items.append(Item("CUDA context", CUDA_OVERHEAD, "context, cuBLAS and NCCL buffers"))
    if step.vllm_share:
        phase: Phase = "generation" if step.vllm_sleeps else "always"
        how = f"{step.vllm_share:.0%} of the GPU for vLLM's weights and KV cache"
        items.append(Item("vLLM", step.vllm_share * capacity, how, phase))
    if step.generated:
        tokens = step.generated * (step.prompt + step.completion)
        size = tokens * shape.kv_elements_per_token * step.compute_bytes
        items.append(Item("KV cache", size, f"{step.generated} completions of {step.tokens} tokens", "generation"))
    return [item for item in items if item.size]


def peak(items: list[Item]) -> float:
    """Bytes at the worst moment: what is always there and the largest phase."""
    phases: dict[str, float] = {}
    for item in items:
        phases[item.phase] = phases.get(item.phase, 0.0) + item.size
    always = phases.pop("always", 0.0)
    return always + max(phases.values(), default=0.0)


def _model_items(shape: ModelShape, step: Step, launch: Launch) -> list[Item]:
    """Weights, gradients, optimizer and reference model: what does not depend on the batch."""
    deepspeed = launch.engine == "deepspeed"
    share = {level: launch.processes if launch.zero_stage >= level else 1 for level in (1, 2, 3)}
    trained = shape.adapter if step.lora else shape.parameters
    # DeepSpeed casts the model, autocast each matrix, and PEFT makes adapters float32.
    held = step.compute_bytes if deepspeed else 4 if step.lora else step.weight_bytes
    per_linear = step.linear_bytes if step.linear_bytes is not None else step.weight_bytes
    frozen = shape.linear * per_linear + (shape.parameters - shape.linear) * step.weight_bytes if step.lora else 0.0
    weights = frozen + trained * held
    items = [Item("weights", 0 if launch.offload_weights else weights / share[3], _weights_how(step, held, share[3]))]
    gradients = f"{held} B per trained parameter{_over(share[2])}"
    items.append(Item("gradients", trained * held / share[2], gradients))
    # Without DeepSpeed the float32 weights are the master weights; DeepSpeed keeps those beside its own in bf16.
    master = 4 if deepspeed else 0
    optimizer = 0.0 if launch.offload_optimizer else trained * (step.optimizer_bytes + master) / share[1]
    parts = f"{step.optimizer_bytes} B of Adam moments" + (f" + {master} B master weight" if master else "")
    items.append(Item("optimizer", optimizer, f"{parts} per trained parameter{_over(share[1])}"))
    if step.reference and not step.lora:
        items.append(Item("reference model", weights / share[3], f"for beta > 0, as the weights{_over(share[3])}"))
    if launch.engine == "ddp":
        items.append(Item("DDP buckets", trained * held, "a second copy of the gradients"))
    return items


def _weights_how(step: Step, held: int, share: int) -> str:
    if step.lora and step.linear_bytes is not None:
        return f"{step.linear_bytes:.2f} B per parameter of a linear layer, {step.weight_bytes} B of the others"
    if step.lora:
        return f"{step.weight_bytes} B per frozen parameter, {held} B of the adapter's{_over(share)}"
    return f"{held} B per parameter{_over(share)}"


def _over(share: int) -> str:
    return f", over {share} GPUs" if share > 1 else ""


def _batch_items(shape: ModelShape, step: Step, launch: Launch) -> list[Item]:
    """Activations, logits and what the engine needs to move weights and gradients."""
    trains: Phase = "forward and backward"
    kept = "a residual per layer, one layer in full" if step.checkpointing else "all layers in full"
    completions = f"{step.micro_batch} completions of {step.tokens} tokens, {kept}"
    if step.shared_prompts is not None:
        completions = (
            f"{step.micro_batch} completions of {step.completion} tokens and {step.shared_prompts} prompts of "
            f"{step.prompt}, {kept}"
        )
    return [
        Item("activations", activations(shape, step, launch), completions, trains),
        Item("logits", logits(shape, step), "a tile of them, and the head's gradient in float32", trains),
        *engine_buffers(shape, step, launch),
    ]


def activations(shape: ModelShape, step: Step, launch: Launch) -> float:
    """Bytes that the backward pass needs of the forward pass, and of its own gradients in one layer."""
    attention = shape.heads * shape.head_dim
    compute = step.compute_bytes
    residual = compute if launch.engine == "deepspeed" else step.weight_bytes  # autocast leaves it as the embeddings
    # Per token and layer: two residuals, two normalised and two scaled ones; query, key and value (both repeated for
    # all heads), the attention's output and its copy for the projection; gate, its activation, up, and their product.
    kept = (4 * shape.hidden) * residual + (2 * shape.hidden + 5 * attention + 4 * shape.intermediate) * compute
    # The gradients of the MLP's inner tensors are there while its inputs still are.
    passing = (shape.hidden * residual) + 2 * shape.intermediate * compute
    full = shape.layers if not step.checkpointing else 1
    stream = shape.layers * shape.hidden * residual if step.checkpointing else 0
    return float(step.computed * (full * kept + passing + stream))


def logits(shape: ModelShape, step: Step) -> float:
    """Bytes of the head's forward and backward: a tile of logits, and the gradients that it adds up in float32."""
    only_completions = step.triton or step.shared_prompts is not None
    scored = step.micro_batch * (step.completion if only_completions else step.tokens)
    tile = min(scored, LOGITS_TOKENS) * min(shape.vocabulary, LOGITS_VOCABULARY) * step.compute_bytes
    copies = 1 if step.triton else 4  # without Triton, softmax and gradient are float32 tensors beside the tile
    hidden = scored * shape.hidden * (4 + step.compute_bytes)
    head = 0 if step.lora else shape.vocabulary * shape.hidden * 4
    return float(tile * copies + hidden + head)


def engine_buffers(shape: ModelShape, step: Step, launch: Launch) -> list[Item]:
    """What DeepSpeed and FSDP hold to gather weights and reduce gradients."""
    trains: Phase = "forward and backward"
    trained = shape.adapter if step.lora else shape.parameters
    if launch.engine == "deepspeed" and launch.zero_stage:
        bucket = min(trained, REDUCE_BUCKET) * step.compute_bytes
        items = [Item("reduce bucket", bucket, f"{REDUCE_BUCKET:.0e} gradients on their way")]
        if launch.zero_stage == 3:
            live = min(shape.parameters, LIVE_PARAMETERS) * step.compute_bytes
            items.append(Item("gathered weights", live, f"at most {LIVE_PARAMETERS:.0e} parameters at a time", trains))
        shard = min(trained / launch.processes, SUB_GROUP) * 4
        if not launch.offload_optimizer:
            items.append(Item("float32 gradients", shard, "of the share that is updated", "optimizer step"))
        return items
    if launch.engine == "fsdp":
        head = shape.vocabulary * shape.hidden
        return [Item("gathered weights", (2 * shape.layer + head) * 4, "two layers and the head at a time", trains)]
    return []


def server_items(shape: ModelShape, tensor_parallel: int, capacity: int, utilization: float, step: Step) -> list[Item]:
    """Itemise one GPU of the generation server, which takes `utilization` of it: weights, and KV cache in the rest."""
    weights = shape.parameters * step.compute_bytes / tensor_parallel
    room = max(0.0, capacity * utilization - weights - CUDA_OVERHEAD)
    cache = f"{kv_tokens(shape, room * tensor_parallel, step):,} tokens at a time".replace(",", " ")
    return [
        Item("weights", weights, f"{step.compute_bytes} B per parameter{_over(tensor_parallel)}"),
        Item("KV cache", room, f"what {utilization:.0%} of the GPU leaves: {cache}"),
        Item("CUDA context", CUDA_OVERHEAD, "context and workspaces"),
    ]


def kv_tokens(shape: ModelShape, room: float, step: Step) -> int:
    """How many tokens' keys and values fit into `room` bytes."""
    return int(room / (shape.kv_elements_per_token * step.compute_bytes))
