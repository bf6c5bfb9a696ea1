"""The notebook: a Jupyter kernel really runs it without a GPU, and the outputs in the file are not stale."""

import copy
import os
import re
import runpy
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable
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
def executed() -> NotebookNode:
    """The notebook with the outputs of a run just now; a cell that fails, or takes 15 minutes, stops here."""
    notebook: NotebookNode = MAKE["execute"](nbformat.read(MAKE["NOTEBOOK"], as_version=4))
    return notebook


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
    module = "mini_r1/tasks/countdown/expression.py"
    for name in (module, "mini_r1/tasks/rewards.py", "receipes/grpo-tiny-countdown-qlora.yaml"):
        assert name in stamped
    assert "assets/tiny-countdown-base/model.safetensors" in stamped
    committed.metadata[MAKE["STAMP"]][module] = "0"
    assert f"{module} has changed since the outputs were made" in MAKE["problems"](committed)


@pytest.mark.parametrize(
    "source",
    [
        "from mini_r1.results.report import write_report",
        "import mini_r1.results.report",
        "import mini_r1.results.report as r",
        "from mini_r1.results import report",
        "def later():\n    from mini_r1.results.report import write_report",
    ],
)
def test_every_way_to_import_makes_a_dependency(source: str) -> None:
    names = {path.name for path in MAKE["_modules"](source)}
    assert {"report.py", "report.html.j2", "records.py", "registry.py"} <= names
    assert "card.md.j2" not in names


def test_only_installation_is_skipped(committed: NotebookNode) -> None:
    skipped = [c for c in committed.cells if MAKE["SKIPPED_TAGS"] & set(c.metadata.get("tags", []))]
    assert [cell.metadata.tags for cell in skipped] == [["install"]]


def test_all_cells_run_without_a_person(committed: NotebookNode) -> None:
    """What waits for a login or uploads is behind a variable that is off, and comes after the exercises."""
    source = MAKE["code"](committed.cells)
    assert "PUSH_TO_HUB = False" in source
    for call in ("login(", "push_to_hub("):
        lines = [line for line in source.splitlines() if call in line]
        assert lines and all(line.startswith("    ") for line in lines)
    assert "input(" not in source.replace("inputs(", "")
    headings = [line for c in committed.cells for line in c.source.splitlines() if line.startswith("## ")]
    assert headings.index("## 11. Exercises") < headings.index("## 12. Sharing it")
    listed = re.findall(r"^(\d+\. .*)\]\(#", committed.cells[0].source.replace("[", ""), re.MULTILINE)
    assert listed == [heading.removeprefix("## ") for heading in headings if heading[3].isdigit()]


def test_nothing_in_it_ends_in_a_bare_stop(committed: NotebookNode) -> None:
    source = MAKE["code"](committed.cells)
    assert "next(" not in source and "sys.path" not in source


def test_it_has_pictures(committed: NotebookNode) -> None:
    data = [o.get("data", {}) for c in committed.cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in one for one in data) >= 3


