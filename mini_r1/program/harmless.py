"""Lets what only shows or describes a run (card, curves, progress bar, samples, pushes) fail without ending it."""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from mini_r1.program.causes import describe

logger = logging.getLogger(__name__)

TRACKERS = (ProgressCallback, PrinterCallback, *INTEGRATION_TO_CALLBACK.values())


def harmless(action: Callable[..., Any]) -> Callable[..., Any]:
    """Return the action with its failures turned into one warning, the first time, and None as their result."""
    warned = False

    @functools.wraps(action)
    def attempted(*args: Any, **kwargs: Any) -> Any:
        nonlocal warned
        try:
            return action(*args, **kwargs)
        except Exception as error:
            if not warned:
                warned = True
                logger.warning("%s failed, the run continues without: %s", action.__qualname__, describe(error))
            return None

    return attempted


def make_harmless(callbacks: Iterable[TrainerCallback], more: tuple[type[TrainerCallback], ...] = ()) -> None:
    """Wrap every event of the callbacks that only show: progress bars, trackers, and those of the types in `more`."""
    for callback in callbacks:
        if isinstance(callback, (*TRACKERS, *more)):
            for event in (name for name in dir(callback) if name.startswith("on_")):
                setattr(callback, event, harmless(getattr(callback, event)))
