"""The pages that are made from the code are what the code makes."""

import runpy
from dataclasses import fields
from typing import Any

from conftest import ROOT
from mini_r1.recipe.arguments import ScriptArguments

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
    assert len(modules) > 40
    assert [path for path in modules if page.count(f"]({path.relative_to(PACKAGE)}): ") != 1] == []
    silent = [path for path in [*PACKAGE.rglob("*.py"), *MADE["SCRIPTS"].glob("*.py")] if not MADE["summary"](path)]
    assert silent == []


def test_the_page_of_keys_has_each_key_of_our_own_once() -> None:
    page = MADE["KEYS"].read_text(encoding="utf-8")
    keys = [key for key in fields(ScriptArguments) if key.init]
    assert [key.name for key in keys if page.count(f"\n| `{key.name}` | {key.metadata['help']}. | ") != 1] == []
