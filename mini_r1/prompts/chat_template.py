"""Where a chat template lets the assistant write, and how it ends the assistant's turn: found out by rendering it.

Chat templates differ in what they do with a system message, in what they write before the assistant's text (some open
a thinking block there, some an empty one) and in how a turn ends, and they are programs: nothing but a rendering tells.
A template is rendered once to generate and once with a whole conversation. Where the two agree on how the assistant's
turn begins, that is where our prompt ends; where they don't, the template is refused with the text in question.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from mini_r1.program.problems import UserError

Record = dict[str, Any]
Messages = list[dict[str, str]]

ANSWER, NEXT_QUESTION = "The answer of the assistant.", "The next question of the user."
# A thinking block that a template opens for the model (DeepSeek-R1, QwQ) or writes empty (Qwen3): our prefill opens it.
THINKING = re.compile(r"(<think>\s*(</think>\s*)?|</think>\s*)\Z")
TAG = re.compile(r"</?(think|answer)\b")
# Of `apply_chat_template` and the rendering, and so not variables that a recipe can set.
OURS = frozenset({"conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message"})
OURS |= {"tokenize", "return_tensors", "return_dict", "return_assistant_tokens_mask", "strftime_now"}
SHOWN = 160  # characters of a rendering in an error message


class PromptError(UserError, ValueError):
    """A chat template or tokenizer that no prompt can be made with.

    Args:
        cause: what is wrong, with the text in question.
        fix: what to do.
    """

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"{cause}. Fix: {fix}")
        self.cause, self.fix = cause, fix


@dataclass(frozen=True)
class PromptSettings:
    """What decides over the text of a prompt beside the puzzle and the chat template; one for a whole run.

    Attributes:
        template_kwargs: variables for the chat template, the recipe's `chat_template_kwargs`.
        date: the day that templates which write today's date are told, as in 2026-01-31.

    Raises:
        PromptError: for variables that are not the user's to set, or a date that is none.
    """

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    date: str = field(default_factory=lambda: date.today().isoformat())

    def __post_init__(self) -> None:
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
    def of(cls, template_kwargs: Mapping[str, Any] | str | None) -> "PromptSettings":
        """The settings of a new run, from the recipe's `chat_template_kwargs`: a mapping, or one written as JSON.

        Raises:
            PromptError: if it is neither.
        """
        given: Any = template_kwargs or {}
        if isinstance(given, str):
            with contextlib.suppress(ValueError):
                given = json.loads(given)
        if not isinstance(given, Mapping):
            raise PromptError(
                f"chat_template_kwargs is {template_kwargs!r}, which is no mapping",
                "give the chat template's variables with their values, such as {enable_thinking: false}",
            )
        return cls(dict(given))

    @classmethod
    def of_run(cls, template_kwargs: Mapping[str, Any] | str | None, began: Mapping[str, Any]) -> "PromptSettings":
        """The settings of a new run or, where `began` is the record of a run's settings, of that run when resumed.

        Raises:
            PromptError: as `of`, or as `read`.
        """
        settings = cls.of(template_kwargs)
        return cls.read({**settings.record(), **began}) if began else settings

    def record(self) -> Record:
        """What `read` takes; JSON-able."""
        return asdict(self) | {"template_kwargs": dict(self.template_kwargs)}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "PromptSettings":
        """The settings in a run's record; what it does not say keeps its default.

        Raises:
            PromptError: as for the settings themselves.
        """
        return cls(**{name: record[name] for name in ("template_kwargs", "date") if name in record})


@dataclass(frozen=True)
class ChatFormat:
    """How a tokenizer's chat template frames a conversation of a system text, a user's text and the assistant's.

    Attributes:
        tokenizer, settings: what is rendered with.
        folds: whether the system text goes in front of the user's, since the template knows no system role.
        written: what the template writes after the user's text when asked to generate.
        header: `written`, up to the place where the assistant begins to write.
        end: what follows the assistant's text: the end of its turn, and the beginning of the user's next one.
    """

    tokenizer: PreTrainedTokenizerBase
    settings: PromptSettings
    folds: bool
    written: str
    header: str
    end: str

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, system: str, user: str, settings: PromptSettings | None = None
    ) -> "ChatFormat":
        """Find out the format from one example of the texts.

        Raises:
            PromptError: if there is no template, or none that can be used; the message shows what it writes.
        """
        settings = settings or PromptSettings()
        if not tokenizer.chat_template:
            raise PromptError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template",
                "use an instruction-tuned model, or set chat_template in the tokenizer's tokenizer_config.json",
            )
        folds = not _shows_system(tokenizer, system, user, settings)
        messages = _messages(system, user, folds)
        opened, plain = (_render(tokenizer, messages, settings, generate) for generate in (True, False))
        for text in [system, user]:
            if text not in opened:
                raise _refusal(tokenizer, f"does not write {_cut(text)} of the prompt, but {_cut(opened)}")
        written = opened[opened.rfind(user) + len(user) :]
        header, end = _turn(tokenizer, messages, user, settings)
        if opened != plain:  # else it has no generation prompt, like Mistral's: a turn begins as in a conversation
            header = _agreed(tokenizer, THINKING.sub("", written), header)
        if TAG.search(header):
            raise _refusal(tokenizer, f"writes {header!r} before the assistant's text, which has tags of the answer")
        return cls(tokenizer, settings, folds, written, header, end)

    def begin(self, system: str, user: str, prefill: str) -> str:
        """The text of a conversation in which the assistant has begun with `prefill`, and nothing before it.

        Raises:
            PromptError: if the template treats these texts otherwise than the example.
        """
        text = _render(self.tokenizer, _messages(system, user, self.folds), self.settings, generate=True)
        if not text.endswith(user + self.written):
            raise _refusal(self.tokenizer, f"does not end {_cut(user)} with {self.written!r}, but {_cut(text)}")
        return text.removesuffix(self.written) + self.header + prefill


def _messages(system: str, user: str, folds: bool) -> Messages:
    if folds:
        return [{"role": "user", "content": f"{system}\n\n{user}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _shows_system(tokenizer: PreTrainedTokenizerBase, system: str, user: str, settings: PromptSettings) -> bool:
    """Whether the template takes a system message, which some refuse (Gemma 2) and some leave out without a word."""
    try:
        return system in _render(tokenizer, _messages(system, user, folds=False), settings, generate=True)
    except PromptError:
        return False


def _turn(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, user: str, settings: PromptSettings
) -> tuple[str, str]:
    """What stands between the user's text and the assistant's in a conversation, and what follows the assistant's.

    A conversation that goes on says more (GLM ends a turn with the user's next one), but some templates refuse it.
    """
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    error = _refusal(tokenizer, "leaves out what the assistant says, so that the end of its turn is unknown")
    for conversation in ([*answered, {"role": "user", "content": NEXT_QUESTION}], answered):
        try:
            text = _render(tokenizer, conversation, settings, generate=False)
        except PromptError as refused:
            error = refused
            continue
        before, found, after = text.partition(ANSWER)
        if found and user in before:
            header = THINKING.sub("", before[before.rfind(user) + len(user) :])
            return header, after.partition(NEXT_QUESTION)[0]
    raise error


def _agreed(tokenizer: PreTrainedTokenizerBase, to_generate: str, in_conversation: str) -> str:
    """The header of the assistant's turn, if it is the same in both cases but for white space."""
    if to_generate.rstrip() == in_conversation.rstrip():
        return to_generate
    raise _refusal(
        tokenizer,
        f"begins the assistant's turn with {in_conversation!r} in a conversation, but with {to_generate!r} for the "
        f"model to go on: where the prefill belongs can't be known",
    )


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, settings: PromptSettings, generate: bool) -> str:
    today = date.fromisoformat(settings.date)
    variables = {**settings.template_kwargs, "strftime_now": today.strftime}
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **variables))
    except Exception as error:  # a template is somebody else's program: there is nothing that it can't raise
        roles = ", ".join(message["role"] for message in messages)
        raise _refusal(tokenizer, f"does not take messages of the roles {roles}: {error}") from error


def _refusal(tokenizer: PreTrainedTokenizerBase, what: str) -> PromptError:
    return PromptError(
        f"the chat template of {tokenizer.name_or_path!r} {what}",
        "use another model, or a tokenizer_name_or_path with another chat template",
    )


def _cut(text: str) -> str:
    """The end of a text, which is where prompts go wrong."""
    return repr(text) if len(text) <= SHOWN else f"'...{repr(text[-SHOWN:])[1:]}"
