"""Whatever ends a program is one line and a status; nothing here may end in a traceback."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, TINY_RECIPE
from mini_r1.program.failures import in_words, output_is, work_begins

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
PROGRAMS = sorted(path for room in ("scripts", "benchmarks") for path in (ROOT / room).glob("*.py"))
PROGRAM = """
import os, sys, time
from pathlib import Path
from mini_r1.program.failures import in_words, output_is, say, work_begins
from mini_r1.program.problems import UserError

def main():
    {body}

with in_words():
    sys.exit(main())
"""


def run_program(body: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program of our own whose main is `body`."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "status", "last"),
    [
        ("return 3", 3, ""),
        ("raise UserError('the cause. Fix: this')", 2, "error: the cause. Fix: this"),
        ("raise UserError('ERROR: Error:  it is in the way')", 2, "error: it is in the way"),
        ("raise UserError('it ended:' + chr(10) + 'detail')", 2, "error: it ended:"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("import no_such_package", 2, "error: the Python package no_such_package is missing"),
        ("raise KeyError('x')", 2, "error: KeyError: 'x' (full traceback: "),
        ("raise RuntimeError", 2, "error: RuntimeError: RuntimeError (full traceback: "),
        ("raise UnicodeEncodeError('ascii', 'x', 0, 1, 'no')", 2, "error: UnicodeEncodeError"),
        ("open('/no/such/file')", 2, "error: a file or folder is missing ([Errno 2]"),
        ("work_begins(); raise UserError('late')", 1, "error: late (full traceback: "),
        ("f = lambda: f(); f()", 2, "error: something is nested too deeply"),
        ("raise UserError('--api-key sk-abcdefghijklmnop of hf_abcdefghijklmnop')", 2, "error: --api-key"),
        ("os.close(2); raise UserError('nobody can read this')", 2, ""),
        ("print(chr(233), chr(26085)); raise UserError('caf' + chr(233))", 2, "error: caf"),
    ],
)
def test_whatever_is_raised_is_one_line_and_a_status(body: str, status: int, last: str) -> None:
    done = run_program(body, LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", TMPDIR="/tmp")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_abcdefghijklmnop" not in done.stderr
    assert done.stderr.count("error: ") <= 1
    lines = done.stderr.splitlines() or [""]
    assert lines[-1].startswith(last), done.stderr


def test_an_interrupt_inside_another_failure_or_twice_is_still_one_line() -> None:
    """A library that turns KeyboardInterrupt into its own error, and a second Ctrl-C while the first one unwinds."""
    wrapping = "raise ImportError('a library gave up') from error"
    for handler in (f"except BaseException as error:\n        {wrapping}", "finally:\n        raise KeyboardInterrupt"):
        body = f"\n    try:\n        raise KeyboardInterrupt\n    {handler}"
        done = run_program(body)
        assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_late_failure_leaves_its_traceback_in_the_folder_of_the_run_without_tokens(tmp_path: Path) -> None:
    body = f"output_is(Path({str(tmp_path)!r})); work_begins(); raise ValueError('hf_abcdefghijklmnop')"
    done = run_program(body)
    assert done.returncode == 1
    assert done.stderr.endswith(f"(full traceback: {tmp_path / 'error.log'})\n")
    text = (tmp_path / "error.log").read_text(encoding="utf-8")
    assert "Traceback" in text and "raise ValueError" not in text.replace("in main", "")  # -c has no source
    assert "hf_abcdefghijklmnop" not in text + done.stderr


def test_where_the_folder_can_not_be_written_the_traceback_is_in_the_temporary_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "error.log").mkdir()  # root may write anything else
    done = run_program(f"output_is(Path({str(folder)!r})); work_begins(); raise KeyError(1)", TMPDIR=str(tmp_path))
    (log,) = tmp_path.glob("mini-r1-*-error.log")
    assert str(log) in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As in `... | head -1`."""
    code = PROGRAM.format(body="[print('x' * 1000) for _ in range(10000)]")
    command = f'{sys.executable} -c "$CODE" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CODE": code},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


@pytest.mark.parametrize(("end", "status"), [("return 0", 0), ("return 7", 7), ("raise UserError('no')", 2)])
def test_a_process_with_a_process_group_ends_before_python_takes_itself_apart(
    end: str, status: int, tmp_path: Path
) -> None:
    """What gloo's threads do during that would kill it; all that is to happen at its exit still happens."""
    group = f"file://{tmp_path / 'store'}"
    body = f"""
    import atexit, torch.distributed as dist
    class Remnant:
        def __del__(self, abort=os.abort):
            abort()
    sys.remnant = Remnant()
    dist.init_process_group("gloo", init_method="{group}", rank=0, world_size=1)
    atexit.register(print, "at exit")
    {end}
"""
    ended = run_program(body)
    assert (ended.returncode, ended.stdout) == (status, "at exit\n"), ended.stderr
    assert run_program(body.replace('dist.init_process_group("gloo", ', "dict(")).returncode == -signal.SIGABRT


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed: str) -> None:
    body = "print('x'); say('y'); sys.stdin and sys.stdin.read(); return 5"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$CODE" {closed}'],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CODE": PROGRAM.format(body=body)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5, done.stderr


def test_several_processes_say_it_once_through_their_launcher(tmp_path: Path) -> None:
    """What differs is said by each; that the others lost the first one is not."""
    script = tmp_path / "program.py"
    body = (
        "import torch; rank = os.environ['RANK']; time.sleep(3 if rank == '2' else 0);"
        "raise RuntimeError('Connection closed by peer') if rank == '2' else UserError('all alike')"
    )
    script.write_text(PROGRAM.format(body=body), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3", script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == ["error: all alike"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_program_imports_and_runs_in_words(program: Path) -> None:
    """Nothing but the standard library and `failures` comes before; what is raised has no second speaker."""
    text = program.read_text(encoding="utf-8")
    assert 'if __name__ == "__main__":\n    with in_words():\n' in text
    before, _, after = text.partition("\nwith in_words():\n")
    names = [alias.name if isinstance(node, ast.Import) else node.module or "" for node in ast.parse(before).body
             if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]  # fmt: skip
    others = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert others <= {"mini_r1.program.failures", "mini_r1.program.problems"}
    assert 'print(f"error: ' not in after


@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c_while_a_script_loads_is_one_line(name: str) -> None:
    """All of them import for seconds; those that train answer --help without."""
    trains = name in ("run_r1_grpo.py", "run_sft.py")
    words = ["--config", str(TINY_RECIPE), "--dry_run"] if trains else ["--help"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / name), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while "site-packages" not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_what_an_earlier_run_left_says_nothing_of_the_next_program(tmp_path: Path) -> None:
    """In one process, as in a notebook: the status, and where a traceback goes, are each program's own."""
    output_is(tmp_path)
    work_begins()
    with pytest.raises(SystemExit) as left, in_words():
        raise KeyError(1)
    assert left.value.code == 2
    assert list(tmp_path.iterdir()) == []
