"""The command that gives a policy one puzzle."""

import io
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, TINY_BASE
from helpers.countdown_prompts import render_prompt
from mini_r1.generation.sampling import Completion, generate_completions
from mini_r1.policy.loading import load_model, load_tokenizer
from mini_r1.program.failures import in_words

SCRIPT = ROOT / "scripts" / "ask.py"
main = runpy.run_path(str(SCRIPT))["main"]
PUZZLE = ["--numbers", "19", "36", "55", "--target", "72"]
PREFILL = "Let me solve this step by step.\n<think>"


def sampled(seed: int) -> Completion:
    """What the tiny base writes for the puzzle, by another way."""
    tokenizer, model = load_tokenizer(str(TINY_BASE)), load_model(str(TINY_BASE))
    ((completion,),) = generate_completions(
        model,
        tokenizer,
        [render_prompt(tokenizer, [19, 36, 55], 72)],
        samples=1,
        temperature=1.0,
        max_completion_length=320,
        batch_size=1,
        seed=seed,
    )
    return completion


def test_it_prints_the_puzzle_and_each_completion_with_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY_BASE), *PUZZLE, "--samples", "3", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("> 19, 36, 55 → 72\n\n" + PREFILL)
    assert printed.count(PREFILL) == 3
    assert printed.count("; format ok; ") + printed.count("; format broken; ") == 3
    assert "a solution: " in printed


class Stream(io.StringIO):
    """Standard output that remembers what was there at each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def flush(self) -> None:
        self.seen.append(self.getvalue())


def test_it_shows_the_text_while_it_is_written_and_exactly_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    completion = sampled(seed=1)
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([str(TINY_BASE), *PUZZLE, "--seed", "1", "--temperature", "1"]) == 0
    shown = stream.getvalue().partition(PREFILL)[2].partition("\n---")[0]
    assert shown == completion.text
    growing = {len(text) for text in stream.seen if PREFILL in text and "\n---" not in text}
    assert len(growing) > 0.8 * completion.tokens


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        main([str(TINY_BASE), *PUZZLE, "--seed", seed, "--temperature", "1"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_one_completion_is_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], [], ["--temperature", "0", "--seed", "5"]):
        main([str(TINY_BASE), *PUZZLE, *arguments])
    texts = capsys.readouterr().out.split("> 19, 36, 55")[1:]
    assert texts[0] == texts[1] == texts[2]


def test_samples_differ_and_the_global_random_state_does_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(TINY_BASE), *PUZZLE, "--seed", "1", "--samples", "4"])
    assert len(set(capsys.readouterr().out.split(PREFILL)[1:])) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder", *PUZZLE], "no/such/folder"),
        (["assets/tiny-countdown-bse", *PUZZLE], "did you mean assets/tiny-countdown-base?"),
        ([str(TINY_BASE), "--numbers", "5", "--target", "5"], "--numbers [5]: give 2 to 6 whole numbers"),
        ([str(TINY_BASE), "--numbers", "1", "2", "3", "4", "5", "6", "7", "--target", "5"], "2 to 6"),
        ([str(TINY_BASE), "--numbers", "-5", "5", "--target", "5"], "--numbers -5: give whole numbers above 0"),
        ([str(TINY_BASE), "--numbers", "5", "1" + "0" * 18, "--target", "5"], "at most 18 digits"),
        ([str(TINY_BASE), "--numbers", "5", "x", "--target", "5"], "--numbers: invalid int value: 'x'"),
        ([str(TINY_BASE), "--numbers", "5", "9" * 5_000, "--target", "5"], "--numbers: invalid int value"),
        (
            [str(TINY_BASE), "--numbers", "5", "6", "--target", "9" * 19],
            "--target 9999999999999999999: give at most 18",
        ),
        ([str(TINY_BASE), "--numbers", "5", "6"], "--target"),
        ([str(TINY_BASE), *PUZZLE, "--samples", "0"], "--samples 0: give at least 1"),
        ([str(TINY_BASE), *PUZZLE, "--sampl", "2"], "--sampl"),
        ([str(TINY_BASE), *PUZZLE, "--max-completion-length", "0"], "at least 1"),
        ([str(TINY_BASE), *PUZZLE, "--max-completion-length", "5000"], "the model sees 512 tokens"),
        *(([str(TINY_BASE), *PUZZLE, "--seed", seed], "give 0 to 4294967295") for seed in ("-1", "4294967296")),
        *(
            ([str(TINY_BASE), *PUZZLE, "--temperature", temperature], f"--temperature {shown}: give 0 (greedy) or 0.01")
            for temperature, shown in [
                ("nan", "nan"),
                ("inf", "inf"),
                ("-1", "-1.0"),
                ("1e-300", "1e-300"),
                ("1e9", "1000000000.0"),
            ]
        ),
    ],
)
def test_wrong_input_is_one_error_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended, in_words():
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert len(line) < 500


def test_remote_code_runs_only_where_it_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model with code of its own, as on the Hub: a configuration class beside the weights."""
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((TINY_BASE / name).read_bytes())
    code = "from transformers import Qwen3Config\nopen({!r}, 'w').close()\nclass Own(Qwen3Config):\n    pass\n"
    (tmp_path / "own.py").write_text(code.format(str(tmp_path / "was run")))
    config = (TINY_BASE / "config.json").read_text()
    own = '{"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own_model.OwnModel"},'
    (tmp_path / "config.json").write_text(config.replace("{", own, 1).replace('"qwen3"', '"own_kind"'))
    (tmp_path / "own_model.py").write_text(
        "from transformers import Qwen3ForCausalLM\nfrom .own import Own\n"
        "class OwnModel(Qwen3ForCausalLM):\n    config_class = Own\n"
    )
    with pytest.raises(SystemExit) as ended, in_words():
        main([str(tmp_path), *PUZZLE])
    assert ended.value.code == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not (tmp_path / "was run").exists()
    assert main([str(tmp_path), *PUZZLE, "--seed", "1", "--trust-remote-code"]) == 0
    assert sampled(seed=1).text in capsys.readouterr().out
    assert (tmp_path / "was run").exists()


def test_ctrl_c_in_the_middle_is_one_line() -> None:
    """The real command: interrupted as soon as it writes."""
    command = [sys.executable, str(SCRIPT), str(TINY_BASE), *PUZZLE, "--samples", "1000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stdout
    assert process.stderr
    for line in process.stdout:
        if line.startswith("---"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["interrupted"]