# --- the installation ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with what an installation needs of this one, as it is in the working tree."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("mini_r1", "receipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("requirements*"), ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy(path, folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    me = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "."], [*me, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python whose environment is its own to change, and has all packages of ours, but not Mini-R1."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    return tmp_path / "venv" / "bin" / "python"


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_cell(tmp_path: Path, python: Path, committed: NotebookNode) -> Run:
    """Run a cell by its index in a process of its own, in an empty folder without a network: what a kernel would do."""
    content = tmp_path / "content"
    content.mkdir()
    # setuptools is there already: with a network, pip would get it once more into a place of its own.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }

    def run(index: int, repository: object = "", before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
        source = committed.cells[index].source.replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"')
        command = [str(python), "-c", f"{before}\n{source}\n{after}"]
        return subprocess.run(command, cwd=content, env=environment, capture_output=True, text=True)

    return run


INSTALL, SET_UP = 2, 4


@pytest.mark.slow
def test_installs_where_nothing_is_and_again(run_cell: Run, repository: Path, tmp_path: Path, python: Path) -> None:
    clone = tmp_path / "content" / "mini-r1"
    for _ in range(2):  # the second time as after the restart of a kernel: there is a clone, and nothing to install
        done = run_cell(INSTALL, repository)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "everything is installed\n")
        assert (clone / "mini_r1" / "tasks" / "rewards.py").is_file()
    where = [str(python), "-c", "import mini_r1; print(mini_r1.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env={}, capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(clone / "mini_r1" / "__init__.py")  # from any folder: it is installed
    done = run_cell(SET_UP, after="print(Path.cwd(), RECIPE)")
    assert done.returncode == 0 and done.stdout.startswith(f"{clone} receipes/grpo-"), done.stderr


@pytest.mark.parametrize(
    ("cell", "address", "words"),
    [
        (INSTALL, "", "The repository is not here. Set REPOSITORY above to its address, and run this cell again."),
        (INSTALL, "no-such-place", "git clone --depth 1 no-such-place"),
        (SET_UP, "", "The repository is not here: run the cell under Installation, which clones it."),
    ],
)
def test_what_is_missing_is_said_in_words(run_cell: Run, cell: int, address: str, words: str) -> None:
    done = run_cell(cell, address)
    assert done.returncode == 1 and done.stderr.startswith(words) and "Traceback" not in done.stderr


def test_a_folder_that_is_no_clone_is_said_in_words(run_cell: Run, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "content" / "mini-r1").mkdir()
    (tmp_path / "content" / "mini-r1" / "half").write_text("a clone that was cut off")
    done = run_cell(INSTALL, repository)
    assert done.returncode == 1 and "already exists and is not an empty directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_pip_refuses_and_what_needs_a_restart_is_said_in_words(
    run_cell: Run, repository: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(repository, tmp_path / "copy"))
    for version in ("1", "2"):
        project = tmp_path / f"tinypkg-{version}"
        project.mkdir()
        (project / "tinypkg.py").write_text("")
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "tinypkg"\nversion = "{version}"\n[tool.setuptools]\npy-modules = ["tinypkg"]\n'
        )
        (copied / "requirements.txt").write_text(f"tinypkg @ {project.as_uri()}\n")
        commit_again = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-am", version]
        subprocess.run(commit_again, cwd=copied, check=True)
        shutil.rmtree(tmp_path / "content" / "mini-r1", ignore_errors=True)
        done = run_cell(INSTALL, copied, before="import tinypkg" if version == "2" else "")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "Installed; tinypkg had been loaded before: restart the kernel, then run all cells.\n"
    (tmp_path / "content" / "mini-r1" / "requirements.txt").write_text("no-such-package==1\n")
    done = run_cell(INSTALL)
    assert done.returncode == 1 and "no-such-package==1" in done.stderr and "Traceback" not in done.stderr


# --- a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_cell_runs(executed: NotebookNode) -> None:
    assert not [p for p in MAKE["problems"](executed) if "not run" in p or "failed" in p]


@pytest.mark.slow
def test_it_really_is_qlora(executed: NotebookNode) -> None:
    four_bit, linear = numbers(r"4-bit layers\s+(\d+) of (\d+)", executed)
    assert four_bit == linear == 28
    assert "nf4, double quantisation, float32 compute" in printed(executed)


@pytest.mark.slow
def test_losses_are_finite_and_it_learns(executed: NotebookNode) -> None:
    losses, finite = numbers(r"losses: (\d+), finite: (\d+)", executed)
    assert losses == finite > 0
    gain, low, _ = numbers(rf"problem by problem: {NUMBER} \[{NUMBER}, {NUMBER}\]", executed)
    assert gain > low > 0


@pytest.mark.slow
def test_advantages_by_hand_are_those_of_trl(executed: NotebookNode) -> None:
    (difference,) = numbers(r"largest difference over all \d+ completions: ([\d.e-]+)", executed)
    assert difference < 1e-5


@pytest.mark.slow
def test_the_merged_model_is_the_policy(executed: NotebookNode) -> None:
    (safe,) = numbers(rf"merged safely\s+{NUMBER}", executed)
    (naive,) = numbers(rf"merged into 4 bits\s+{NUMBER}", executed)
    (nothing,) = numbers(rf"no adapter at all\s+{NUMBER}", executed)
    assert safe < 0.2 * naive
    assert safe < 0.1 * nothing


@pytest.mark.slow
def test_the_changed_reward_does_what_the_exercise_says(executed: NotebookNode) -> None:
    before, after = numbers(rf"attempts first: {NUMBER}, last: {NUMBER}", executed)
    assert after < 0.8 * before
