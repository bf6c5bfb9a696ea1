"""What every program does first, so that what it prints is what it has to say.

Logs from warnings on; no bars for what takes a moment, since they say nothing and break up the bar of the run; and
nothing of what libraries say that frightens and means nothing here: each by its logger or kind and its words.
"""

import logging
import re
import warnings

import datasets
import huggingface_hub.utils
import transformers.utils.logging

# Logger, the start of the message, and why it means nothing.
MEANINGLESS = (
    # The head is the embedding (tied weights), and is not saved twice.
    ("transformers.trainer", r"There were missing keys in the checkpoint model loaded: \['lm_head\.weight'\]\.$"),
    # Checkpoints are then sorted by their number, as they should be.
    ("transformers.trainer_utils", r"mtime may not be reliable on this filesystem"),
    # Said where DeepSpeed is installed, whether or not it is used; the preflight says what a run is on.
    ("DeepSpeed", r"Setting accelerator to CPU\."),
    # A public model needs no login; where one is needed, the error says so.
    ("huggingface_hub.utils._http", r"(Warning: )?You are sending unauthenticated requests to the HF Hub\."),
)


def quiet_libraries() -> None:
    """Silence the libraries from now on, also those that are yet to be imported."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # HF_HUB_DISABLE_PROGRESS_BARS, HF_DATASETS_DISABLE_PROGRESS_BARS: what the user has set then stays.
    warnings.filterwarnings("ignore", "Cannot (en|dis)able progress bars: environment variable")
    downloads = not huggingface_hub.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    if downloads:  # they take minutes; transformers has switched their bars off with its own
        huggingface_hub.utils.enable_progress_bars()
    for name, words in MEANINGLESS:
        logging.getLogger(name).addFilter(_Drop(words))


class _Drop(logging.Filter):
    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = re.compile(words)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._words.match(record.getMessage())
