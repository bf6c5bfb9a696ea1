"""Samples: what the policy wrote during a run, kept for people (text) and for tools (JSON Lines).

`SampleRecorder.observe` wraps the rewards of a run. They stay pure functions; each batch is judged once, by the task,
before the first of them is asked, and the verdicts go to all of them, to the metrics and into the records. The folder
holds, written by one process only,

* `samples.jsonl`: one object per kept completion: step, split, row, completion, answer, reason, rewards, attempts;
* `completion_samples.txt`, `success_completion_samples.txt`: the same to read, all of them and the successful ones.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_r1.program.harmless import harmless
from mini_r1.tasks.rewards import report_verdicts
from mini_r1.tasks.task import CORRECT, FORMAT, SOLVED, RewardFunction, Row, Task, Verdict, batch_rows

RECORDS, ALL_TEXT, SUCCESS_TEXT = "samples.jsonl", "completion_samples.txt", "success_completion_samples.txt"
Counts = Mapping[str, tuple[float, float]]  # what Task.measure counts: name -> (how many, of how many)


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch of completions with all that the task says of each."""

    completions: Sequence[str]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    in_format: Sequence[bool]
    counts: Sequence[Counts]

    @classmethod
    def by(cls, task: Task, completions: Sequence[str], columns: Mapping[str, Any]) -> "Judged":
        """Judge the completions of a batch, whose columns are those that TRL hands to a reward."""
        rows = batch_rows(columns, task.columns, len(completions))
        pairs = list(zip(completions, rows, strict=True))
        return cls(
            completions,
            rows,
            [task.judge(*pair) for pair in pairs],
            [task.in_format(completion) for completion in completions],
            [task.measure_in_training(*pair) for pair in pairs],
        )


class SampleRecorder:
    """Keeps some completions of each step, and logs how the policy thinks.

    Args:
        folder: where the files go; made when the first sample is written.
        per_step: completions kept each time the rewards are computed, evenly spread over the batch.
        writes: whether this process writes (the main one does); metrics are logged by all.
    """

    def __init__(self, folder: Path, per_step: int, writes: bool = True) -> None:
        self.folder, self.per_step, self.writes = folder, per_step, writes

    def observe(self, task: Task, rewards: Mapping[str, RewardFunction]) -> list[RewardFunction]:
        """The same reward functions, under the same names, whose calls by TRL are recorded.

        TRL calls all of them, in this order, for each batch: the first call has the batch judged, the last one has it
        recorded.
        """
        names, given = list(rewards), dict[str, list[Any]]()
        batch: list[Judged] = []
        record = harmless(self._record)

        def observed(name: str, function: RewardFunction) -> RewardFunction:
            @functools.wraps(function)
            def call(completions: Sequence[str], **columns: Any) -> list[Any]:
                if name == names[0]:
                    batch[:] = [Judged.by(task, completions, columns)]
                    _log(task, batch[0], columns)
                judged = {"verdicts": batch[0].verdicts, "in_format": batch[0].in_format}
                given[name] = function(completions=completions, **judged, **columns)
                if name == names[-1] and self.writes and self.per_step:
                    record(task, batch[0], dict(given), columns)
                return given[name]

            return call

        return [observed(name, function) for name, function in rewards.items()]

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Keep nothing of what is rewarded meanwhile."""
        writes, self.writes = self.writes, False
        try:
            yield
        finally:
            self.writes = writes

    def rewind(self, step: int) -> None:
        """Forget what was recorded after the checkpoint of `step`, because a resumed run does it again.

        Training samples carry the steps done before theirs; the evaluation at `step` came before its checkpoint.
        """
        path = self.folder / RECORDS
        if not self.writes or not path.exists():
            return
        records = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # a killed process has left the last one unfinished
                records.append(json.loads(line))
        for name in (RECORDS, ALL_TEXT, SUCCESS_TEXT):
            (self.folder / name).unlink(missing_ok=True)
        self._write([r for r in records if r["step"] < step + (r["split"] == "test")])

    def _record(
        self, task: Task, batch: Judged, rewards: Mapping[str, Sequence[Any]], columns: Mapping[str, Any]
    ) -> None:
        stride = max(1, len(batch.completions) // self.per_step)
        records = [
            {
                "step": columns["trainer_state"].global_step,
                "split": columns["split"][i] if "split" in columns else "train",
                "row": dict(batch.rows[i]),
                "shown": task.show(batch.rows[i]),
                "completion": batch.completions[i],
                "answer": batch.verdicts[i].answer,
                "reason": str(batch.verdicts[i].reason),
                "rewards": {name: given[i] for name, given in rewards.items()},
                "in_format": batch.in_format[i],
                "attempts": batch.counts[i].get("attempts", (None, 1))[0],
            }
            for i in range(0, len(batch.completions), stride)[: self.per_step]
        ]
        self._write(records)

    def _write(self, records: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = {
            RECORDS: [json.dumps(record, default=str) + "\n" for record in records],
            ALL_TEXT: [_as_text(record) for record in records],
            SUCCESS_TEXT: [_as_text(record) for record in records if record["reason"] == CORRECT],
        }
        for name, lines in texts.items():
            # A completion may hold lone surrogates, which UTF-8 can't: they are written as escapes.
            with (self.folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(lines)


def _log(task: Task, batch: Judged, columns: Mapping[str, Any]) -> None:
    """Log what was solved, why the rest was not, and what the task measures."""
    log_metric: Callable[[str, float], None] | None = columns.get("log_metric")
    report_verdicts(batch.verdicts, task.reasons, columns.get("log_extra"), log_metric)
    if log_metric is None or not batch.completions:
        return
    log_metric(SOLVED, sum(verdict.reason == CORRECT for verdict in batch.verdicts) / len(batch.verdicts))
    log_metric(FORMAT, sum(batch.in_format) / len(batch.in_format))
    for name in batch.counts[0]:
        counted, of = (sum(counts[name][part] for counts in batch.counts) for part in (0, 1))
        # Every process must log the same names, so a batch in which there is none counts as 0, not as missing.
        log_metric(f"thinking/{name}", counted / of if of else 0.0)


def _as_text(record: dict[str, Any]) -> str:
    details = [f"{name} {value}" for name, value in record.get("rewards", {}).items()]
    details += [f"attempts {record['attempts']}"] if record.get("attempts") is not None else []
    shown = record.get("shown", "")  # what an earlier version recorded has neither this nor the rewards
    head = " | ".join([f"step {record['step']} ({record['split']})", shown, record["reason"], *details])
    return f"{'=' * 100}\n{head}\n{'-' * 100}\n<think>{record['completion']}\n\n"
