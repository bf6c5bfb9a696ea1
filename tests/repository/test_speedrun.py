"""The speedrun: when a threshold was reached, which runs are repeated, what the table says; and real runs of it."""

import json
import math
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from mini_r1.program.problems import UserError
from mini_r1.recipe.read import read_recipe

sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a program that is started there

import speedrun
from speedrun import ENTRIES, FIXED, Entry, Race

OURS, OTHER = ENTRIES[0], replace(ENTRIES[-1], name="other", rates=("1e-4", "2e-4"))


def options(**given: Any) -> Namespace:
    return Namespace(**{"quick": True, "puzzles": 8, "every": 0.0, "seeds": [42, 1, 2], "limit": 30, **given})


def run_of(entry: Entry, *shares: float, seed: int = 42, rate: str = "1e-4", **given: Any) -> dict[str, Any]:
    """A run as it is kept, with an evaluation a minute."""
    evaluations = [(60.0 * minute, minute, share) for minute, share in enumerate(shares)]
    kept = {"seed": seed, "learning_rate": rate, "limit": 30, "complete": False, "evaluations": evaluations}
    run: dict[str, Any] = json.loads(json.dumps(speedrun.what_it_is(entry, options()) | kept | given))
    return run


@pytest.mark.parametrize(
    ("shares", "minutes"),
    [
        ((0.3, 0.5, 0.7), 1.5),
        ((0.3, 0.5, 0.6, 0.9), 2.0),
        ((0.3, 0.5, 0.7, 0.5, 0.8), 1.5),  # the first time counts
        ((0.3, 0.7, 0.5), 0.75),
        ((0.6, 0.7), 0.0),
        ((0.3, 0.59), None),
    ],
)
def test_a_threshold_is_reached_on_the_line_to_the_first_measure_above_it(
    shares: tuple[float, ...], minutes: float | None
) -> None:
    evaluations = [(60 * minute, 0, share) for minute, share in enumerate(shares)]
    seconds = speedrun.crossing(evaluations, 0.6)
    assert (seconds and seconds / 60) == pytest.approx(minutes)


def race(monkeypatch: pytest.MonkeyPatch, shares: list[float], every: float, limit: float, steps: int) -> Race:
    """A race of steps of 10 s, each evaluation of which takes 1000 s."""
    now = [0.0]
    monkeypatch.setattr(speedrun.time, "perf_counter", lambda: now[0])

    def solved() -> float:
        now[0] += 1000
        return shares.pop(0)

    runner, state, control = Race(solved, every, limit), Namespace(global_step=0, max_steps=steps), Namespace()
    control.should_training_stop = False
    runner.on_train_begin(None, state, control)  # type: ignore[arg-type]
    while state.global_step < steps and not control.should_training_stop:
        now[0] += 10
        state.global_step += 1
        runner.on_step_end(None, state, control)  # type: ignore[arg-type]
    return runner


@pytest.mark.parametrize(
    ("every", "limit", "steps", "expected"),
    [
        (15, 1e9, 5, [0, 20, 40, 50]),  # at the end, too
        (15, 25, 9, [0, 20, 30]),  # the limit, after the step that was under way
        (1, 1e9, 9, [0, 10, 20, 30, 40, 50]),  # nothing left to reach
    ],
)
def test_the_clock_stands_still_while_the_policy_is_evaluated(
    monkeypatch: pytest.MonkeyPatch, every: float, limit: float, steps: int, expected: list[float]
) -> None:
    ran = race(monkeypatch, [0.3, 0.4, 0.5, 0.6, 0.7, 0.85], every, limit, steps)
    assert [seconds for seconds, _, _ in ran.evaluations] == expected


def test_the_best_learning_rate_is_the_soonest_at_the_highest_threshold_reached() -> None:
    slow, soon, sooner = (0.3, 0.5, 0.55), (0.3, 0.7, 0.75, 0.85), (0.3, 0.8, 0.82, 0.84, 0.85)

    def best(first: tuple[float, ...], second: tuple[float, ...]) -> str:
        return speedrun.best_rate(OTHER, [run_of(OTHER, *first), run_of(OTHER, *second, rate="2e-4")], 42)

    assert best(soon, sooner) == best(sooner[:3], slow) == best(slow, slow[:2]) == "1e-4"
    assert best(slow, soon) == "2e-4"
    with pytest.raises(UserError, match=r"2e-4.*--sweep --entry other"):
        speedrun.best_rate(OTHER, [run_of(OTHER, *soon)], 42)
    assert float(speedrun.best_rate(OURS, [], 42)) == read_recipe(OURS.arguments({}))[1].learning_rate


