"""Starting, watching and stopping a generation server. The server of most tests is a stand-in that answers /health:

what is tested is what happens around it. tests/e2e/test_production.py starts the real vLLM.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import requests

from conftest import ROOT
from helpers.generation_server import make_plan
from helpers.processes import is_alive, wait_until
from mini_r1.generation import server as module
from mini_r1.generation.server import GenerationServer, GenerationServerError, ServerPlan, plan_server
from mini_r1.machine.generator import generation_kind
from mini_r1.recipe.read import parse_recipe


def pid_of_server(plan: ServerPlan) -> int:
    return int(plan.log.read_text().rpartition("pid ")[2].split()[0])


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_command_is_what_trl_needs_of_a_server(tmp_path: Path) -> None:
    command = make_plan(tmp_path, "some/model", kind=ServerPlan).command()
    start = command.index("serve")
    assert command[start + 1] == "some/model"
    options = dict(zip(command[start + 2 :: 2], command[start + 3 :: 2], strict=False))
    assert options["--host"] == "127.0.0.1"
    assert options["--weight-transfer-config"] == '{"backend": "nccl"}'
    assert options["--logprobs-mode"] == "processed_logprobs"
    assert options["--max-model-len"] == str(256 + 512)
    assert "--trust-remote-code" not in command


def test_the_users_arguments_come_last_so_that_they_win(tmp_path: Path) -> None:
    arguments = ["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    recipe = parse_recipe([*arguments, "--vllm_server_args", "--max-model-len 99 --quantization 'a b'"])
    assert plan_server(*recipe, gpus=()).command()[-4:] == ["--max-model-len", "99", "--quantization", "a b"]


def test_an_api_key_reaches_the_server_and_no_command_line_or_log(tmp_path: Path) -> None:
    arguments = ["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    for given in ("--api-key sk-verysecret", "--api-key=sk-verysecret", "--api_key sk-verysecret other"):
        plan = plan_server(*parse_recipe([*arguments, "--vllm_server_args", f"{given} --seed 7"]), gpus=())
        assert plan.command()[-2:] == ["--seed", "7"]
        assert "sk-verysecret" not in str(plan.command())
        assert plan.environment({})["VLLM_API_KEY"] == "sk-verysecret"


def test_several_gpus_are_used_together(tmp_path: Path) -> None:
    script, training, model = parse_recipe(
        ["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    )
    plan = plan_server(script, training, model, gpus=["2", "3"])
    command = plan.command()
    assert command[command.index("--tensor-parallel-size") + 1] == "2"
    assert plan.environment({})["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_server_does_not_inherit_the_trainers_process_group(tmp_path: Path) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_PORT": "1", "ACCELERATE_USE_DEEPSPEED": "true", "HF_TOKEN": "t"}
    environment = make_plan(tmp_path).environment(given)
    assert environment == {"HF_TOKEN": "t", "VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "transformers"),
        ({"use_vllm": True, "vllm_mode": "colocate"}, "colocate"),
        ({"use_vllm": True, "vllm_mode": "server"}, "own server"),
        ({"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": "http://node7:8000"}, "other server"),
        ({"use_vllm": True, "vllm_mode": "server", "vllm_server_host": "node7"}, "other server"),
    ],
)
def test_a_server_is_started_only_without_an_address(tmp_path: Path, settings: dict[str, object], kind: str) -> None:
    flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    arguments = ["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    _, training, _ = parse_recipe([*arguments, *flags])
    assert generation_kind(training) == kind


# --- start and stop --------------------------------------------------------------------------------------------------


def test_a_server_runs_inside_with_and_is_gone_after(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    with GenerationServer(plan):
        assert requests.get(f"{plan.url}/health", timeout=5).status_code == 200
        server = pid_of_server(plan)
    assert not is_alive(server)


def test_an_error_in_training_stops_the_server_and_stays_the_error(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    with pytest.raises(ZeroDivisionError), GenerationServer(plan):
        raise ZeroDivisionError
    assert not is_alive(pid_of_server(plan))


def test_a_server_that_crashes_while_loading_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(GenerationServerError, match=r"(?s)status 7 while loading.*stand-in crash"):
        GenerationServer(make_plan(tmp_path, "crash")).__enter__()


def test_a_server_that_never_gets_ready_is_stopped_and_the_error_names_the_key(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "never", timeout=3)
    with pytest.raises(GenerationServerError, match=r"not ready after 3 s.*vllm_server_timeout"):
        GenerationServer(plan).__enter__()
    assert not is_alive(pid_of_server(plan))


# --- faults ----------------------------------------------------------------------------------------------------------


def test_the_death_of_the_server_interrupts_training(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    with pytest.raises(GenerationServerError, match=r"(?s)ended during training.*stand-in"), GenerationServer(plan):
        os.kill(pid_of_server(plan), signal.SIGKILL)
        time.sleep(30)


def test_a_connection_error_is_put_down_to_the_death_of_the_server(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    with pytest.raises(GenerationServerError, match="during training"), GenerationServer(plan):
        os.kill(pid_of_server(plan), signal.SIGKILL)
        raise requests.ConnectionError("refused")


def test_a_hung_server_interrupts_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(module, "HEALTH_TIMEOUT_SECONDS", 1.0)
    plan = make_plan(tmp_path)
    with pytest.raises(GenerationServerError, match="has not answered"), GenerationServer(plan):
        os.kill(pid_of_server(plan), signal.SIGSTOP)
        time.sleep(30)
    assert not is_alive(pid_of_server(plan))


def test_a_batch_that_never_ends_is_an_error(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    session = requests.Session()
    session.mount("http://", module._PatientAdapter(2.0))
    with pytest.raises(GenerationServerError, match="vllm_request_timeout"), GenerationServer(plan):
        session.get(f"{plan.url}/slow")


TRAINER = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.generation_server import make_plan
from mini_r1.generation import server as module
from mini_r1.program.failures import work_begins
module.UNWIND_SECONDS = 2.0
work_begins()
plan = make_plan(Path({folder!r}))
with module.GenerationServer(plan):
    print("ready", flush=True)
    {body}
"""


def start_trainer(folder: Path, body: str) -> "subprocess.Popen[str]":
    """A process that has a server and then executes `body`."""
    code = textwrap.dedent(TRAINER).format(tests=str(ROOT / "tests"), folder=str(folder), body=body)
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "ready\n"
    return trainer


def test_the_server_ends_with_a_trainer_that_is_killed(tmp_path: Path) -> None:
    trainer = start_trainer(tmp_path, "time.sleep(60)")
    server = int((tmp_path / module.LOG_NAME).read_text().rpartition("pid ")[2].split()[0])
    assert is_alive(server)
    trainer.kill()
    trainer.wait()
    assert wait_until(lambda: not is_alive(server))


def test_a_trainer_that_can_not_be_interrupted_is_ended(tmp_path: Path) -> None:
    """As in a collective operation, which returns to Python only when the peer answers."""
    body = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); time.sleep(60)"
    trainer = start_trainer(tmp_path, body)
    os.kill(int((tmp_path / module.LOG_NAME).read_text().rpartition("pid ")[2].split()[0]), signal.SIGKILL)
    _, errors = trainer.communicate(timeout=40)
    assert trainer.returncode == 1
    assert "error: the generation server ended during training" in errors
