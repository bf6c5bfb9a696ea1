"""The options of a program by which a person says how a model without a run's record is prompted."""

import argparse
from collections.abc import Mapping
from typing import Any, get_args

from mini_r1.prompts.settings import PromptError, PromptSettings, PromptStyle

OPTIONS = ("prompt_style", "chat_template", "system_prompt")


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, which are the recipe's keys of these names."""
    group = parser.add_argument_group("prompt", "of a model without a run; a run's own is in its record")
    group.add_argument("--prompt-style", choices=get_args(PromptStyle), help="as in a recipe (default: chat)")
    group.add_argument("--chat-template", metavar="FILE", help="as in a recipe (default: the tokenizer's own)")
    group.add_argument("--system-prompt", metavar="TEXT", help="as in a recipe (default: the task's)")


def chosen_prompt(arguments: argparse.Namespace, recorded: Mapping[str, Any] | None) -> PromptSettings:
    """The settings in a run's record, or those of the options where there is none.

    Raises:
        PromptError: for an option beside a record, or a value that can't be used.
    """
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    if recorded and given:
        option = "--" + next(iter(given)).replace("_", "-")
        raise PromptError(
            f"{option} is given, and the run's record says how its prompts are made", f"leave {option} out"
        )
    if recorded:
        return PromptSettings.read(recorded)
    style = given.pop("prompt_style", "chat")
    return PromptSettings.of(style=style, **given)
