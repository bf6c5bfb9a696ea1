"""Samples: what the policy wrote during a run, kept for people (text) and for tools (JSON Lines).

`SampleRecorder.observe` wraps the equation reward: the reward stays a pure function, and every call is also recorded.
The folder holds, written by one process only,

* `samples.jsonl`: one object per kept completion: step, split, puzzle, completion, answer, reason, rewards, attempts;
* `completion_samples.txt`, `success_completion_samples.txt`: the same to read, all of them and the successful ones.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mini_r1.harmless import harmless
from mini_r1.rewards import Reason, Verdict, judge_equation, judge_format
from mini_r1.traces import Thinking, read_thinking

RECORDS, ALL_TEXT, SUCCESS_TEXT = "samples.jsonl", "completion_samples.txt", "success_completion_samples.txt"
RewardFunction = Callable[..., list[float]]


class SampleRecorder:
    """Keeps some completions of each step, and logs how the policy thinks.

    Args:
        folder: where the files go; made when the first sample is written.
        per_step: completions kept each time the reward is computed, evenly spread over the batch.
        writes: whether this process writes (the main one does); metrics are logged by all.
    """

    def __init__(self, folder: Path, per_step: int, writes: bool = True) -> None:
        self.folder, self.per_step, self.writes = folder, per_step, writes

    def observe(self, equation_reward: RewardFunction) -> RewardFunction:
        """The same reward function, under the same name, whose calls by TRL are recorded."""
        record = harmless(self._record)

        @functools.wraps(equation_reward)
        def observed(completions: Sequence[str], **columns: Any) -> list[float]:
            rewards = equation_reward(completions, **columns)
            thinking = [read_thinking(completion) for completion in completions]
            _log_thinking(thinking, columns.get("log_metric"))
            if self.writes and self.per_step:
                record(completions, rewards, thinking, columns)
            return rewards

        return observed

    def rewind(self, step: int) -> None:
        """Forget what was recorded after the checkpoint of `step`, because a resumed run does it again.

        Training samples carry the steps done before theirs; the evaluation at `step` came before its checkpoint.
        """
        path = self.folder / RECORDS
        if not self.writes or not path.exists():
            return
        records = list(_readable(path.read_text(encoding="utf-8", errors="replace").splitlines()))
        for name in (RECORDS, ALL_TEXT, SUCCESS_TEXT):
            (self.folder / name).unlink(missing_ok=True)
        self._write([r for r in records if r["step"] < step + (r["split"] == "test")])

    def _record(
        self,
        completions: Sequence[str],
        rewards: Sequence[float],
        thinking: Sequence[Thinking],
        columns: dict[str, Any],
    ) -> None:
        stride = max(1, len(completions) // self.per_step)
        kept = range(0, len(completions), stride)[: self.per_step]
        records = []
        for i in kept:
            verdict: Verdict = judge_equation(completions[i], columns["target"][i], columns["nums"][i])
            records.append(
                {
                    "step": columns["trainer_state"].global_step,
                    "split": columns["split"][i] if "split" in columns else "train",
                    "nums": list(columns["nums"][i]),
                    "target": columns["target"][i],
                    "completion": completions[i],
                    "answer": verdict.answer,
                    "reason": verdict.reason.value,
                    "equation_reward": rewards[i],
                    "format_reward": float(judge_format(completions[i])),
                    "attempts": thinking[i].attempts,
                }
            )
        self._write(records)

    def _write(self, records: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        successes = [record for record in records if record["reason"] == Reason.CORRECT.value]
        self._append(RECORDS, (json.dumps(record) + "\n" for record in records))
        self._append(ALL_TEXT, map(_as_text, records))
        self._append(SUCCESS_TEXT, map(_as_text, successes))

    def _append(self, name: str, texts: Any) -> None:
        # A completion may hold lone surrogates, which UTF-8 can't: they are written as escapes.
        with (self.folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(texts)


def _readable(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records in the lines, without one that a killed process left unfinished."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _log_thinking(thinking: Sequence[Thinking], log_metric: Callable[[str, float], None] | None) -> None:
    """Log attempts per completion, and the share of right equations inside the thinking where there are any."""
    if log_metric is None or not thinking:
        return
    log_metric("thinking/attempts", sum(t.attempts for t in thinking) / len(thinking))
    equations = sum(t.equations for t in thinking)
    # Every process must log the same names, so a batch without equations counts as wrong, not as missing.
    log_metric("thinking/arithmetic", sum(t.right for t in thinking) / equations if equations else 0.0)


def _as_text(record: dict[str, Any]) -> str:
    head = (
        f"step {record['step']} ({record['split']}) | {record['nums']} -> {record['target']} | {record['reason']} | "
        f"equation {record['equation_reward']:g} | format {record['format_reward']:g} | attempts {record['attempts']}"
    )
    return f"{'=' * 100}\n{head}\n{'-' * 100}\n<think>{record['completion']}\n\n"
