"""Every command that a document gives is run as it stands there, in an environment made by the documented lines alone.

The repository is cloned, with what is not committed yet, and set up as README says. The table of
`documented_commands.py` tells for each command how it is run: for real, shortened, or as a dry run. A command that is
not in it fails here, and so does an entry that is in no document.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from helpers.documented_commands import DONE, INSTALL, ORIGINAL, READY, TABLE, TINY, VENV
from helpers.documents import MARKDOWN, SOURCES, commands, install_cell, unmarked_blocks
from helpers.requirements import skip_or_fail
from mini_r1.generation.server import plan_server
from mini_r1.recipe.read import read_recipe


def clean_environment() -> dict[str, str]:
    """That of a shell outside of this test: no virtual environment, nothing on Python's path."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "MINI_R1", "HF_", "WANDB")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    folders = os.environ["PATH"].split(os.pathsep)
    outside = [folder for folder in folders if not Path(folder).is_relative_to(sys.prefix)]
    return environment | {"PATH": os.pathsep.join(outside), "HF_HUB_OFFLINE": "1"}


def shell(command: str, folder: Path, activate: bool = True) -> str:
    """Type a command into a new bash in the folder, after `. .venv/bin/activate`; returns what it printed."""
    lines = f". .venv/bin/activate\n{command}" if activate else command
    done = subprocess.run(
        ["bash", "-ec", lines],
        cwd=folder,
        env=clean_environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def fresh_clone(folder: Path) -> Path:
    """A clone of this checkout in a new folder, with what has been changed since the last commit."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--deleted", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        elif name:
            (folder / name).unlink(missing_ok=True)
    return folder


class Newcomer:
    """A clone with an environment of its own, and the commands that were typed into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = fresh_clone(folder)
        self.printed: dict[str, str] = {}

    def type(self, command: str) -> str:
        """Run a documented command as the table says, once; returns what it printed."""
        if command not in self.printed:
            how = TABLE[command]
            if how.first:
                self.type(how.first)
            text = f"{command} {how.more}".strip()
            for placeholder, value in how.instead.items():
                text = text.replace(placeholder, value)
            self.printed[command] = shell(text, self.folder)
        return self.printed[command]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """What README's lines make of a bare machine."""
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer") / "mini-r1")
    try:
        shell(f"{VENV}\n{INSTALL}", newcomer.folder, activate=False)
    except AssertionError as error:
        skip_or_fail(f"the packages can't be installed: {str(error)[-1000:]}")
    newcomer.printed |= {VENV: "", INSTALL: ""}
    return newcomer


def test_every_documented_command_is_in_the_table() -> None:
    found = commands()
    unknown = {text: documents for text, documents in found.items() if text not in TABLE}
    assert unknown == {}
    assert set(TABLE) - set(found) == set()


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_block_says_whether_it_is_commands(name: str) -> None:
    assert unmarked_blocks((ROOT / name).read_text(encoding="utf-8")) == []


def test_a_server_of_ones_own_is_started_as_a_run_starts_its_own() -> None:
    """The line in TROUBLESHOOTING, with the original recipe; only the port is free to choose."""
    (line,) = [text for text in commands() if "vllm serve" in text]
    words = shlex.split(line.replace('{"backend":"nccl"}', '{"backend": "nccl"}'))
    plan = plan_server(*read_recipe(["--config", str(ROOT / ORIGINAL)]), gpus=["3"])
    assert dict(word.split("=") for word in words[:2]) == plan.environment({})
    own = plan.command()
    model, *documented = words[words.index("serve") + 1 :]
    assert model == own[own.index("serve") + 1]
    options = dict(zip(documented[::2], documented[1::2], strict=True))
    assert all(own[own.index(name) + 1] == value for name, value in options.items() if name != "--port")
    assert {"--weight-transfer-config", "--logprobs-mode", "--max-logprobs", "--max-model-len"} <= set(options)


def test_every_replacement_of_the_table_is_for_something() -> None:
    idle = [text for text, how in TABLE.items() if how.instead and not any(name in text for name in how.instead)]
    assert idle == []


RUN = [text for text, how in TABLE.items() if how.kind != "not run" and how is not DONE]


def test_every_program_finds_the_mini_r1_beside_it() -> None:
    """Without an installation, and before another one that is installed."""
    sources = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    programs = {path: text for path, text in sources.items() if re.search(r"^\s*from mini_r1", text, re.MULTILINE)}
    assert len(programs) > 10
    late = [path for path, text in programs.items() if "sys.path.insert(0, " not in text.partition("from mini_r1")[0]]
    assert late == []


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_documented_command(newcomer: Newcomer, command: str) -> None:
    assert TABLE[command].shows in newcomer.type(command)


@pytest.mark.slow
def test_a_program_runs_from_another_folder_by_its_full_path(newcomer: Newcomer, tmp_path: Path) -> None:
    command = f"python {newcomer.folder}/scripts/run_r1_grpo.py --config {newcomer.folder}/{TINY} --dry_run"
    assert READY in shell(f". {newcomer.folder}/.venv/bin/activate\n{command}", tmp_path, activate=False)


@pytest.mark.slow
def test_the_wheel_has_the_whole_library(newcomer: Newcomer, tmp_path: Path) -> None:
    """Imported from another folder, isolated from this one."""
    newcomer.type("pip install dist/mini_r1-0.1.0-py3-none-any.whl")
    code = "import mini_r1, mini_r1.results.report, mini_r1.results.card; print(mini_r1.__path__[0])"
    printed = shell(f". {newcomer.folder}/.venv/bin/activate\npython -I -c '{code}'", tmp_path, activate=False)
    installed = Path(printed.splitlines()[-1])
    assert installed.is_relative_to(newcomer.folder / ".venv")
    files = [path.relative_to(ROOT / "mini_r1") for path in (ROOT / "mini_r1").rglob("*") if path.is_file()]
    missing = [path for path in files if "__pycache__" not in path.parts and not (installed / path).exists()]
    assert missing == []


@pytest.mark.slow
def test_the_notebooks_first_cell_installs_and_can_be_run_again(newcomer: Newcomer, tmp_path: Path) -> None:
    """In an empty folder, as on Colab; then as its text asks: restart the kernel, run it again."""
    cell, empty = install_cell(), 'REPOSITORY = ""'
    assert empty in cell
    (tmp_path / "cell.py").write_text(cell.replace(empty, f"REPOSITORY = {str(newcomer.folder)!r}"), encoding="utf-8")
    line = f". {newcomer.folder}/.venv/bin/activate\npython cell.py"
    shell(line, tmp_path, activate=False)
    assert "everything is installed" in shell(line, tmp_path, activate=False)
    code = "import bitsandbytes, mini_r1; print(mini_r1.__path__[0])"
    (tmp_path / "look.py").write_text(code, encoding="utf-8")
    assert str(tmp_path / "mini-r1") in shell(line.replace("cell.py", "look.py"), tmp_path, activate=False)
