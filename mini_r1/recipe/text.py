"""What a person wrote in the recipe's file and on the command line: text by key, before the key's type is applied.

YAML guesses a type from the text: `no` is false, `1e-6` is text, `2024-01-01` is a date. Here nothing is guessed: plain
values stay text, from the file as from the command line, and `mini_r1.recipe.keys` reads them as their key wants them.
"""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mini_r1.program.problems import UserError

EXAMPLE = "receipes/grpo-tiny-countdown.yaml"
NULL = "null"
ON_COMMAND_LINE = "on the command line"


class RecipeError(UserError, ValueError):
    """A recipe that can't be run; the message names the value, what is allowed and the fix."""


@dataclass(frozen=True, slots=True)
class Written:
    """A value as it was written.

    Attributes:
        value: the text; a list for several; a mapping, with YAML's types inside; None if nothing was written.
        where: for messages, such as "in line 12 of receipes/mine.yaml".
    """

    value: str | list[Any] | dict[str, Any] | None
    where: str


def read_written(arguments: Sequence[str], known: Collection[str]) -> dict[str, Written]:
    """The keys of the file that `--config` names and those of the command line, which goes first.

    Raises:
        RecipeError: the file can't be read, or a word of the command line belongs to no key.
    """
    written: dict[str, Written] = {}
    files: list[str] = []
    for key, words in _by_key(arguments, known):
        if key == "config":
            files += words or [""]
        else:
            value = words[0] if len(words) == 1 else words or None
            written[key] = Written(value, ON_COMMAND_LINE)
    if len(files) > 1:
        raise RecipeError(f"--config takes one recipe, but {len(files)} are given: {', '.join(files)}. Keep one.")
    return {**(read_file(files[0]) if files else {}), **written}


def _by_key(arguments: Sequence[str], known: Collection[str]) -> list[tuple[str, list[str]]]:
    """The command line as keys, each with the words that follow it.

    >>> _by_key(["--seed", "1", "--output-dir=a b", "--epsilon_high", "-3", "--bf16"], {"output_dir"})
    [('seed', ['1']), ('output_dir', ['a b']), ('epsilon_high', ['-3']), ('bf16', [])]
    """
    given: list[tuple[str, list[str]]] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if word.startswith("--") and not key:
            raise RecipeError(f"{word!r} names no key: write --key value, as in --max_steps 100")
        if word.startswith("--") and (key in known or " " not in word):  # a text with spaces is a value: '--a 1 --b'
            given.append((key, [value] if equals else []))
        elif word.startswith("-") and key in known:
            raise RecipeError(f"{word} has one dash: write --{key}")
        elif given:
            given[-1][1].append(word)
        else:
            fix = f"--config {word}" if word.endswith((".yaml", ".yml")) else "--key value, as in --max_steps 100"
            raise RecipeError(f"{word!r} belongs to no key: write {fix}")
    return given


def read_file(name: str) -> dict[str, Written]:
    """The keys of a recipe's file.

    Raises:
        RecipeError: there is no such file, or it is no YAML mapping, or a key occurs twice.
    """
    text = _read_text(name)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise RecipeError(f"{name} is empty: a recipe has lines like `max_steps: 100`, as in {EXAMPLE}")
        if not isinstance(root, yaml.MappingNode):
            raise RecipeError(f"{name} is not a recipe: it needs lines like `max_steps: 100`, as in {EXAMPLE}")
        _refuse_repeated_keys(root, name)
        loader.flatten_mapping(root)  # `<<: *shared`
        return {str(key.value): Written(_value(node, loader), f"in {_line(node, name)}") for key, node in root.value}
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {_explain(error, text)}") from error
    except RecursionError:
        raise RecipeError(f"{name} is not a recipe: its values are nested too deeply") from None


def _read_text(name: str) -> str:
    """A file's text; UTF-8, with or without a byte order mark."""
    if not name:
        raise RecipeError(f"--config needs the path of a recipe, such as {EXAMPLE}")
    path = Path(name).expanduser()
    if path.is_dir():
        raise RecipeError(f"--config {name} is a folder: name a recipe in it{_recipes_in(path, path.name)}")
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name!r}{_recipes_in(Path('receipes'), path.name)}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{name} can't be read: {error.strerror}") from error


def _recipes_in(folder: Path, wanted: str) -> str:
    names = sorted(path.name for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"; did you mean {folder / near[0]}?" if near else f"; recipes in {folder}: {', '.join(names) or 'none'}"


def _refuse_repeated_keys(root: yaml.MappingNode, name: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{_line(key, name)}: a key is one word, such as max_steps")
        line = key.start_mark.line + 1
        if key.value in lines:
            raise RecipeError(f"{key.value} occurs twice in {name}, in lines {lines[key.value]} and {line}: keep one")
        lines[key.value] = line


def _value(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """A node's text, list of texts, or mapping; None if nothing is written there."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:null":
            return NULL if node.value else None
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, loader) for item in node.value]
    return loader.construct_object(node, deep=True)


def _line(node: yaml.Node, name: str) -> str:
    return f"line {node.start_mark.line + 1} of {name}"


def _explain(error: yaml.YAMLError, text: str) -> str:
    """One line of what PyYAML says in ten: where, and what it did not expect."""
    if isinstance(error, yaml.reader.ReaderError):  # a control character
        line = text.count("\n", 0, error.position) + 1
        return f"line {line} has a character that no text file has (number {error.character})"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = " ".join(str(getattr(error, "problem", None) or getattr(error, "context", None) or error).split())
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    tabs = ", which is a tab: indent with spaces" if r"'\t'" in said else ""
    return f"{where}{said}{tabs}"
