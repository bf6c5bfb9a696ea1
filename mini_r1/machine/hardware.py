"""A short description of this machine, for records and pages."""

import platform
from pathlib import Path

import torch


def hardware() -> str:
    """The machine in a few words: GPUs if training used them, else the processor and its threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads, no GPU"
