"""The command that evaluates one policy or two."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mini_r1.countdown import load_countdown, puzzle_key, split_train_test
from mini_r1.tiny_base import build_model
from mini_r1.tiny_tokenizer import build_tokenizer

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "evaluate.py"
main = runpy.run_path(str(SCRIPT))["main"]
SMALL = ["--max-samples", "80", "--puzzles", "6", "--samples", "2", "--max-completion-length", "12"]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two random policies, saved."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        tokenizer = build_tokenizer()
        build_model(tokenizer, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return [str(folder) for folder in folders]


def test_evaluates_two_policies_on_held_out_puzzles(policies: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "results.json"
    command = [sys.executable, str(SCRIPT), *policies, *SMALL, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 puzzles of generated:tiny, 2 samples each at temperature 1;")
    assert f"pass@1 of {policies[1]} minus {policies[0]}, puzzle by puzzle: " in done.stdout
    assert "solved=" in done.stderr and "Traceback" not in done.stderr
    results = json.loads(out.read_text())
    assert [result["model"] for result in results] == policies
    assert results[0]["settings"]["ks"] == [1, 2] and results[0]["puzzles"] == 6
    test = split_train_test(load_countdown("generated:tiny", max_samples=80, seed=42), seed=42)["test"]
    held_out = {puzzle_key(row["nums"], row["target"]) for row in test}
    evaluated = results[1]["per_puzzle"]
    assert {puzzle_key(*row) for row in zip(evaluated["nums"], evaluated["target"], strict=True)} <= held_out


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--puzzles", "9"], "only 8 of 80 puzzles are held out"),
        (["--puzzles", "0"], "at least 1"),
        (["--samples", "0"], "samples is 0"),
        (["--ks", "1", "3"], "ks has 3, but samples is 2"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--dataset", "generated:unheard-of"], "no world 'unheard-of'"),
        (["--dataset", "./missing.jsonl"], "no file or folder"),
        (["--max-prompt-length", "5"], "longer than max_prompt_length=5"),
        (["--out", "."], "it is a folder"),
    ],
)
def test_says_what_is_wrong_before_loading_a_model(
    options: list[str], reason: str, policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((Path(policies[0]) / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):  # a policy without weights
        (tmp_path / name).write_text((Path(policies[0]) / name).read_text())
    assert main([str(tmp_path), *SMALL, *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and reason in message and message.count("error: ") == 1


def test_says_which_model_is_missing(policies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, reason in [
        (str(tmp_path / "missing"), "no model folder"),
        (str(tmp_path), "holds no model (no config.json or adapter_config.json)"),
    ]:
        assert main([policies[0], model, *SMALL]) == 2
        assert reason in capsys.readouterr().err
    assert main([policies[0]] * 3) == 2
    assert "one, or two to compare" in capsys.readouterr().err
    (tmp_path / "config.json").write_text((Path(policies[0]) / "config.json").read_text())
    assert main([str(tmp_path), *SMALL]) == 2
    assert "no chat template" in capsys.readouterr().err  # what transformers makes up where no tokenizer is saved
