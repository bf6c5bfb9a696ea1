"""Where a chat template lets the assistant write, and how it ends that turn: found by rendering the template.

Chat templates differ in what they do with a system message, in what they write before the assistant's text (some open
a thinking block there, some an empty one) and in how a turn ends, and they are programs: nothing but a rendering tells.
A template is rendered once to generate and once with a complete conversation. Where the two agree on how the
assistant's turn begins, our prompt ends; where they don't, the template is refused with the text in question.
"""

import re
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from mini_r1.prompts.settings import PromptError, PromptSettings

Messages = list[dict[str, str]]

ANSWER, NEXT_QUESTION = "The answer of the assistant.", "The next question of the user."
# A thinking block that a template opens for the model (DeepSeek-R1, QwQ) or writes empty (Qwen3): our prefill opens it.
THINKING = re.compile(r"(<think>\s*(</think>\s*)?|</think>\s*)\Z")
TAG = re.compile(r"</?(think|answer)\b")
SHOWN = 160  # characters of a rendering in an error message


class ChatFormat:
    """How a tokenizer's chat template frames a conversation of a system text, a user's text and the assistant's.

    Args:
        tokenizer, settings: what is rendered with.
        system, user: an example of the texts, from which the format is found out.

    Attributes:
        folds: whether the system text goes in front of the user's, since the template knows no system role.
        written: what the template writes after the user's text when asked to generate.
        header: `written`, up to the place where the assistant begins to write.
        end: what follows the assistant's text: the end of its turn, and the beginning of the user's next one.

    Raises:
        PromptError: if there is no template, or none that can be used; the message shows what it writes.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, system: str, user: str, settings: PromptSettings | None = None
    ) -> None:
        self.tokenizer, self.settings = tokenizer, settings or PromptSettings()
        if not (self.settings.chat_template or tokenizer.chat_template):
            raise PromptError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template",
                "set prompt_style: base, which needs none, or chat_template to the path of a file with one",
            )
        self.folds = False
        self.folds = not self._shows_system(system, user)
        messages = self._messages(system, user)
        opened, plain = (self._render(messages, generate) for generate in (True, False))
        for text in [system, user]:
            if text not in opened:
                raise self._refusal(f"does not write {_cut(text)} of the prompt, but {_cut(opened)}")
        self.written = opened[opened.rfind(user) + len(user) :]
        self.header, self.end = self._turn(messages, user)
        if opened != plain:  # else it has no generation prompt, like Mistral's: a turn begins as in a conversation
            self.header = self._agreed(THINKING.sub("", self.written), self.header)
        if TAG.search(self.header):
            raise self._refusal(f"writes {self.header!r} before the assistant's text, which has tags of the answer")

    @property
    def ends(self) -> str:
        """How a completion ends, as the first half of a sentence."""
        return f"the chat template ends the assistant's turn with {self.end.strip() or 'nothing'!r}"

    def begin(self, system: str, user: str, prefill: str) -> str:
        """The text of a conversation in which the assistant has begun with `prefill`, and nothing before it.

        Raises:
            PromptError: if the template treats these texts otherwise than the example.
        """
        text = self._render(self._messages(system, user), generate=True)
        if not text.endswith(user + self.written):
            raise self._refusal(f"does not end {_cut(user)} with {self.written!r}, but {_cut(text)}")
        return text.removesuffix(self.written) + self.header + prefill

    def _messages(self, system: str, user: str) -> Messages:
        if self.folds:
            return [{"role": "user", "content": f"{system}\n\n{user}"}]
        opening = [{"role": "system", "content": system}] if system else []
        return [*opening, {"role": "user", "content": user}]

    def _shows_system(self, system: str, user: str) -> bool:
        """Whether the template takes a system message; some refuse it (Gemma 2), and some leave it out silently."""
        try:
            return system in self._render(self._messages(system, user), generate=True)
        except PromptError:
            return False

    def _turn(self, messages: Messages, user: str) -> tuple[str, str]:
        """What stands between the user's text and the assistant's in a conversation, and what follows the assistant's.

        A conversation that goes on says more (GLM ends a turn with the user's next one), but some templates refuse it.
        """
        answered = [*messages, {"role": "assistant", "content": ANSWER}]
        error = self._refusal("leaves out what the assistant says, so that the end of its turn is unknown")
        for conversation in ([*answered, {"role": "user", "content": NEXT_QUESTION}], answered):
            try:
                text = self._render(conversation, generate=False)
            except PromptError as refused:
                error = refused
                continue
            before, found, after = text.partition(ANSWER)
            if found and user in before:
                header = THINKING.sub("", before[before.rfind(user) + len(user) :])
                return header, after.partition(NEXT_QUESTION)[0]
        raise error

    def _agreed(self, to_generate: str, in_conversation: str) -> str:
        """The header of the assistant's turn, if it is the same in both cases but for white space."""
        if to_generate.rstrip() == in_conversation.rstrip():
            return to_generate
        raise self._refusal(
            f"begins the assistant's turn with {in_conversation!r} in a conversation, but with {to_generate!r} for the "
            f"model to go on: where the prefill belongs can't be known"
        )

    def _render(self, messages: Messages, generate: bool) -> str:
        ours: dict[str, Any] = {"tokenize": False, "add_generation_prompt": generate}
        ours |= {"chat_template": self.settings.chat_template}
        today = date.fromisoformat(self.settings.date)
        variables = {**self.settings.template_kwargs, "strftime_now": today.strftime}
        try:
            return str(self.tokenizer.apply_chat_template(messages, **ours, **variables))
        except Exception as error:  # a template is somebody else's program: there is nothing that it can't raise
            roles = ", ".join(message["role"] for message in messages)
            raise self._refusal(f"does not take messages of the roles {roles}: {error}") from error

    def _refusal(self, what: str) -> PromptError:
        named = self.settings.chat_template is not None
        whose = "in the file of the key chat_template" if named else f"of {self.tokenizer.name_or_path!r}"
        return PromptError(
            f"the chat template {whose} {what}",
            "set chat_template to the path of a file with another one, use another model, or set prompt_style: base, "
            "which needs no chat template",
        )


def _cut(text: str) -> str:
    """The end of a text, which is where prompts go wrong."""
    return repr(text) if len(text) <= SHOWN else f"'...{repr(text[-SHOWN:])[1:]}"
