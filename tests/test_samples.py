"""Samples of a run: what is recorded, that the reward is unchanged, and that a resumed run doesn't repeat itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mini_r1.rewards import equation_reward_func
from mini_r1.samples import SampleRecorder

RIGHT = "\n4 + 3 = 7 yes\n</think>\n<answer> 4 + 3 </answer>"
WRONG = "\n4 - 3 = 1 no\n4 * 3 = 12 no\n</think>\n<answer> 4 * 3 </answer>"


def call(recorder: SampleRecorder, step: int, completions: list[str], **columns: Any) -> list[float]:
    """Call the observed reward as TRL does."""
    n = len(completions)
    return recorder.observe(equation_reward_func)(
        completions=completions,
        target=[7] * n,
        nums=[[3, 4]] * n,
        prompts=[""] * n,
        trainer_state=SimpleNamespace(global_step=step),
        **columns,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_reward_and_name_are_unchanged(tmp_path: Path) -> None:
    observed = SampleRecorder(tmp_path, per_step=2).observe(equation_reward_func)
    assert observed.__name__ == "equation_reward_func"
    assert call(SampleRecorder(tmp_path, 2), 0, [RIGHT, WRONG]) == [1.0, 0.0]


def test_records_say_step_puzzle_verdict_and_reward(tmp_path: Path) -> None:
    call(SampleRecorder(tmp_path, per_step=8), 5, [RIGHT, WRONG], split=["test", "test"])
    first, second = records(tmp_path)
    assert first == {
        "step": 5,
        "split": "test",
        "nums": [3, 4],
        "target": 7,
        "completion": RIGHT,
        "answer": "4 + 3",
        "reason": "correct",
        "equation_reward": 1.0,
        "format_reward": 1.0,
        "attempts": 1,
    }
    assert (second["reason"], second["equation_reward"], second["attempts"]) == ("wrong_value", 0.0, 2)
    everything = (tmp_path / "completion_samples.txt").read_text()
    successes = (tmp_path / "success_completion_samples.txt").read_text()
    assert RIGHT in everything and WRONG in everything
    assert RIGHT in successes and WRONG not in successes
    assert "step 5 (test) | [3, 4] -> 7 | wrong_value | equation 0 | format 1 | attempts 2" in everything


@pytest.mark.parametrize(("batch", "per_step", "kept"), [(2, 8, 2), (128, 8, 8), (100, 8, 8), (8, 8, 8), (9, 8, 8)])
def test_keeps_so_many_per_step(tmp_path: Path, batch: int, per_step: int, kept: int) -> None:
    call(SampleRecorder(tmp_path, per_step), 0, [WRONG] * batch)
    assert len(records(tmp_path)) == kept


def test_only_one_process_writes_but_all_log(tmp_path: Path) -> None:
    logged: dict[str, float] = {}
    call(SampleRecorder(tmp_path, 8, writes=False), 0, [RIGHT, WRONG], log_metric=logged.__setitem__)
    assert list(tmp_path.iterdir()) == []
    assert logged["thinking/attempts"] == 1.5
    assert logged["thinking/arithmetic"] == 1.0
    assert logged["verdict/correct"] == 0.5


def test_every_process_logs_the_same_names(tmp_path: Path) -> None:
    names = []
    for completion in (RIGHT, "nothing"):
        logged: dict[str, float] = {}
        call(SampleRecorder(tmp_path, 0), 0, [completion], log_metric=logged.__setitem__)
        names.append(set(logged))
    assert names[0] == names[1]


def test_rewind_forgets_the_steps_that_are_done_again(tmp_path: Path) -> None:
    recorder = SampleRecorder(tmp_path, per_step=8)
    for step in range(4):
        call(recorder, step, [RIGHT])
    recorder.rewind(2)
    assert [record["step"] for record in records(tmp_path)] == [0, 1]
    assert (tmp_path / "completion_samples.txt").read_text().count("<think>") == 2
    assert (tmp_path / "success_completion_samples.txt").read_text().count("<think>") == 2


def test_rewind_to_the_start_of_a_used_folder(tmp_path: Path) -> None:
    recorder = SampleRecorder(tmp_path, per_step=8)
    call(recorder, 0, [RIGHT])
    recorder.rewind(0)
    assert records(tmp_path) == []


def test_hostile_text_is_kept_as_text(tmp_path: Path) -> None:
    call(SampleRecorder(tmp_path, 8), 0, ["\ud800 \x00 </think> <script>"])
    assert records(tmp_path)[0]["completion"] == "\ud800 \x00 </think> <script>"
    assert "\\ud800" in (tmp_path / "completion_samples.txt").read_text()
