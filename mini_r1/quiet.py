"""Silences what libraries say that frightens and means nothing here: each by its logger and its words, never more."""

import logging
import re

# Logger, the start of the message, and why it means nothing.
MEANINGLESS = (
    # The head is the embedding (tied weights), and is not saved twice.
    ("transformers.trainer", r"There were missing keys in the checkpoint model loaded: \['lm_head\.weight'\]\.$"),
    # Checkpoints are then sorted by their number, as they should be.
    ("transformers.trainer_utils", r"mtime may not be reliable on this filesystem"),
    # Said where DeepSpeed is installed, whether or not it is used; the preflight says what a run is on.
    ("DeepSpeed", r"Setting accelerator to CPU\."),
)


def silence_the_meaningless() -> None:
    """Drop these messages from now on, also where the library that says them is yet to be imported."""
    for name, words in MEANINGLESS:
        logging.getLogger(name).addFilter(_Drop(words))


class _Drop(logging.Filter):
    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = re.compile(words)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._words.match(record.getMessage())
