"""The rooms of `mini_r1`: each says what it is for, and imports only from rooms before it."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

LIBRARY = ROOT / "mini_r1"
# In the order in which they build on each other.
ROOMS: tuple[str, ...] = runpy.run_path(str(ROOT / "scripts" / "make_pages.py"))["ROOMS"]
OTHER_FOLDERS_OF_TESTS = ("scripts", "slurm", "repository", "e2e")


def imports(path: Path) -> Iterator[str]:
    """The modules of `mini_r1` that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def backwards(room: str, module: str) -> bool:
    """Whether a room must not import a module: one of a later room, or, in the preflight, what trains."""
    parts = module.split(".")
    if parts[0] != "mini_r1" or parts[1] == room:
        return False
    return ROOMS.index(parts[1]) > ROOMS.index(room) or (room, parts[1]) == ("preflight", "train")


def test_there_is_nothing_outside_of_the_rooms() -> None:
    folders = {path.name for path in LIBRARY.iterdir() if path.name != "__pycache__"}
    assert folders == set(ROOMS) | {"__init__.py", "README.md"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room: str) -> None:
    found = [
        f"{path.relative_to(LIBRARY)} imports {module}"
        for path in sorted((LIBRARY / room).rglob("*.py"))
        for module in imports(path)
        if backwards(room, module)
    ]
    assert found == []


def test_a_test_lies_in_the_folder_of_a_room_or_in_one_of_the_others() -> None:
    folders = {str(path.parent.relative_to(ROOT / "tests")) for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - set(ROOMS) - set(OTHER_FOLDERS_OF_TESTS) == set()


def test_backwards_is_found() -> None:
    assert backwards("train", "mini_r1.preflight.memory") and backwards("preflight", "mini_r1.train.run")
    assert backwards("tasks", "mini_r1.recipe.keys.nearest")
    assert not backwards("train", "mini_r1.train.samples") and not backwards("train", "mini_r1.tasks.task")


@pytest.mark.parametrize("package", sorted(path.parent for path in LIBRARY.rglob("__init__.py")), ids=lambda p: p.name)
def test_a_room_says_what_it_is_for(package: Path) -> None:
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))


def test_tasks_need_neither_torch_nor_trl() -> None:
    code = (
        "import sys, mini_r1.tasks.registry as registry\n"
        "task = registry.task_of('countdown')\n"
        "print(task.judge(*reversed(task.solved_example())).reward)\n"
        "print(sorted({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1.0", "[]"], done.stderr
