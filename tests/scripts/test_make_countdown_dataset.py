"""The command that writes puzzle files."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import as_program
from mini_r1.tasks.countdown.puzzles import FILE_ENDINGS, WORLDS, generate_puzzles, load_countdown
from mini_r1.tasks.countdown.solver import difficulty

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_countdown_dataset.py"
main = as_program(runpy.run_path(str(SCRIPT))["main"])


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_file_reads_back_as_generated(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / f"puzzles{ending}"
    assert main(["--world", "tiny", "--num", "40", "--seed", "3", "--out", str(out)]) == 0
    generated = generate_puzzles(40, seed=3, world=WORLDS["tiny"])
    labels = [difficulty(row["nums"], row["target"]) for row in generated]
    assert load_countdown(str(out)).to_list() == generated.add_column("difficulty", labels).to_list()
    easy = labels.count("easy")
    assert f"40 puzzles of tiny with seed 3: {easy} easy, " in capsys.readouterr().out


def test_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "puzzles.jsonl"
    out.write_text("mine")
    command = ["--world", "tiny", "--num", "5", "--out", str(out)]
    assert main(command) == 2
    assert out.read_text() == "mine" and "add --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(load_countdown(str(out))) == 5


@pytest.mark.parametrize("name, num, reason", [("a.txt", "5", "has to end in"), ("a.csv", "0", "at least 1")])
def test_says_what_is_wrong(
    name: str, num: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--num", num, "--out", str(tmp_path / name)]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_runs_as_a_script(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    command = [sys.executable, str(SCRIPT), "--num", "5", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert "5 puzzles of countdown-3to4" in done.stdout and len(out.read_text().splitlines()) == 5
