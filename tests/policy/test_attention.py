"""Which attention a model gets: the package, the Hub's finished build, or PyTorch's own."""

import importlib.metadata
import re

import pytest
import torch
from packaging.requirements import Requirement

from mini_r1.policy import attention
from mini_r1.policy.attention import FLASH, FLASH_FROM_HUB, KERNELS, attention_implementation


@pytest.mark.parametrize(
    ("wanted", "package", "build", "used", "said"),
    [
        (FLASH, True, False, FLASH, None),
        (FLASH, True, True, FLASH, None),
        (FLASH, False, True, FLASH_FROM_HUB, "flash-attn is not installed: using its build"),
        (FLASH, False, False, "sdpa", "flash-attn is not installed: using PyTorch's sdpa"),
        (FLASH_FROM_HUB, True, True, FLASH_FROM_HUB, None),
        (FLASH_FROM_HUB, True, False, "sdpa", "kernels-community/flash-attn2 can't be loaded here"),
        *(
            (other, False, False, other, None)
            for other in ("sdpa", "eager", "flash_attention_3", "someone/kernel", None)
        ),
    ],
)
def test_the_best_that_is_there_is_used(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, package: bool, build: bool, used: str | None, said: str | None
) -> None:
    monkeypatch.setattr(attention, "find_spec", lambda name: object() if package else None)
    monkeypatch.setattr(attention, "hub_build_is_here", lambda: build)
    implementation, note = attention_implementation(wanted)
    assert implementation == used
    assert (note is None) == (said is None)
    assert str(note).startswith(str(said))


def test_without_a_gpu_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**kwargs: bool) -> bool:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(attention, "is_flash_attn_2_available", ask)
    assert attention_implementation(FLASH_FROM_HUB)[0] == "sdpa"


def test_with_a_gpu_transformers_says_whether_the_build_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its real answer here is no: the package kernels is not installed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention, "find_spec", lambda name: None)
    assert attention_implementation(FLASH)[0] == "sdpa"


def test_the_version_of_kernels_that_is_named_is_the_one_transformers_takes() -> None:
    wanted = [text for text in importlib.metadata.requires("transformers") or [] if re.match(r"kernels\b", text)]
    assert {Requirement(text).specifier for text in wanted} == {Requirement(KERNELS).specifier}
