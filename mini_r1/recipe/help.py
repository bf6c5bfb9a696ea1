"""What `--help` and `--help-all` show: short and instant by default, since TRL's keys take seconds to import."""

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from mini_r1.program.problems import shown
from mini_r1.recipe.arguments import TRL_KEYS, Group, ScriptArguments, grouped
from mini_r1.recipe.keys import Key, keys_of

RECIPES = Path(__file__).parents[2] / "receipes"
USAGE = """\
usage: [accelerate launch ...] {program} --config FILE [--key value ...]

  --config FILE   the recipe: a YAML file with one `key: value` a line
  --key value     overrides a key of the recipe, also as --key=value; --flag and --no_flag for true and false
  --help-all      every key: those of TRL's GRPOConfig and ModelConfig, too"""


def show_help_if_asked(arguments: Sequence[str]) -> None:
    """Print the help that the command line asks for, and end the program."""
    long = {"--help-all", "--help_all"} & set(arguments)
    if not long and not {"--help", "-h"} & set(arguments):
        return
    if os.environ.get("RANK", "0") == "0":  # one of several processes
        print(long_help() if long else short_help())
    sys.exit(0)


def short_help() -> str:
    """How to call the script, the recipes that there are, and by concern Mini-R1's own keys and TRL's most used."""
    own = keys_of(ScriptArguments)
    groups = [
        "\n".join([_section(group, (own[name] for name in names)), *_of_trl(group)])
        for group, names in grouped().items()
    ]
    return "\n\n".join([USAGE.format(program=sys.argv[0]), _recipes(), *groups])


def long_help() -> str:
    """The short one, and every other key with its type and default."""
    from trl import GRPOConfig, ModelConfig  # takes seconds

    sections = [("The model (TRL's ModelConfig)", ModelConfig), ("Training (TRL's GRPOConfig)", GRPOConfig)]
    return "\n\n".join([short_help(), *(_section(title, keys_of(kind).values()) for title, kind in sections)])


def _of_trl(group: Group) -> list[str]:
    """A line that names the most used keys of TRL in a group, if it has any."""
    names = TRL_KEYS.get(group, ())
    return [_lines(f"and of TRL's keys: {', '.join(names)}", indent=2)] if names else []


def _recipes() -> str:
    """Each recipe with the first line of its header."""
    lines = []
    for path in sorted(RECIPES.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines += [f"  receipes/{path.name}", _lines(first)]
    return "\n".join(["Recipes", *lines])


def _section(title: str, keys: Iterable[Key]) -> str:
    entries = []
    for key in keys:
        default = "" if key.default is None else f"; default: {shown(key.default) or repr('')}"
        text = _lines(f"{key.help} [{key.needs(most=1000)}{default}]")
        entries += [f"  --{key.name}", text]
    return "\n".join([title, *entries])


def _lines(text: str, indent: int = 6) -> str:
    """A paragraph below what it explains."""
    margin = " " * indent
    return textwrap.fill(
        text, 116, initial_indent=margin, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )
