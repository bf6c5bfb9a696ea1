"""A run's whole life where the machine is not as it should be: everything works, or ends in words."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers.walk import PUZZLE, Said, usual_steps, walk
from helpers.walker import Step

Variables = Mapping[str, str | None]
NO_FOLDER = "/dev/null"  # a file, so that not even root can make a folder below it
NAME = 'täst "x" it\'s'  # of the folder that everything is in
DEAD_PROXY = "socks5://127.0.0.1:1"
ALONE: dict[str, Variables] = {
    "a name with blanks, quotes and umlauts": {},
    "proxies that do not answer": {"ALL_PROXY": DEAD_PROXY, "HTTPS_PROXY": DEAD_PROXY, "HTTP_PROXY": DEAD_PROXY},
    "OMP_NUM_THREADS": {"OMP_NUM_THREADS": "garbage", "OMP_THREAD_LIMIT": "1"},
    "no home": {"HOME": f"{NO_FOLDER}/home", "HF_HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None},
    "no TMPDIR": {"TMPDIR": f"{NO_FOLDER}/tmp"},
    "a poor terminal": {"COLUMNS": "1", "LINES": "1", "TERM": "dumb", "NO_COLOR": "1"},
}
POSIX: Variables = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HF_HOME": f"{NO_FOLDER}/hf"}
DONE, NO_READER = 0, 141


def steps_of_all_kinds(folder: Path) -> list[Step]:
    """The usual walk; then without a stdout, and with a reader that leaves after one line."""
    steps = usual_steps(folder)
    known = {step.name: step.words for step in steps}
    other = ("--output_dir", str(folder / "second run"))
    return [
        *steps,
        Step("train without stdout", (*known["train"], *other), "closed"),
        Step("ask without stdout", ("ask.py", str(folder / "second run"), *PUZZLE), "closed"),
        Step("report to head", known["report"], "head"),
        Step("plan to head", known["plan"], "head"),
    ]


def complaints(said: Mapping[str, Said], steps: list[Step]) -> dict[str, str]:
    """What went wrong, by the step's name; nothing of it may be a traceback either."""
    allowed = {step.name: (DONE, NO_READER) if step.output == "head" else (DONE,) for step in steps}
    missing = {step.name: "was not run" for step in steps if step.name not in said}
    return missing | {
        name: f"status {one.status}: {one.err[-800:]}"
        for name, one in said.items()
        if one.status not in allowed.get(name, (DONE,)) or "Traceback" in one.out + one.err
    }


def test_a_run_lives_in_a_hostile_environment(tmp_path: Path) -> None:
    """All at once; only if that fails, each alone, to name the one that it is."""

    def walk_in(name: str, variables: Variables) -> dict[str, str]:
        folder = tmp_path / name / NAME
        folder.mkdir(parents=True)
        steps = steps_of_all_kinds(folder)
        return complaints(walk(steps, tmp_path / name / "printed", variables), steps)

    together = {key: value for variables in ALONE.values() for key, value in variables.items()}
    if broken := walk_in("together", together):
        causes = {name: walk_in(f"alone {number}", alone) for number, (name, alone) in enumerate(ALONE.items())}
        pytest.fail(f"together: {broken}\nalone: { {name: found for name, found in causes.items() if found} }")
    assert (tmp_path / "together" / NAME / "run" / "report" / "index.html").exists()


@pytest.mark.slow  # each program starts again in UTF-8 mode, and so imports everything itself
def test_a_run_lives_in_a_locale_that_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    steps = [step for step in usual_steps(folder) if step.name not in ("plan", "again")]
    assert complaints(walk(steps, tmp_path / "printed", POSIX), steps) == {}
    assert "täst" in (folder / "run" / "README.md").read_text(encoding="utf-8")
