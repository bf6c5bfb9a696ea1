"""Write the pages that are made from the code: README's table of rooms, mini_r1/README.md and receipes/KEYS.md.

The lines on rooms, modules and programs are the first lines of their docstrings. Those on keys are what `--help` shows,
with the ranges that a recipe is checked against. tests/scripts/test_make_pages.py fails when a page is stale.

    python scripts/make_pages.py
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.program.problems import shown
    from mini_r1.recipe.arguments import TRL_KEYS, ScriptArguments, grouped
    from mini_r1.recipe.keys import Key, keys_of
    from mini_r1.recipe.ranges import RANGES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, SCRIPTS = ROOT / "mini_r1", ROOT / "scripts"
README, MAP, KEYS = ROOT / "README.md", PACKAGE / "README.md", ROOT / "receipes" / "KEYS.md"
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
        KEYS: "\n".join(_keys()),
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
    yield "The rooms are in the order in which they build on each other. A room imports only from those above it, and"
    yield "`preflight` does not import from `train`. Each line is the first one of a docstring."
    yield "`make pages` writes this page."
    for room in ROOMS:
        yield f"\n## {room}\n\n{summary(PACKAGE / room / '__init__.py')}\n"
        for path in sorted((PACKAGE / room).rglob("*.py")):
            name = str(path.relative_to(PACKAGE / room)).removesuffix("__init__.py")
            if name:
                yield f"* [{name}]({room}/{name}): {summary(path)}"
    yield ""


def _keys() -> Iterator[str]:
    """Every key of a recipe that is Mini-R1's own, by group."""
    yield "# Mini-R1's own recipe keys\n"
    yield "Each key is a line of a recipe, or a flag: `--max_samples 1000`. All other keys are those of TRL's"
    yield "[GRPOConfig](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig) and"
    yield "[ModelConfig](https://huggingface.co/docs/trl/script_utils#trl.ModelConfig), which `--help-all` lists too."
    yield "A list is written `[a, b]`, or `--key a b` as a flag; `null` means not set."
    yield "A value of the wrong type or out of range is refused before the run starts."
    yield "`make pages` writes this page from `mini_r1/recipe/arguments.py` and `mini_r1/recipe/ranges.py`."
    own = keys_of(ScriptArguments)
    for group, names in grouped().items():
        yield f"\n## {group}\n"
        yield "| key | what it does | type | range | default |\n|---|---|---|---|---|"
        yield from (_row(own[name]) for name in names)
        if group in TRL_KEYS:
            yield f"\nTRL's most used: {', '.join(f'`{name}`' for name in TRL_KEYS[group])}."
    yield ""


def _row(key: Key) -> str:
    """A key as a row of its group's table."""
    allowed = RANGES[key.name].allowed if key.name in RANGES else ""
    default = f"`{shown(key.default)}`" if shown(key.default) else "empty"
    cells = (f"`{key.name}`", f"{key.help}.", key.needs(), allowed, default)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def main() -> int:
    """Write each page that has changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
