"""Run the notebook from top to bottom in a Jupyter kernel, without a GPU, and keep its outputs in the file.

Differs from `jupyter execute` in what it leaves: no times, no progress bars, no paths of this machine. The metadata
gets a hash of every source that the outputs depend on, so that `--check` can tell when they are out of date.

    python scripts/make_notebook.py           # 5 minutes on 2 cores
    python scripts/make_notebook.py --check   # at once; status 1 and the reasons if it is stale
"""

import argparse
import ast
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    import nbformat
    from nbclient import NotebookClient
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "mini-deepseek-r1-aha-grpo.ipynb"
SKIPPED_TAGS = {"install"}  # it needs a network and changes the environment; tests/e2e/test_notebook.py runs it
STAMP = "mini_r1_sources"
DATA_FILES = sorted((ROOT / "mini_r1").rglob("*.j2"))
_RECIPE = re.compile(r"receipes/[\w.-]+\.yaml")
_PATH = re.compile(
    r"(?<![\w/.:>])/(?:home|root|work|tmp|usr|opt|mnt|var|Users|content|kaggle)/[^\s\"'<>]*|[A-Z]:\\\\Users"
)


def code(cells: list[NotebookNode]) -> str:
    """The Python of all code cells."""
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def hashes(notebook: NotebookNode) -> dict[str, str]:
    """A short hash of everything the outputs depend on: the cells, and each file of the repository that they use."""
    cells = "\n\x00".join(f"{cell.cell_type}\n{cell.source}" for cell in notebook.cells)
    found = {"cells": cells.encode()}
    paths = {
        ROOT / "requirements.txt",
        *_modules(code(notebook.cells)),
        *(ROOT / "assets/tiny-countdown-base").glob("*"),
    }
    paths |= {ROOT / name for name in _RECIPE.findall(code(notebook.cells))}
    found |= {str(path.relative_to(ROOT)): path.read_bytes() for path in paths if path.suffix != ".md"}
    return {name: hashlib.sha256(content).hexdigest()[:12] for name, content in sorted(found.items())}


def _modules(source: str) -> set[Path]:
    """The files of mini_r1 that Python code imports, those that they import, and the data files that they name."""
    found: set[Path] = set()
    sources = [source]
    while sources:
        text = sources.pop()
        for module in _imports(text):
            path = ROOT / f"{module.replace('.', '/')}.py"
            if path.is_file() and path not in found:  # `from mini_r1 import x` may also name what isn't a module
                found.add(path)
                sources.append(path.read_text(encoding="utf-8"))
        found |= {path for path in DATA_FILES if path.name in text}
    return found


_DOTTED = re.compile(r"mini_r1(\.\w+)+:\w+")


def _imports(source: str) -> Iterator[str]:
    """The modules of mini_r1 that code imports, in any spelling, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mini_r1."))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module == "mini_r1" or module.startswith("mini_r1."):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED.fullmatch(node.value):
            yield node.value.partition(":")[0]  # as the registry of tasks names them


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run all cells but the tagged ones, in a kernel that sees no GPU; return the notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; the message has the cell and the traceback.
    """
    notebook = nbformat.from_dict(notebook)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder, client.setup_kernel(env=os.environ | hidden | {"IPYTHONDIR": folder}):
        number = 0
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            if not SKIPPED_TAGS & set(cell.metadata.get("tags", [])):
                number += 1
                client.execute_cell(cell, index, execution_count=number)
    return notebook


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leave what a reader needs: no progress bars and warnings (stderr), no times, nothing of this machine."""
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_transient(output)]
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = NotebookNode()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    notebook.metadata[STAMP] = hashes(notebook)
    return notebook


def _is_transient(output: NotebookNode) -> bool:
    """Whether an output is a warning or a progress bar, in text or as a widget."""
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with the outputs in the file: stale, missing, failed, or holding a path of a machine."""
    stamp: dict[str, str] = notebook.metadata.get(STAMP, {})
    now = hashes(notebook)
    changed = sorted(name for name in stamp.keys() | now.keys() if stamp.get(name) != now.get(name))
    found = [f"{name} has changed since the outputs were made" for name in changed]
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or SKIPPED_TAGS & set(cell.metadata.get("tags", [])):
            continue
        if cell.execution_count is None:
            found.append(f"cell {index} was not run")
        found += [f"cell {index} failed: {o.ename}" for o in cell.outputs if o.output_type == "error"]
    found += [f"a path of a machine: {path}" for path in sorted(set(_PATH.findall(_texts(notebook))))]
    return found


def _texts(notebook: NotebookNode) -> str:
    """All text in the notebook, without its pictures."""

    def walk(node: Any, key: str = "") -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield from walk(value, name)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value, key)
        elif isinstance(node, str) and not key.startswith("image/"):
            yield node

    return "\n".join(walk(notebook))


def main() -> int:
    """Execute and write the notebook, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the outputs are up to date")
    args = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if not args.check:
        notebook = clean(execute(notebook))
        nbformat.validate(notebook)
        nbformat.write(notebook, NOTEBOOK)
    found = problems(notebook)
    for problem in found:
        print(f"{NOTEBOOK.name}: {problem}", file=sys.stderr)
    if found:
        print("fix: make notebook", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
