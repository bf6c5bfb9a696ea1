"""The benchmark of shared prompts: three variants, one gradient, and stock TRL is stock TRL."""

import re
import runpy
from pathlib import Path

import pytest
from trl import GRPOTrainer

from conftest import ROOT, TINY_BASE
from mini_r1.train.trainer import R1Trainer

BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "shared_prompts.py"))


def test_it_compares_three_ways_to_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds: list[bool] = []
    original = GRPOTrainer._get_per_token_logps_and_entropies

    def spy(self: GRPOTrainer, model: object, *args: object, **kwargs: object) -> object:
        kinds.append(isinstance(self, R1Trainer))
        return original(self, model, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", spy)
    monkeypatch.setitem(BENCHMARK["main"].__globals__, "RESULT", tmp_path / "page.md")
    monkeypatch.setitem(BENCHMARK["main"].__globals__, "keep_freed_memory", lambda: None)
    monkeypatch.setattr("sys.argv", ["shared_prompts.py", "--model", str(TINY_BASE), "--rounds", "1"])
    assert BENCHMARK["main"]() == 0
    assert False in kinds and True in kinds
    page = (tmp_path / "page.md").read_text()
    rows = re.findall(r"^\| (TRL|Mini-R1\S*(?: share_prompts)?) \| ([\d.]+) \|.*\| (\S*) ?\|$", page, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["TRL", "Mini-R1", "Mini-R1, share_prompts"]
    assert all(float(off) < 1e-4 for _, _, off in rows[1:])
    assert page.strip() in capsys.readouterr().out
