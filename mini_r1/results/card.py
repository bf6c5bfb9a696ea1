"""The model card of a run: a README.md on what the model was made from, how, and what was measured, from run.json.

It is a function of the run's folder (`update_card`), so that an evaluation made later gets into it.
"""

import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.program.redact import redact
from mini_r1.results.metrics import as_fraction
from mini_r1.runs.records import (
    RUN,
    STATE,
    Record,
    Result,
    is_cold_start,
    points,
    read_evaluation,
    read_log,
    read_run,
)
from mini_r1.tasks.registry import find_task
from mini_r1.tasks.task import SOLVED

logger = logging.getLogger(__name__)

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.j2")
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "deepspeed")


class CardWriter(TrainerCallback):
    """Writes run.json and the card at each save, on process zero.

    Args:
        summarise: returns what run.json is to hold.
    """

    def __init__(self, output: Path, summarise: Callable[[], Record]) -> None:
        self.output, self.summarise = output, summarise

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say how far the run is."""
        write_card(self.output, self.summarise(), state.log_history)


def versions() -> dict[str, str]:
    """The versions of the packages that training rests on, of those installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_card(folder: Path, run: Record, log: Sequence[Record]) -> None:
    """Write run.json and the card.

    Args:
        run: as `mini_r1.train.run.run_summary` returns it.
        log: the trainer's log history.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).write_text(redact(json.dumps(run, indent=2, default=str)) + "\n", encoding="utf-8")
    (folder / CARD).write_text(render_card(folder.absolute().name, run, log, _results(folder)), encoding="utf-8")


def update_card(folder: Path) -> bool:
    """Write the card of a run again, with the evaluation that is there now; False if the folder holds no such run."""
    if not all((folder / name).is_file() for name in (CARD, RUN, STATE)):
        return False
    run = read_run(folder / RUN)
    if "recipe" not in run:  # not ours to replace
        return False
    log = read_log(folder / STATE)
    (folder / CARD).write_text(render_card(folder.absolute().name, run, log, _results(folder)), encoding="utf-8")
    return True


def _results(folder: Path) -> list[Result]:
    """The evaluation, unless the run was trained further after it."""
    try:
        return read_evaluation(folder).results
    except ValueError as error:
        logger.warning("the card has no results: %s", error)
        return []


def render_card(name: str, run: Record, log: Sequence[Record], results: Sequence[Result]) -> str:
    """Return the text of the card, with metadata for the Hub in front and without tokens."""
    data = run.get("data") or {}
    sft = is_cold_start(run)
    metadata = ModelCardData(
        base_model=_hub_id(run.get("model")),
        datasets=[dataset] if (dataset := _hub_id(data.get("dataset"))) else None,
        library_name="peft" if run.get("adapter") else "transformers",
        pipeline_tag="text-generation",
        tags=["mini-r1", "sft" if sft else "grpo", "trl", "reasoning"],
        ignore_metadata_errors=True,
    )
    card = ModelCard.from_template(
        metadata,
        template_str=TEMPLATE.read_text(encoding="utf-8"),  # by path it is read in the locale's encoding
        name=name,
        run=run,
        data=data,
        sft=sft,
        task=find_task(data),
        recipe=yaml.safe_dump(run.get("recipe") or {}, sort_keys=False, allow_unicode=True).rstrip(),
        results=results,
        table=_table(results),
        curve=_curve(log),
    )
    return redact(str(card))


def _hub_id(name: Any) -> str | None:
    """The name if it can be one on the Hub, which refuses the name of a local folder or a generated world."""
    text = str(name or "")
    is_local = Path(text).exists() or text.startswith((".", "/", "~")) or ":" in text
    return text if text and not is_local and text.count("/") <= 1 else None


def _table(results: Sequence[Result]) -> str:
    """An evaluation as Markdown: each metric with its value per model; empty without one."""
    if not results:
        return ""
    head = ["metric", *(result.model.replace("|", "\\|") for result in results)]
    rows = [
        [name, *(as_fraction(name, result.metrics.get(name)) for result in results)] for name in results[-1].metrics
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _curve(log: Sequence[Record]) -> list[tuple[int, float]]:
    """Step and held-out solve rate of the first and the last evaluation during the run."""
    solved = sorted(points(log, f"eval_{SOLVED}").items())
    return [solved[0], solved[-1]] if len(solved) > 1 else solved
