"""Write the pages that are made from the code: README's table of rooms and the map of modules, mini_r1/README.md.

Each line is the first line of a docstring, so a page can't name a module that is gone, or forget a new one.
tests/test_make_pages.py fails when a page is not what this program writes.

    python scripts/make_pages.py
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, SCRIPTS, README, MAP = ROOT / "mini_r1", ROOT / "scripts", ROOT / "README.md", ROOT / "mini_r1" / "README.md"
# Every room of mini_r1/, in the order in which they build on each other.
ROOMS = (
    *("program", "machine", "tasks", "prompts", "policy", "recipe", "runs", "generation", "results", "hub", "train"),
    *("preflight", "tiny"),
)
BEGIN, END = "<!-- Made by `make pages`. -->\n", "<!-- The end of what `make pages` makes. -->"


def pages() -> dict[Path, str]:
    """Every page that is made, with its text."""
    readme = README.read_text(encoding="utf-8")
    table = f"{BEGIN}\n{_table()}\n{END}"
    return {
        README: re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, readme, flags=re.DOTALL),
        MAP: "\n".join(_map()),
    }


def summary(path: Path) -> str:
    """What a module is for: the first paragraph of its docstring, in one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _table() -> str:
    """The rooms of the library and the programs, one line each."""
    rows = [f"| [{room}/](mini_r1/{room}) | {summary(PACKAGE / room / '__init__.py')} |" for room in ROOMS]
    rows += [f"| [{path.name}](scripts/{path.name}) | {summary(path)} |" for path in sorted(SCRIPTS.glob("*.py"))]
    return "\n".join(["| room of `mini_r1/`, or program of `scripts/` | what it is for |", "|---|---|", *rows, ""])


def _map() -> Iterator[str]:
    """Every module of the library, one line each, by room."""
    yield "# The modules of Mini-R1\n"
    yield "The rooms come in the order in which they build on each other: a room imports only from those above it, and"
    yield "`preflight` not from `train`. Each line is the first of the docstring; `make pages` writes this page."
    for room in ROOMS:
        yield f"\n## {room}\n\n{summary(PACKAGE / room / '__init__.py')}\n"
        for path in sorted((PACKAGE / room).rglob("*.py")):
            name = str(path.relative_to(PACKAGE / room)).removesuffix("__init__.py")
            if name:
                yield f"* [{name}]({room}/{name}): {summary(path)}"
    yield ""


def main() -> int:
    """Write each page that has changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
