"""Applies the patches of `gloo_weights` and `rank_notes` when their modules are first imported, at Python's start."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def _patch_client(module: ModuleType) -> None:
    import gloo_weights

    gloo_weights.patch_client(module)


def _patch_generation(module: ModuleType) -> None:
    import gloo_weights

    gloo_weights.patch_generation(module)


def _patch_deepspeed(module: ModuleType) -> None:
    import gloo_weights

    gloo_weights.patch_deepspeed(module)


def _note_rank(module: ModuleType) -> None:
    import rank_notes

    rank_notes.note_at_exit(module)


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "trl.generation.vllm_client": _patch_client,
    "trl.generation.vllm_generation": _patch_generation,
    "deepspeed.ops": _patch_deepspeed,
    "accelerate.state": _note_rank,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of `PATCHES` as usual, and patches each once it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader: Any = spec and spec.loader
        if loader:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                PATCHES[name](module)

            loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _AfterImport())
