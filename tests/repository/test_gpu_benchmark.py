"""The kit for one GPU: it runs at a small size on a CPU, phases add up, and measured memory stands beside predicted."""

import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT
from mini_r1.program.problems import UserError

GPU = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
PROGRAM = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--small", "--models", "1.5B"]
PHASES = ("generation", "weight sync", "scoring", "log-probabilities", "forward", "backward", "optimizer", "other")


def cells(page: str) -> dict[str, str]:
    """The second column of the page's table, by the first."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[0].strip("*"): row[1].strip("*") for row in rows if len(row) > 1}


def job(row: Any, folder: Path, seconds: float = 100) -> Any:
    return GPU["Job"](row, "transformers", True, time.monotonic() + seconds, folder)


@pytest.mark.parametrize("row", GPU["ROWS"], ids=lambda row: row.name)
def test_each_model_takes_steps_that_are_the_sum_of_their_phases(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from one_gpu import steps  # found beside the program

    monkeypatch.setattr(steps, "MOST_STEPS", 2)
    measured = GPU["Measured"](job(row, tmp_path))
    steps.measure(measured.job, lambda *message: GPU["receive"](measured, *message))
    assert len(measured.steps) == 2
    for step in measured.steps:
        assert sum(step.get(phase, 0.0) for phase in PHASES) == pytest.approx(step["step"])
        assert all(step[phase] > 0 for phase in ("generation", "scoring", "forward", "backward", "optimizer", "other"))
        assert 0 < step["written"] <= 8 * 24 < step["real"] <= step["computed"]
    assert measured.facts["passes"] == (4 if row.in_4_bits else 6)
    assert measured.facts["full"] == measured.facts["completion"] == 24


def test_a_step_that_is_too_long_is_made_shorter(tmp_path: Path) -> None:
    from one_gpu.steps import StepRecorder

    recorder = object.__new__(StepRecorder)
    recorder.full, recorder.prompt = 1024, 100
    for seconds, tokens in ((1000.0, 1024), (20.0, 256), (0.0, 64)):
        recorder.job = GPU["Job"](GPU["ROWS"][0], "transformers", False, time.monotonic() + seconds, tmp_path)
        short = {"generation": 3.0, "forward": 1.0, "backward": 2.0, "optimizer": 0.5, "step": 6.6}
        assert recorder.length_that_fits(short) == tokens


def test_the_program_prints_every_phase_and_the_prediction_beside_the_peak(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    done = subprocess.run([*PROGRAM, "--out", str(out)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = out.read_text(encoding="utf-8")
    assert page in done.stdout
    table = cells(page)
    phases = {phase: float(table[f"{phase}, s"]) for phase in PHASES}
    assert all(phases[phase] > 0 for phase in ("generation", "forward", "backward", "optimizer", "other"))
    # Of medians the sum is not exactly the median of the sums.
    assert sum(phases.values()) == pytest.approx(float(table["step, s"]), rel=0.3)
    assert all(float(table[name].replace(",", "")) > 0 for name in table if name.startswith("tokens "))
    assert all(float(table[name].rstrip("%")) > 0 for name in table if name.startswith("MFU"))
    measured, predicted = (table[f"peak memory, {name}"] for name in ("measured", "predicted by the preflight"))
    mib = [float(text.removesuffix(" MiB")) for text in (measured, predicted)]
    assert all(size > 0 for size in mib)
    assert float(table["measured / predicted"]) == pytest.approx(mib[0] / mib[1], rel=0.02)
    assert f"- Repeat with: `python benchmarks/gpu.py --small --models 1.5B --out {out}`" in page


@pytest.mark.slow
def test_what_was_measured_is_printed_after_an_interrupt(tmp_path: Path) -> None:
    """Of two models, so that it comes in time also where the first one's steps are done before it is sent."""
    command = [*PROGRAM, "3B"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert any("step 1 took" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    page, said = process.communicate(timeout=60)
    assert float(cells(page)["step, s"]) > 0
    assert re.search("- (1.5B|3B): interrupted", page)
    assert said.splitlines()[-1] == "interrupted"
    assert process.returncode == 130


def test_memory_that_is_used_up_is_a_line_with_the_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from one_gpu import steps

    def measure(job: Any, send: Any) -> None:
        send("facts", {"predicted": 50 * 2**30, "capacity": 24 * 2**30})
        raise RuntimeError("while loading") from torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    class Connection:
        def send(self, message: tuple[str, Mapping[str, Any]]) -> None:
            GPU["receive"](measured, *message)

        def close(self) -> None:
            pass

    monkeypatch.setattr(steps, "measure", measure)
    measured = GPU["Measured"](job(GPU["ROWS"][0], tmp_path))
    GPU["serve"](measured.job, Connection())
    assert measured.problem == "out of memory: the preflight predicts 50.0 GiB, and the GPU has 24.0 GiB"


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")  # and is put back afterwards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"PyTorch sees no GPU here.* Fix: .*--small"):
        GPU["main"]([])


def test_a_model_whose_package_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    rows, said = GPU["measurable"](["1.5B", "3B-4bit"])
    assert [row.name for row in rows] == ["1.5B"]
    assert said == ["3B-4bit: left out, since bitsandbytes is not installed (pip install bitsandbytes)"]
