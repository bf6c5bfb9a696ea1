"""The notebook: a Jupyter kernel really runs it without a GPU, and the outputs in the file are not stale."""

import copy
import re
import runpy
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
MAKE = runpy.run_path(str(ROOT / "scripts" / "make_notebook.py"))
NUMBER = r"([-+\d.]+)"


@pytest.fixture
def committed() -> NotebookNode:
    """The notebook as it is in the repository."""
    notebook: NotebookNode = nbformat.read(MAKE["NOTEBOOK"], as_version=4)
    return notebook


@pytest.fixture(scope="module")
def executed() -> tuple[NotebookNode, float]:
    """The notebook with the outputs of a run just now, and its seconds; a cell that fails stops here."""
    notebook = nbformat.read(MAKE["NOTEBOOK"], as_version=4)
    started = time.monotonic()
    return MAKE["execute"](notebook), time.monotonic() - started


def printed(notebook: NotebookNode) -> str:
    """What the cells print, and their results as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def numbers(pattern: str, notebook: NotebookNode) -> list[float]:
    match = re.search(pattern, printed(notebook))
    assert match, f"{pattern!r} is not in the outputs"
    return [float(text) for text in match.groups()]


# --- the file ------------------------------------------------------------------------------------------------------


def test_committed_outputs_are_fresh_complete_and_name_no_machine(committed: NotebookNode) -> None:
    assert MAKE["problems"](committed) == []


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda cell: cell.update(source=f"{cell.source}\n1"), "cells has changed"),
        (lambda cell: cell.update(execution_count=None), "was not run"),
        (lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text="in /home/me/mini-r1/x")), "/home/me"),
        (lambda cell: cell.outputs.append(nbformat.v4.new_output("error", ename="KeyError")), "failed: KeyError"),
    ],
)
def test_a_broken_notebook_would_be_noticed(committed: NotebookNode, break_it: object, problem: str) -> None:
    broken = copy.deepcopy(committed)
    tagged = MAKE["SKIPPED_TAGS"]
    cell = next(c for c in broken.cells if c.cell_type == "code" and not tagged & set(c.metadata.get("tags", [])))
    break_it(cell)  # type: ignore[operator]
    assert any(problem in found for found in MAKE["problems"](broken))


def test_a_changed_module_makes_the_outputs_stale(committed: NotebookNode) -> None:
    stamped = MAKE["hashes"](committed)
    for name in ("mini_r1/rewards.py", "mini_r1/expression.py", "receipes/grpo-tiny-countdown-qlora.yaml"):
        assert name in stamped
    assert "assets/tiny-countdown-base/model.safetensors" in stamped
    committed.metadata[MAKE["STAMP"]]["mini_r1/expression.py"] = "0"
    assert "mini_r1/expression.py has changed since the outputs were made" in MAKE["problems"](committed)


def test_installation_has_the_pins_of_the_repository(committed: NotebookNode) -> None:
    (install,) = (cell for cell in committed.cells if "install" in cell.metadata.get("tags", []))
    pinned = (ROOT / "requirements-gpu.txt").read_text().split()
    (bitsandbytes,) = re.findall(r"bitsandbytes==[\d.]+", install.source)
    assert bitsandbytes in pinned
    assert "requirements.txt" in install.source


def test_only_installation_and_login_are_skipped(committed: NotebookNode) -> None:
    skipped = [c for c in committed.cells if MAKE["SKIPPED_TAGS"] & set(c.metadata.get("tags", []))]
    assert sorted(tag for cell in skipped for tag in cell.metadata.tags) == ["hub-login", "install"]


def test_it_has_pictures(committed: NotebookNode) -> None:
    data = [o.get("data", {}) for c in committed.cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in one for one in data) >= 3


# --- a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_cell_runs_in_ten_minutes(executed: tuple[NotebookNode, float]) -> None:
    notebook, seconds = executed
    assert not [p for p in MAKE["problems"](notebook) if "not run" in p or "failed" in p]
    assert seconds < 600


@pytest.mark.slow
def test_it_really_is_qlora(executed: tuple[NotebookNode, float]) -> None:
    four_bit, linear = numbers(r"4-bit layers\s+(\d+) of (\d+)", executed[0])
    assert four_bit == linear == 28
    assert "nf4, double quantisation, bfloat16 compute" in printed(executed[0])


@pytest.mark.slow
def test_losses_are_finite_and_it_learns(executed: tuple[NotebookNode, float]) -> None:
    losses, finite = numbers(r"losses: (\d+), finite: (\d+)", executed[0])
    assert losses == finite > 0
    gain, low, _ = numbers(rf"puzzle by puzzle: {NUMBER} \[{NUMBER}, {NUMBER}\]", executed[0])
    assert gain > low > 0


@pytest.mark.slow
def test_advantages_by_hand_are_those_of_trl(executed: tuple[NotebookNode, float]) -> None:
    (difference,) = numbers(r"largest difference over all \d+ completions: ([\d.e-]+)", executed[0])
    assert difference < 1e-5


@pytest.mark.slow
def test_the_merged_model_is_the_policy(executed: tuple[NotebookNode, float]) -> None:
    (safe,) = numbers(rf"merged safely\s+{NUMBER}", executed[0])
    (naive,) = numbers(rf"merged into 4 bits\s+{NUMBER}", executed[0])
    (nothing,) = numbers(rf"no adapter at all\s+{NUMBER}", executed[0])
    assert safe < 0.2 * naive
    assert safe < 0.1 * nothing


@pytest.mark.slow
def test_the_changed_reward_does_what_the_exercise_says(executed: tuple[NotebookNode, float]) -> None:
    before, after = numbers(rf"attempts first: {NUMBER}, last: {NUMBER}", executed[0])
    assert after < 0.8 * before
