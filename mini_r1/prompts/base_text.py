"""The prompt of a base model: a dialogue in plain text, without a chat template, like DeepSeek-R1-Zero's.

A base model has learned no turns. It is shown the beginning of a text in which a user asks and an assistant answers,
and continues it. Turns have no end either: a completion ends where the model ends the text, with the tokenizer's end
token, or at the limit of its length. (DeepSeek-AI 2025, arXiv:2501.12948, table 1, has the idea; the words are ours.)
"""

from transformers import PreTrainedTokenizerBase

from mini_r1.prompts.settings import PromptError, PromptSettings


class BaseFormat:
    """How a question is put to a base model; a stand-in for `mini_r1.prompts.chat_template.ChatFormat`.

    Attributes:
        end: what follows the assistant's text: the tokenizer's end token.

    Raises:
        PromptError: if the tokenizer has no end token.
    """

    folds = False  # there are no roles

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> None:
        if not tokenizer.eos_token:
            raise PromptError(
                f"the tokenizer {tokenizer.name_or_path!r} has no end token, so that no text would ever end",
                "set eos_token in its tokenizer_config.json, or a tokenizer_name_or_path that has one",
            )
        self.tokenizer, self.settings, self.end = tokenizer, settings, str(tokenizer.eos_token)

    @property
    def ends(self) -> str:
        """How a completion ends, as the first half of a sentence."""
        return f"the text ends with the tokenizer's end token {self.end!r}"

    def begin(self, opening: str, user: str, prefill: str) -> str:
        """The text up to where the assistant has begun with `prefill`; the opening, if there is one, stands in front.

        It has one BOS token in front if the tokenizer has one.
        """
        parts = [opening, f"User: {user}", f"Assistant: {prefill}"]
        return str(self.tokenizer.bos_token or "") + "\n\n".join(part for part in parts if part)
