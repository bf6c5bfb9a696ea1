"""What every program does first, so that it prints only its own messages.

What libraries say that frightens and means nothing here is dropped, each message by its logger and its words, never
more. Bars of what takes a moment say nothing, and break up the bar of the run. Imports nothing heavy by itself.
"""

import logging
import re
import warnings
from dataclasses import dataclass

# Logger, the start of the message, and why it means nothing.
MEANINGLESS = (
    # The head is the embedding (tied weights), and is not saved twice.
    ("transformers.trainer", r"There were missing keys in the checkpoint model loaded: \['lm_head\.weight'\]\.$"),
    # Checkpoints are then sorted by their number, as they should be.
    ("transformers.trainer_utils", r"mtime may not be reliable on this filesystem"),
    # Said where DeepSpeed is installed, whether or not it is used; the preflight says what a run is on.
    ("DeepSpeed", r"Setting accelerator to CPU\."),
    # A home that can't be written costs a second per start, no more. The first start of all takes a moment.
    ("matplotlib", r"mkdir -p failed for path|.* is not a writable directory|Matplotlib created a temporary cache"),
    ("matplotlib.font_manager", r"Matplotlib is building the font cache"),
    # A faster product for 4-bit weights on CPUs that know bfloat16; said at import, whether or not weights have 4 bits.
    ("bitsandbytes.backends.cpu.ops", r"Failed to load CPU gemm_4bit_forward from kernels-community"),
    # A public model needs no login; where one is needed, the error says so.
    ("huggingface_hub.utils._http", r"(Warning: )?You are sending unauthenticated requests to the HF Hub\."),
)


def silence_the_meaningless() -> None:
    """Drop these messages from now on, also where the library that says them is yet to be imported."""
    for name, words in MEANINGLESS:
        logging.getLogger(name).addFilter(_Drop(words))


def quiet_libraries() -> None:
    """Log from warnings on, and show no bars but those of the program itself and of downloads."""
    import datasets
    import huggingface_hub.utils
    import transformers.utils.logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # HF_HUB_DISABLE_PROGRESS_BARS, HF_DATASETS_DISABLE_PROGRESS_BARS: what the user has set then stays.
    warnings.filterwarnings("ignore", "Cannot (en|dis)able progress bars: environment variable")
    downloads = not huggingface_hub.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    if downloads:  # they take minutes; transformers has switched their bars off with its own
        huggingface_hub.utils.enable_progress_bars()


@dataclass(frozen=True)  # equal ones are added once
class _Drop:
    words: str

    def filter(self, record: logging.LogRecord) -> bool:
        return re.match(self.words, record.getMessage()) is None
