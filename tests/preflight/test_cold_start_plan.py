"""What the preflight says of a cold start: its demonstrations, and the keys that have no effect in it."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, TINY_RECIPE, dry_run

SFT = ("--method", "sft", "--max_completion_length", "400")


def test_they_are_counted_judged_and_measured() -> None:
    said = dry_run(TINY_RECIPE, *SFT)
    assert "230 of 230 problems, 230 of them right and in format" in said
    assert "demonstrations a step, 1 process" in said
    (idle,) = [line for line in said.splitlines() if "no effect with method: sft" in line]
    assert {"num_generations,", "num_iterations,", "skip_zero_advantage,"} < set(idle.split())


def test_a_limit_that_none_keeps_is_refused_with_one_that_all_keep() -> None:
    said = dry_run(TINY_RECIPE, *SFT[:2], "--max_completion_length", "50")
    assert "max_completion_length" in said and "1 problem" in said
    assert "enough for demonstrations" in said and "to keep them all" in said


def test_problems_without_any_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "unsolvable.jsonl"
    rows = [{"nums": [number, number], "target": 5 * number + 1} for number in range(2, 60)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    said = dry_run(TINY_RECIPE, *SFT, "--dataset_id_or_path", str(data), "--per_device_train_batch_size", "8")
    assert "none of the 52 problems looked at has one" in said and "1 problem" in said


def test_the_program_for_demonstrations_refuses_a_recipe_for_rewards() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "run_sft.py"), "--config", str(TINY_RECIPE), "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the recipe has method: grpo, and this program is for sft.")
