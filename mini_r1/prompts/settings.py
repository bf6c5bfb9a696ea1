"""What decides a prompt's text besides the task and the model: the same in training, evaluation and ask."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from mini_r1.program.problems import UserError

Record = dict[str, Any]
PromptStyle = Literal["chat", "base"]

OPTIONS = ("prompt_style", "chat_template", "system_prompt")
# Of `apply_chat_template` and the rendering, and so not variables that a recipe can set.
OURS = frozenset({"conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message"})
OURS |= {"tokenize", "return_tensors", "return_dict", "return_assistant_tokens_mask", "strftime_now"}


class PromptError(UserError, ValueError):
    """A chat template, tokenizer or setting that no prompt can be made with.

    Args:
        cause: what is wrong, with the text in question.
        fix: what to do.
    """

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"{cause}. Fix: {fix}")
        self.cause, self.fix = cause, fix


@dataclass(frozen=True)
class PromptSettings:
    """What decides a prompt's text besides the task and the tokenizer; one for a complete run.

    Attributes:
        template_kwargs: variables for the chat template, the recipe's `chat_template_kwargs`.
        date: what a template that writes today's date gets, such as 2026-01-31.
        style: the recipe's `prompt_style`: "chat" renders a chat template, "base" writes plain text.
        chat_template: the text of a chat template in the place of the tokenizer's; None for the tokenizer's.
        system_prompt: the text in the place of the task's; "" for none, None for the task's.

    Raises:
        PromptError: for an unknown style, a chat template or its variables under "base", variables that are not the
            user's to set, or an invalid date.
    """

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    date: str = field(default_factory=lambda: date.today().isoformat())
    style: PromptStyle = "chat"
    chat_template: str | None = None
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.style not in get_args(PromptStyle):
            raise PromptError(f"prompt_style is {self.style!r}", f"set one of {', '.join(get_args(PromptStyle))}")
        if self.style == "base" and (self.chat_template or self.template_kwargs):
            key = "chat_template" if self.chat_template else "chat_template_kwargs"
            raise PromptError(
                f"{key} is set, and prompt_style: base writes plain text without a chat template",
                f"leave {key} out, or set prompt_style: chat",
            )
        if taken := sorted(OURS & set(self.template_kwargs)):
            raise PromptError(
                f"chat_template_kwargs sets {', '.join(taken)}, which the prompt decides on itself",
                "leave it out; variables of the chat template, such as enable_thinking, are what can be set",
            )
        try:
            date.fromisoformat(self.date)
        except (TypeError, ValueError):
            raise PromptError(
                f"the date of the prompts is {self.date!r}", "write it as a day such as 2026-01-31"
            ) from None

    @classmethod
    def of(
        cls,
        template_kwargs: Mapping[str, Any] | None = None,
        style: PromptStyle = "chat",
        chat_template: str | Path | None = None,
        system_prompt: str | None = None,
    ) -> "PromptSettings":
        """The settings of a new run, from the keys of a recipe.

        Args:
            template_kwargs: `chat_template_kwargs`.
            style: `prompt_style`.
            chat_template: the path of a file that holds a chat template.
            system_prompt: as the attribute; white space around it, as YAML's blocks of text leave, is taken off.

        Raises:
            PromptError: if a value can't be used, or the file can't be read.
        """
        text = read_template(chat_template) if chat_template else None
        system = None if system_prompt is None else system_prompt.strip()
        return cls(dict(template_kwargs or {}), style=style, chat_template=text, system_prompt=system)

    def record(self) -> Record:
        """What `read` takes; JSON-able."""
        return asdict(self)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "PromptSettings":
        """The settings in a run's record; what it does not say keeps its default.

        Raises:
            PromptError: as for the settings themselves.
        """
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})


def read_template(path: str | Path) -> str:
    """The chat template in a file.

    Raises:
        PromptError: if it is empty or can't be read.
    """
    file = Path(path).expanduser()
    fix = "give the path of a text file with a chat template in Jinja, such as a model's chat_template.jinja"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PromptError(f"the chat_template {str(path)!r} can't be read: {reason}", fix) from error
    if not text.strip():
        raise PromptError(f"the chat_template {str(path)!r} is empty", fix)
    return text


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, which are the recipe's keys of these names."""
    group = parser.add_argument_group("prompt", "of a model without a run; a run's own is in its record")
    group.add_argument("--prompt-style", choices=get_args(PromptStyle), help="as in a recipe (default: chat)")
    group.add_argument("--chat-template", metavar="FILE", help="as in a recipe (default: the tokenizer's own)")
    group.add_argument("--system-prompt", metavar="TEXT", help="as in a recipe (default: the task's)")


def chosen_prompt(arguments: argparse.Namespace, recorded: Mapping[str, Any] | None) -> PromptSettings:
    """The settings in a run's record, or those of the options for a model without one.

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
