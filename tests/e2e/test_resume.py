"""Two real processes: their gradient, resume and faults. A resumed run equals an unbroken one; nothing is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import ROOT
from helpers.requirements import skip_or_fail
from mini_r1.policy.checkpoints import ZERO3, missing, read_checkpoint
from mini_r1.runs.records import points, read_log

pytestmark = [pytest.mark.slow, pytest.mark.alone]
HERE = Path(__file__).parent
SCRIPT = str(ROOT / "scripts" / "run_r1_grpo.py")
PYTHON = [sys.executable]
DDP = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ZERO3_LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"),
    *("--config_file", str(HERE / "zero3_on_cpu.yaml")),
]
LAUNCHES = {"ddp": DDP, "zero3": ZERO3_LAUNCH}
SHORT = ["--eval_strategy", "no", "--eval_on_start", "false", "--report_to", "none"]
# Two processes with half the batch each.
HALF = ["--per_device_train_batch_size", "8", *SHORT]
ENDLESS = ["--max_steps", "100000", "--save_steps", "2"]


def environment() -> dict[str, str]:
    """One thread per process, this checkout's package, and DeepSpeed without its compiler (tests/vllm_cpu)."""
    path = os.pathsep.join([str(ROOT / "tests" / "vllm_cpu"), str(ROOT)])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def launch(launcher: list[str], arguments: list[str], folder: Path, *more: str) -> "subprocess.Popen[str]":
    """Start the script; its output, of both kinds, can be read."""
    command = [*launcher, SCRIPT, *arguments, "--output_dir", str(folder), *more]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end; (exit status, output)."""
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str]) -> Iterator[dict[str, Path]]:
    """The output folders of whole runs of four steps, one for each way to launch two processes."""
    folders = {}
    for name, launcher in LAUNCHES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        status, output = finish(launch(launcher, small_arguments, folders[name], *HALF))
        assert status == 0, output
    yield folders


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """What has to be the same at each step."""
    log = read_log(folder / "trainer_state.json")
    names = ("loss", "grad_norm", "learning_rate", "rewards/equation_reward_func/mean", "completions/mean_length")
    return {name: points(log, name) for name in names}


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_resumed_run_of_two_processes_equals_an_unbroken_one(
    name: str, unbroken: dict[str, Path], tmp_path: Path, small_arguments: list[str]
) -> None:
    """Same curves and same weights, so that data order, optimizer, schedule and random state went on."""
    whole = unbroken[name]
    checkpoint = read_checkpoint(whole / "checkpoint-2")
    assert checkpoint.processes == 2
    assert (checkpoint.engine == ZERO3) == (name == "zero3")
    shutil.copytree(checkpoint.folder, tmp_path / "checkpoint-2")
    status, output = finish(launch(LAUNCHES[name], small_arguments, tmp_path, *HALF))
    assert status == 0, output
    assert "checkpoint-2 (step 2)" in output
    assert sorted(curves(whole)["loss"]) == [1, 2, 3, 4]
    assert curves(tmp_path) == curves(whole)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", LAUNCHES)
def test_two_processes_resume_in_the_middle_of_a_generation(
    name: str, tmp_path: Path, small_arguments: list[str]
) -> None:
    """Each has its own completions, from which the last of the four steps learns for the second time."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    reuse = [*HALF, "--num_iterations", "2", "--save_steps", "3"]
    status, output = finish(launch(LAUNCHES[name], small_arguments, whole, *reuse))
    assert status == 0, output
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3")
    assert {path.name for path in resumed.glob("*/generation-*")} == {"generation-0.pt", "generation-1.pt"}
    status, output = finish(launch(LAUNCHES[name], small_arguments, resumed, *reuse))
    assert status == 0, output
    assert "checkpoint-3 (step 3)" in output
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_cold_start_over_two_processes_equals_an_unbroken_one_too(tmp_path: Path, small_arguments: list[str]) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    sft = [*HALF, "--method", "sft", "--max_completion_length", "400", "--logging_steps", "1"]
    status, output = finish(launch(ZERO3_LAUNCH, small_arguments, whole, *sft))
    assert status == 0, output
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    status, output = finish(launch(ZERO3_LAUNCH, small_arguments, resumed, *sft))
    assert status == 0, output
    losses, again = (points(read_log(folder / "trainer_state.json"), "loss") for folder in (whole, resumed))
    assert sorted(losses) == [1, 2, 3, 4] and losses == again
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("shares", ["false", "true"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_savings_change_no_gradient_over_two_processes(
    name: str, shares: str, unbroken: dict[str, Path], tmp_path: Path, small_arguments: list[str]
) -> None:
    """The first step's loss and gradient, where each process has its own number of completions to learn from."""
    saving = [*HALF, "--skip_zero_advantage", "true", "--share_prompts", shares, "--max_steps", "1"]
    status, output = finish(launch(LAUNCHES[name], small_arguments, tmp_path, *saving))
    assert status == 0, output
    equal = points(read_log(tmp_path / "trainer_state.json"), "frac_reward_zero_std")[1]
    assert 0 < equal < 1  # there was something to skip, and something to learn from
    for metric in ("loss", "grad_norm", "completions/mean_length"):
        assert curves(tmp_path)[metric][1] == pytest.approx(curves(unbroken[name])[metric][1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["ddp"])
def test_two_processes_replace_groups_together_and_resume_alike(
    name: str, unbroken: dict[str, Path], tmp_path: Path, small_arguments: list[str]
) -> None:
    """Each has its own number of groups to replace, and none is left waiting for the other."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    more = [*HALF, "--resample_uniform_groups", "2"]
    status, output = finish(launch(LAUNCHES[name], small_arguments, whole, *more))
    assert status == 0, output
    log = read_log(whole / "trainer_state.json")
    before, replaced, extra = (
        points(log, f"resampling/{of}") for of in ("uniform_groups", "replaced_groups", "extra_completions")
    )
    assert before[1] == points(read_log(unbroken[name] / "trainer_state.json"), "frac_reward_zero_std")[1]
    assert any(replaced.values()) and all(replaced[step] <= before[step] for step in before)
    assert any(before[step] < extra[step] for step in before)  # one process needed more than the other, or another try
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    status, output = finish(launch(LAUNCHES[name], small_arguments, resumed, *more))
    assert status == 0, output
    assert curves(resumed) == curves(whole)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("written", "launcher"), [("zero3", PYTHON), ("ddp", ZERO3_LAUNCH)])
def test_a_checkpoint_of_another_engine_is_refused(
    written: str, launcher: list[str], unbroken: dict[str, Path], tmp_path: Path, small_arguments: list[str]
) -> None:
    """One error that says how to go on, not a run without its optimizer."""
    shutil.copytree(unbroken[written] / "checkpoint-2", tmp_path / "checkpoint-2")
    status, output = finish(launch(launcher, small_arguments, tmp_path, *HALF))
    assert status != 0
    assert output.count("error: ") == 1
    assert f"model_name_or_path={tmp_path / 'checkpoint-2'}" in output
    assert not (tmp_path / "checkpoint-4").exists()


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Until a file is there."""
    deadline = time.monotonic() + 90
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert path.exists()


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """The training processes that a launcher started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8")
    return [int(pid) for pid in children.split()]


def alive(pid: int) -> bool:
    """Whether a process runs (one that only waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "to_launcher"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_a_signal_to_any_process_stops_all_with_one_checkpoint(
    number: signal.Signals, to_launcher: bool, tmp_path: Path, small_arguments: list[str]
) -> None:
    """The launcher's own status is 1 once it has passed a signal on; after one to a worker it is the workers'."""
    process = launch(DDP, small_arguments, tmp_path, *HALF, "--max_steps", "100000", "--save_steps", "50000")
    wait_for(tmp_path / "completion_samples" / "samples.jsonl", process)
    pids = workers(process)
    assert len(pids) == 2
    os.kill(process.pid if to_launcher else pids[-1], number)
    status, output = finish(process)
    assert status == (1 if to_launcher else 0)
    (folder,) = tmp_path.glob("checkpoint-*")
    assert missing(folder) is None
    assert read_checkpoint(folder).processes == 2
    assert f"stopped at step {read_checkpoint(folder).step};" in output
    assert not any(map(alive, pids))


def test_a_killed_process_ends_the_run_and_leaves_its_checkpoint(tmp_path: Path, small_arguments: list[str]) -> None:
    """No process is left, and the same command could go on."""
    process = launch(DDP, small_arguments, tmp_path, *HALF, *ENDLESS)
    wait_for(tmp_path / "checkpoint-2" / "complete.json", process)
    pids = workers(process)
    os.kill(pids[-1], signal.SIGKILL)
    status, _ = finish(process)
    assert status == 1
    assert any(missing(folder) is None for folder in tmp_path.glob("checkpoint-*"))
    assert not any(map(alive, pids))


def test_workers_stop_in_order_when_their_launcher_is_killed(tmp_path: Path, small_arguments: list[str]) -> None:
    """Nobody tells them, and nobody would end them."""
    process = launch(DDP, small_arguments, tmp_path, *HALF, *ENDLESS)
    wait_for(tmp_path / "checkpoint-2" / "complete.json", process)
    pids = workers(process)
    process.kill()
    _, output = finish(process)  # the workers hold its end of the pipe, so this waits for them
    assert "stopped at step" in output
    assert not any(map(alive, pids))


def test_a_full_disk_is_one_error_and_keeps_the_last_whole_checkpoint(
    tmp_path: Path, small_arguments: list[str]
) -> None:
    """On a real file system of 100 MB, which the preflight finds large enough; then somebody else fills it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        skip_or_fail("a small file system can't be mounted here: run the tests as root")
    try:
        more = [*SHORT, "--max_steps", "100000", "--save_steps", "1", "--save_total_limit", "3"]
        process = launch(PYTHON, small_arguments, disk, *more)
        wait_for(disk / "checkpoint-2" / "complete.json", process)
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - 4_000_000)
        status, output = finish(process)
        assert status == 1, output
        failed_at = int(re.findall(r"is full at step (\d+)", output)[0])
        assert "Traceback" not in output
        left = {folder.name: missing(folder) for folder in disk.glob("checkpoint-*")}
        assert f"checkpoint-{failed_at - 1}" in left
        assert set(left.values()) == {None}
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
