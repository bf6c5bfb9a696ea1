"""What is installed: the requirement files are those of pyproject.toml, and everything below them is pinned."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT
from helpers.requirements import skip_or_fail

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
SETUPS = {"requirements.txt": None, "requirements-gpu.txt": "gpu", "requirements-dev.txt": "dev"}
VERSIONS = ["3.11", "3.12", "3.13"]
THIS_PYTHON = ["--python", sys.executable, "--no-python-downloads"]  # runs uv's builds, for whichever version


def normal(requirement: str) -> str:
    """A requirement as any tool may write it: `A_b==1; marker` and `a-b==1 ; marker` are the same."""
    pin, _, marker = requirement.partition(";")
    return f"{pin.strip().lower().replace('_', '-')};{marker.strip()}"


def named(file: str) -> list[str]:
    """The packages that a requirement file names."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith(("#", "-c "))]


@pytest.mark.parametrize(("file", "extra"), SETUPS.items())
def test_a_requirement_file_is_what_the_project_names(file: str, extra: str | None) -> None:
    """`make lock` writes them; a change of pyproject.toml without it is found here."""
    wanted = PROJECT["dependencies"] + (PROJECT["optional-dependencies"][extra] if extra else [])
    assert sorted(map(normal, named(file))) == sorted(map(normal, wanted))
    assert "-c requirements.lock" in (ROOT / file).read_text(encoding="utf-8").splitlines()


def test_the_lock_has_what_is_named_and_nothing_but_pins() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    pins = {normal(line).partition(";")[0] for line in LOCK}
    assert {normal(line).partition(";")[0] for line in PROJECT["dependencies"] + extras} <= pins
    assert [line for line in LOCK if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line)] == []


@pytest.fixture(scope="module")
def uv() -> str:
    """uv, where it reaches a package registry."""
    program = shutil.which("uv", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if program is None:
        skip_or_fail("no uv: pip install -r requirements-dev.txt")
    probe = [program, "pip", "compile", "--quiet", "--no-deps", "--no-config", *THIS_PYTHON, "-"]
    done = subprocess.run(probe, input="pip", capture_output=True, text=True, check=False)
    if done.returncode:
        skip_or_fail(f"no package registry: {' '.join(done.stderr.split())[:200]}")
    return program


# deepspeed builds its operators on first use; of those that reasoning-gym names, gcc has to make pycosat.
WITHOUT_WHEELS = ("deepspeed", "cellpylib", "pycosat", "zss")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", SETUPS)
def test_a_setup_resolves_to_the_lock_and_its_wheels_exist(uv: str, file: str, version: str, tmp_path: Path) -> None:
    """The GPU's too, without a GPU: nothing is downloaded but what the packages say of themselves."""
    compiled = tmp_path / "compiled.txt"
    wheels = ["--only-binary", ":all:", *(f"--no-binary={package}" for package in WITHOUT_WHEELS)]
    platform = ["--python-version", version, "--python-platform", "x86_64-manylinux_2_31"]
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *wheels, *platform, *THIS_PYTHON]
    subprocess.run([*command, str(ROOT / file), "--output-file", str(compiled)], check=True, stderr=sys.stderr)
    resolved = compiled.read_text(encoding="utf-8").splitlines()
    pins = {line.partition(" ;")[0] for line in LOCK}
    assert len(resolved) > len(named(file))
    assert [line for line in resolved if line not in pins] == []
