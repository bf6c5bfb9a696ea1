"""The launch that a dry run plans for is the one that `accelerate launch` makes; wrong plans are refused in words."""

import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from conftest import ROOT, TINY_RECIPE
from mini_r1.machine.launch import planned_environment, read_launch
from mini_r1.preflight.checks import check_run, planned
from mini_r1.program.problems import UserError
from mini_r1.recipe.read import read_recipe

CONFIGS = sorted((ROOT / "configs" / "accelerate_configs").glob("*.yaml"))
# What people write in files of their own.
OWN = {
    "deepspeed file": "distributed_type: DEEPSPEED\nnum_processes: 2\n"
    "deepspeed_config: {deepspeed_config_file: DS.json}",
    "deepspeed bare": "distributed_type: DEEPSPEED\nnum_processes: 2",
    "weights off": "distributed_type: DEEPSPEED\nnum_processes: 4\ndeepspeed_config: {zero_stage: 3, "
    "offload_param_device: cpu, offload_optimizer_device: NONE}",
    "device null": "distributed_type: DEEPSPEED\nnum_processes: 4\ndeepspeed_config: {offload_optimizer_device: null}",
    "fsdp1": "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 1, fsdp_reshard_after_forward: "
    "SHARD_GRAD_OP, fsdp_sync_module_states: true}",
    "fsdp2 kept": "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2, offload_params: true, "
    "reshard_after_forward: false, sync_module_states: true}",
    # The second machine: on the first, accelerate looks whether the port is free, and another test may be using it.
    "two machines": "distributed_type: MULTI_GPU\nnum_processes: 8\nnum_machines: 2\nmachine_rank: 1\n"
    "main_process_ip: node1\nmain_process_port: 29500",
}


@pytest.fixture(params=[*CONFIGS, *OWN], ids=lambda value: value.stem if isinstance(value, Path) else value)
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration of accelerate: each that is shipped, and others."""
    if isinstance(request.param, Path):
        return str(request.param)
    (tmp_path / "DS.json").write_text('{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}')
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own.yaml"
    file.write_text(OWN[request.param])
    return str(file)


def test_the_plan_is_what_accelerate_sets(config: str) -> None:
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", config, "x.py"]))
    args.deepspeed_fields_from_accelerate_config = ""
    environment = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    each = defaults.num_processes // defaults.num_machines
    place = {"WORLD_SIZE": str(defaults.num_processes), "LOCAL_WORLD_SIZE": str(each)}
    assert read_launch(planned_environment(config, None, None)) == read_launch(environment | place)


def test_the_plan_is_what_the_processes_get(tmp_path: Path) -> None:
    """The real launcher, for two processes that write down their environment."""
    config = str(ROOT / "configs" / "accelerate_configs" / "fsdp2.yaml")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    subprocess.run([*launcher, "--no_python", "sh", "-c", "env -0 >$RANK"], cwd=tmp_path, check=True)
    variables = (tmp_path / "0").read_text().split("\0")
    assert (tmp_path / "1").exists()
    environment = {name: value for name, _, value in (variable.partition("=") for variable in variables)}
    assert read_launch(planned_environment(config, 2, None)) == read_launch(environment)


def test_nodes_that_share_unevenly() -> None:
    """SLURM's last node may keep a GPU for vLLM."""
    launch = read_launch(planned_environment(str(ROOT / "configs/accelerate_configs/deepspeed_zero3.yaml"), 7, 4))
    assert (launch.processes, launch.local_processes, launch.machines) == (7, 4, 2)
    assert (launch.engine, launch.zero_stage) == ("deepspeed", 3)


def test_without_a_file_it_is_ddp() -> None:
    assert read_launch(planned_environment(None, 2, None)).describe() == "2 processes on 1 machine, DDP"


@pytest.mark.parametrize(
    ("text", "processes", "words"),
    [
        (None, 2, "there is no accelerate configuration"),
        ("", 2, "can't use"),
        ("- a list", 2, "can't use"),
        ("a: [", 2, "can't use"),
        ("num_processes: 2", 2, "distributed_type"),
        ("distributed_type: MULTI_GPU\nzero_stage: 3", 2, "zero_stage"),
        ("distributed_type: 'NO'", 2, "accelerate starts one process"),
        ("distributed_type: TURBO", 2, "TURBO"),
        ("distributed_type: MULTI_GPU", None, "plan_processes is -1"),
        ("distributed_type: MULTI_GPU", 0, "plan_processes is 0"),
        ("distributed_type: MULTI_GPU\nnum_processes: two", None, "num_processes"),
        ("distributed_type: MULTI_GPU\nnum_machines: 0", 2, "num_machines"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(
    tmp_path: Path, text: str | None, processes: int | None, words: str
) -> None:
    file = tmp_path / "own.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        planned_environment(str(file), processes, None)


def test_a_dry_run_on_a_laptop_reports_what_the_launch_itself_would() -> None:
    zero3 = "configs/accelerate_configs/deepspeed_zero3.yaml"
    on_gpus = ["--use_cpu=false", "--bf16=true", "--use_vllm=true", "--vllm_mode=server", "--num_generations=8"]
    plan = ["--dry_run", "--plan_accelerate_config", str(ROOT / zero3), "--plan_processes", "3"]
    script, training, model = read_recipe(["--config", str(TINY_RECIPE), *on_gpus, *plan])
    report = check_run(script, training, model, planned(script)).table()
    launched = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "ACCELERATE_USE_DEEPSPEED": "true"}
    launched |= {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    assert report == check_run(script, training, model, launched).table()
    assert "3 processes on 1 machine, DeepSpeed ZeRO-3" in report


def test_a_plan_without_a_dry_run_is_refused() -> None:
    script, _, _ = read_recipe(["--config", str(TINY_RECIPE), "--plan_processes", "3"])
    with pytest.raises(UserError, match="Add --dry_run"):
        planned(script)
