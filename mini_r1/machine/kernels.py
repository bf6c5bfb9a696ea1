"""Which kernels compute `sdpa` attention on a GPU: all of PyTorch's but cuDNN's."""

import torch


def leave_out_cudnn() -> None:
    """Have PyTorch compute attention without cuDNN's kernels from now on, in this process.

    On an H100 or H200 PyTorch takes them first wherever there is a mask, as left-padded prompts need one. Some of their
    gradients are NaN, at lengths that are an odd multiple of 64 (https://github.com/pytorch/pytorch/issues/196678),
    and they prepare a plan for each new length, so for each new token. Both are in benchmarks/results/attention.md.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
