"""Stands in for NCCL, in tests only: the weight transfer of vLLM and TRL over gloo, on a machine without a GPU.

With this folder on PYTHONPATH, vLLM finds `register` as a plugin (the entry point in the .dist-info beside this file,
which also tells vLLM's command line its version under the name `vllm`), and `sitecustomize` calls `patch_client` and
`patch_deepspeed` in the processes that train. HTTP, the order of messages and the tensors are those of a GPU node.
"""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=120)


class GlooCommunicator:
    """The part of vLLM's PyNcclCommunicator that weight transfer uses."""

    def __init__(self, host: str, port: int, rank: int, world_size: int) -> None:
        self.store = dist.TCPStore(host, port, world_size, is_master=rank == 0, timeout=TIMEOUT)
        self.process_group: Any = dist.ProcessGroupGloo(self.store, rank, world_size, TIMEOUT)
        self.group = self  # TRL closes a communicator through `.group.store` and `.group.socket`

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = src, 0
        self.process_group.broadcast([tensor], options).wait()


def register() -> None:
    """The plugin: runs in every process of vLLM, also when that is colocated with the trainer."""
    import vllm.distributed.weight_transfer.nccl_engine as engine
    import vllm.model_executor.layers.utils as layers

    def plain_linear(layer: Any, remove_weight: bool) -> None:
        """No packing of weights for the CPU, so that they can be replaced in place, as on a GPU."""
        layer.cpu_linear = torch.nn.functional.linear

    def consume(iterator: Iterator[Any], group: Any, src: int, post_unpack_func: Callable[..., Any], **_: Any) -> None:
        for name, (shape, dtype) in iterator:
            tensor = torch.empty(shape, dtype=dtype)
            group.broadcast(tensor, src)
            post_unpack_func([(name, tensor)])

    def join(info: Any, parallel: Any) -> GlooCommunicator:
        rank = parallel.data_parallel_index * parallel.world_size + parallel.rank + info.rank_offset
        return GlooCommunicator(info.master_address, info.master_port, rank, info.world_size)

    layers.dispatch_cpu_unquantized_gemm = plain_linear
    engine.packed_nccl_broadcast_consumer = consume
    engine.worker_init_process_group = join


def patch_client(client: Any) -> None:
    """Have `trl.generation.vllm_client` open a gloo group, and send the weights one by one."""

    def produce(iterator: Iterator[Any], group: Any, src: int, post_iter_func: Callable[[Any], Any], **_: Any) -> None:
        for item in iterator:
            group.broadcast(post_iter_func(item).contiguous(), src)

    def open_endpoint(info: dict[str, Any]) -> GlooCommunicator:
        return GlooCommunicator(info["master_address"], info["master_port"], 0, info["world_size"])

    init = client.VLLMClient.init_communicator
    client.open_trainer_endpoint = open_endpoint
    client.packed_nccl_broadcast_producer = produce
    # TRL refuses any device but CUDA; one without an index is only checked for its type.
    client.VLLMClient.init_communicator = lambda self, device=0: init(self, "cuda")


def patch_generation(generation: Any) -> None:
    """With MINI_R1_TEST_NO_SYNC=1 no weight is ever sent: for the tests that stale weights are noticed."""
    if os.environ.get("MINI_R1_TEST_NO_SYNC") == "1":
        generation.VLLMGeneration.sync_weights = lambda self: None


def patch_deepspeed(ops: Any) -> None:
    """Do without DeepSpeed's shared-memory collectives, which take two minutes to compile on first use."""
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