def test_a_run_is_repeated_only_if_it_would_say_more_or_is_another_one_now() -> None:
    short, reached = run_of(OTHER, 0.3, 0.5), run_of(OTHER, 0.3, 0.9)
    assert speedrun.is_done(short, 30) and not speedrun.is_done(short, 31)
    assert speedrun.is_done(reached, 99)
    assert speedrun.is_done(run_of(OTHER, 0.3, complete=True), 99)
    assert speedrun.runs_of(OTHER, [short, reached], options()) == [reached]  # the newest
    changes: list[dict[str, Any]] = [{"base": "another"}, {"recipe": {}}, {"hardware": "another"}, {"entry": "another"}]
    for change in changes:
        assert speedrun.runs_of(OTHER, [reached | change], options()) == []


def test_the_table_leaves_nobody_out() -> None:
    ours = [run_of(OURS, 0.3, 0.6, seed=seed, complete=True) for seed in (42, 1)] + [run_of(OURS, 0.3, 0.9, seed=2)]
    other = [run_of(OTHER, 0.3, 0.5, 0.7), run_of(OTHER, 0.3, 0.5, 0.5, 0.625, seed=1), run_of(OTHER, 0.3, seed=2)]
    lines = speedrun.as_table([(OTHER, other), (ENTRIES[1], []), (OURS, ours)]).splitlines()[2:]
    cells = {name: rest for name, *rest in ([part.strip() for part in line.strip("|").split("|")] for line in lines)}
    assert list(cells) == ["Mini-R1", "other", ENTRIES[1].name]
    assert cells["Mini-R1"][0] == "1.0 min (0.5 to 1.0), 1.0 x"
    assert cells["Mini-R1"][1] == "not within 1.0 min, but for 1 of 3 seeds (best 90.0%)"
    assert cells["other"] == [
        "2.8 min (1.5 to never), 2.8 x",
        "not within 0.0 min (best 70.0%)",
        "3",
        "1e-4, best of 1e-4, 2e-4",
    ]
    assert cells[ENTRIES[1].name][:3] == ["not measured yet", "not measured yet", "0"]
    assert speedrun.cell([run_of(OURS, 0.3, 0.5, complete=True)], 0.6, math.inf) == (
        "not within 1.0 min, the end of its steps (best 50.0%)"
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_begins_with_the_same_base_and_data(entry: Entry) -> None:
    script, training, model = read_recipe(entry.arguments(FIXED))
    assert (script.dataset_id_or_path, script.max_samples, script.task) == ("generated:tiny", 50_000, "countdown")
    assert Path(str(model.model_name_or_path)).samefile(speedrun.BASE)
    assert (script.test_size, script.split_seed) == (0.1, 42)
    assert (training.use_cpu, training.use_vllm, model.dtype) == (True, False, "float32")
    assert training.max_completion_length == speedrun.LONGEST


def test_the_tutorials_settings_are_those_of_the_original() -> None:
    (tutorial,) = [entry for entry in ENTRIES if entry.name == "TRL-tutorial"]
    _, training, _ = read_recipe(tutorial.arguments(FIXED))
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 24 * 8
    assert (training.beta, training.num_generations, training.temperature) == (0.001, 8, 0.9)
    assert (training.lr_scheduler_type, training.max_steps, training.loss_type) == ("cosine", 450, "grpo")


def test_real_runs_of_stock_trl_and_of_ours_make_a_table(tmp_path: Path) -> None:
    results = tmp_path / "runs.jsonl"
    names = ["Mini-R1", "TRL-defaults"]
    arguments = ["--quick", "--seeds", "42", "--results", str(results)]
    arguments += [word for name in names for word in ("--entry", name)]
    assert speedrun.main(arguments) == 0
    first = results.read_text(encoding="utf-8")
    runs = [json.loads(line) for line in first.splitlines()]
    assert [(run["entry"], run["trainer"]) for run in runs] == [
        ("Mini-R1", "R1Trainer"),
        ("TRL-defaults", "trl.GRPOTrainer"),
    ]
    for run in runs:
        seconds, steps, shares = zip(*run["evaluations"], strict=True)
        assert steps == (0, 1, 2) and run["complete"]
        assert seconds[0] == 0 < seconds[1] < seconds[2]
        assert all(share * 8 == int(share * 8) for share in shares)
    table = results.with_suffix(".md").read_text(encoding="utf-8")
    assert all(table.count(f"| {entry.name} |") == 1 for entry in ENTRIES)
    assert table.count("not measured yet") == 2 * (len(ENTRIES) - len(names))
    assert speedrun.main(arguments) == 0
    assert results.read_text(encoding="utf-8") == first  # nothing was left to run
