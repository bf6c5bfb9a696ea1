"""The pages that are made from the code are what the code makes, and the rooms that they list are in order."""

import ast
import runpy
from pathlib import Path
from typing import Any

from conftest import ROOT

MADE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "make_pages.py"))
PACKAGE = ROOT / "mini_r1"


def test_the_pages_are_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in MADE["pages"]().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make pages` and commit what it writes"


def test_every_room_and_every_module_has_its_line() -> None:
    assert sorted(MADE["ROOMS"]) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    page = MADE["MAP"].read_text(encoding="utf-8")
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) > 60
    assert [path for path in modules if page.count(f"]({path.relative_to(PACKAGE)}): ") != 1] == []
    silent = [path for path in [*PACKAGE.rglob("*.py"), *MADE["SCRIPTS"].glob("*.py")] if not MADE["summary"](path)]
    assert silent == []


def test_a_room_imports_only_from_those_above_it() -> None:
    """As the map says; `preflight` and `train` know nothing of each other."""
    rooms = MADE["ROOMS"]
    wrong = []
    for path in PACKAGE.glob("*/**/*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for used in rooms_used(path):
            if rooms.index(used) > rooms.index(room) or {room, used} == {"train", "preflight"}:
                wrong.append(f"{path.relative_to(ROOT)} imports from {used}")
    assert wrong == []


def rooms_used(path: Path) -> set[str]:
    """The rooms of which a module imports something, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("mini_r1.")}
