"""Samples of a run: what is recorded, that the reward is unchanged, and that a resumed run doesn't repeat itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.registry import rewards_of
from mini_r1.tasks.rewards import judge_equation
from mini_r1.tasks.task import Verdict
from mini_r1.train.samples import SampleRecorder

RIGHT = "\n4 + 3 = 7 yes\n</think>\n<answer> 4 + 3 </answer>"
WRONG = "\n4 - 3 = 1 no\n4 * 3 = 12 no\n</think>\n<answer> 4 * 3 </answer>"


TASK = Countdown()


def call(
    recorder: SampleRecorder, step: int, completions: list[str], rewards: list[str] | None = None, **columns: Any
) -> list[list[float]]:
    """Call the observed rewards as TRL does: one after the other, each with all columns."""
    n = len(completions)
    given = {
        "prompts": [""] * n,
        "completions": completions,
        "completion_ids": [[0]] * n,
        "target": [7] * n,
        "nums": [[3, 4]] * n,
        "trainer_state": SimpleNamespace(global_step=step),
        **columns,
    }
    return [function(**given) for function in recorder.observe(TASK, rewards_of(TASK, rewards))]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_rewards_and_names_are_unchanged(tmp_path: Path) -> None:
    observed: list[Any] = SampleRecorder(tmp_path, per_step=2).observe(TASK, rewards_of(TASK))
    assert [function.__name__ for function in observed] == ["format_reward_func", "equation_reward_func"]
    assert call(SampleRecorder(tmp_path, 2), 0, [RIGHT, WRONG]) == [[1.0, 1.0], [1.0, 0.0]]


def test_a_completion_is_judged_once_however_many_rewards_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def judge(completion: str, *puzzle: Any) -> Verdict:
        judged.append(completion)
        return judge_equation(completion, *puzzle)

    for module in ("mini_r1.tasks.rewards", "mini_r1.tasks.countdown.task"):  # whoever asks
        monkeypatch.setattr(f"{module}.judge_equation", judge)
    call(SampleRecorder(tmp_path, 8), 0, [RIGHT, WRONG])
    assert judged == [RIGHT, WRONG]


def test_each_figure_is_of_what_it_says(tmp_path: Path) -> None:
    """Of four completions one is right, three keep the format, and one of five equations is wrong."""
    wrong_sum = "\n4 + 3 = 8 no\n</think>\n<answer> 4 - 3 </answer>"
    logged: dict[str, float] = {}
    given = call(
        SampleRecorder(tmp_path, 8), 0, [RIGHT, WRONG, wrong_sum, "\n4 + 3 = 7 yes"], log_metric=logged.__setitem__
    )
    assert given == [[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    figures = {"solved": 1 / 4, "format": 3 / 4, "thinking/attempts": 5 / 4, "thinking/arithmetic": 4 / 5}
    assert {name: logged[name] for name in figures} == figures
    assert [record["in_format"] for record in records(tmp_path)] == [True, True, True, False]


def brevity(completions: list[str], **kwargs: Any) -> list[float]:
    """Somebody's own reward."""
    return [1 / (1 + len(completion)) for completion in completions]


def test_metrics_do_not_depend_on_the_rewards(tmp_path: Path) -> None:
    logged: dict[str, float] = {}
    call(SampleRecorder(tmp_path, 8), 0, [RIGHT, WRONG], [f"{__name__}.brevity"], log_metric=logged.__setitem__)
    assert (logged["solved"], logged["format"], logged["verdict/correct"]) == (0.5, 1.0, 0.5)
    (first, _) = records(tmp_path)
    assert first["rewards"] == {f"{__name__}.brevity": 1 / (1 + len(RIGHT))}


def test_records_say_step_puzzle_verdict_and_reward(tmp_path: Path) -> None:
    call(SampleRecorder(tmp_path, per_step=8), 5, [RIGHT, WRONG], split=["test", "test"])
    first, second = records(tmp_path)
    assert first == {
        "step": 5,
        "split": "test",
        "row": {"nums": [3, 4], "target": 7},
        "shown": "3, 4 → 7",
        "completion": RIGHT,
        "answer": "4 + 3",
        "reason": "correct",
        "rewards": {"format": 1.0, "equation": 1.0},
        "in_format": True,
        "attempts": 1,
    }
    assert (second["reason"], second["rewards"]["equation"], second["attempts"]) == ("wrong_value", 0.0, 2)
    everything = (tmp_path / "completion_samples.txt").read_text(encoding="utf-8")
    successes = (tmp_path / "success_completion_samples.txt").read_text()
    assert RIGHT in everything and WRONG in everything
    assert RIGHT in successes and WRONG not in successes
    assert "step 5 (test) | 3, 4 → 7 | wrong_value | format 1.0 | equation 0.0 | attempts 2" in everything


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


def test_rewind_keeps_what_an_earlier_version_recorded(tmp_path: Path) -> None:
    old = {"step": 0, "split": "train", "nums": [3, 4], "target": 7, "completion": RIGHT, "reason": "correct"}
    old |= {"answer": "4 + 3", "equation_reward": 1.0, "format_reward": 1.0, "attempts": 1}
    (tmp_path / "samples.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    SampleRecorder(tmp_path, per_step=8).rewind(1)
    assert records(tmp_path) == [old]
    assert RIGHT in (tmp_path / "success_completion_samples.txt").read_text(encoding="utf-8")


def test_rewind_to_the_start_of_a_used_folder(tmp_path: Path) -> None:
    recorder = SampleRecorder(tmp_path, per_step=8)
    call(recorder, 0, [RIGHT])
    recorder.rewind(0)
    assert records(tmp_path) == []


def test_hostile_text_is_kept_as_text(tmp_path: Path) -> None:
    call(SampleRecorder(tmp_path, 8), 0, ["\ud800 \x00 </think> <script>"])
    assert records(tmp_path)[0]["completion"] == "\ud800 \x00 </think> <script>"
    assert "\\ud800" in (tmp_path / "completion_samples.txt").read_text()
