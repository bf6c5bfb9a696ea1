"""The preflight: each thing that would fail after minutes of loading is found in seconds, with its fix."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from transformers import AutoTokenizer

from conftest import ROOT, TINY_BASE, TINY_RECIPE
from helpers.requirements import require_module
from mini_r1.hub.access import check_hub_access
from mini_r1.machine.gpus import Gpu, assign_gpus, gpus_needed, machine_memory, visible_gpus
from mini_r1.machine.launch import Launch
from mini_r1.preflight.checks import Findings, check_run
from mini_r1.recipe.batches import BATCH_KEYS
from mini_r1.recipe.read import read_recipe

GIB = 2**30
CAUSE = re.compile(r"; |\b(is|are|has|have|belongs?|can't|because)\b")  # a sentence of its own
NODE = [Gpu(str(index), "H100", 80 * GIB) for index in range(4)]
THREE = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "ACCELERATE_USE_DEEPSPEED": "true"}
UNREACHABLE = "http://127.0.0.1:9"
ON_GPUS = {"use_cpu": False, "bf16": True, "use_vllm": True, "vllm_mode": "server", "num_generations": 8}


def check(environ: dict[str, str] | None = None, **more: object) -> Findings:
    """The preflight of the tiny recipe with some keys changed."""
    flags = [text for key, value in more.items() for text in (f"--{key}", str(value))]
    report = check_run(*read_recipe(["--config", str(TINY_RECIPE), *flags]), environ or {})
    for problem in report.problems:
        assert not CAUSE.search(problem.allowed), f"a cause in what is allowed: {problem}"
    return report


def names(findings: Findings) -> list[str]:
    return [problem.name for problem in findings.problems]


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A stand-in for the driver's nvidia-smi, since there is no GPU here; the launch is 3 processes of ZeRO-3."""
    program = tmp_path / "nvidia-smi"
    lines = "\\n".join(f"GPU-{index}abc, NVIDIA H100 80GB HBM3, 81559" for index in range(4))
    program.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return {**THREE, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


def test_the_tiny_recipe_is_ready() -> None:
    report = check()
    assert report.problems == []
    assert report.verdict().startswith("preflight: ready: 16 prompts x 8 completions a step")
    assert "\n" not in report.verdict()


def test_prompts_can_be_shared_only_in_layers_that_keep_every_token(tmp_path: Path) -> None:
    model = Path(shutil.copytree(TINY_BASE, tmp_path / "model"))
    assert names(check(share_prompts=True, model_name_or_path=model)) == []
    config = json.loads((model / CONFIG).read_text())
    window = {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 4}
    (model / CONFIG).write_text(json.dumps(config | window))
    assert names(check(share_prompts=False, model_name_or_path=model)) == []
    (problem,) = check(share_prompts=True, model_name_or_path=model).problems
    assert problem.name == "share_prompts" and "qwen3" in str(problem) and "share_prompts: false" in problem.fix


def test_the_table_has_every_section() -> None:
    titles = " ".join(title for title, _ in check(seconds_per_step=3).sections)
    for word in ("Batch", "Machine", "Memory", "Disk", "Prompts", "Time"):
        assert word in titles


@pytest.mark.slow
def test_the_readmes_command_plans_the_node_on_a_machine_without_gpus_or_network() -> None:
    """All three processes, launched for real."""
    require_module("deepspeed", "pip install -r requirements-dev.txt")
    command = [
        *(str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "3", "--config_file"),
        *("configs/accelerate_configs/deepspeed_zero3.yaml", "scripts/run_r1_grpo.py"),
        *("--config", "receipes/grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml", "--dry_run"),
    ]
    environment = {**os.environ, "HF_ENDPOINT": UNREACHABLE, "HF_HOME": "/nonexistent", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0  # the model can't be had
    for text in (
        "prompts per step          24",
        "192 = 3 ranks x 8 per device x 8 accumulation",
        "4 on this machine: 3 training + 1 generation",
        "the run needs 4 GPUs; this machine has none",
        "3.09 B parameters",
        "model_name_or_path is Qwen/Qwen2.5-3B-Instruct",
    ):
        assert done.stdout.count(text) == 1, text


def test_a_dry_run_trains_nothing_and_ends_with_0(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/run_r1_grpo.py", "--config", str(TINY_RECIPE), "--dry_run"]
    done = subprocess.run([*command, "--output_dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("preflight: ready")
    assert list(tmp_path.iterdir()) == []


# --- values --------------------------------------------------------------------------------------------------------


def test_every_kind_of_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, their number, TRL's own refusals, the model: no check hides another."""
    monkeypatch.setattr(constants, "ENDPOINT", UNREACHABLE)
    bad = {"learning_rate": "nan", "seed": -1, "fp16": True, "bf16": True, "auto_find_batch_size": True}
    report = check(None, **bad, reward_weights=1.0, model_name_or_path="nobody/nothing", max_samples=-5)
    for name in ("learning_rate", "seed", "fp16", "reward_weights", "max_samples", "model_name_or_path"):
        assert names(report).count(name) == 1, name
    assert "auto_find_batch_size" in str(report.problems)


@pytest.mark.parametrize("key", sorted(BATCH_KEYS))
def test_a_bad_size_is_one_problem_and_divides_nothing(key: str) -> None:
    assert names(check(None, **{key: 0})) == [key]


# --- GPUs ----------------------------------------------------------------------------------------------------------


def test_four_gpus_serve_three_ranks_and_a_server(four_gpus: dict[str, str]) -> None:
    report = check(four_gpus, **ON_GPUS)
    assert report.problems == []
    assert "training on 0,1,2, generation on 3" in report.table()


def test_a_gpu_too_few_is_refused_with_the_two_settings_that_help(four_gpus: dict[str, str]) -> None:
    report = check({**four_gpus, "CUDA_VISIBLE_DEVICES": "0,1,2"}, **ON_GPUS)
    (problem,) = report.problems
    assert problem.allowed == "at least 4 (3 training + 1 generation)"
    assert "vllm_mode: colocate" in problem.fix
    assert "vllm_server_base_url" in problem.fix


def test_a_launch_without_gpus_is_refused_and_a_dry_run_is_not() -> None:
    assert names(check(THREE, **ON_GPUS)) == ["visible GPUs"]
    report = check(THREE, **ON_GPUS, dry_run=True)
    assert report.problems == []
    assert "needs 4 GPUs" in report.table()


def test_gloo_on_a_machine_without_gpus_trains_on_the_cpu() -> None:
    assert check({"WORLD_SIZE": "2"}, **ON_GPUS, ddp_backend="gloo").problems == []


@pytest.mark.parametrize("vllm_gpus", ["0", "2,3", "7", "3,3"])
def test_the_servers_gpus_are_free_ones(vllm_gpus: str, four_gpus: dict[str, str]) -> None:
    assert names(check(four_gpus, **ON_GPUS, vllm_gpus=vllm_gpus)) in (["vllm_gpus"], ["visible GPUs"])


def test_two_gpus_can_serve_as_one() -> None:
    launch = Launch(processes=2, local_processes=2)
    assignment, problems = assign_gpus(NODE, launch, "own server", "2,3")
    assert problems == []
    assert [gpu.id for gpu in assignment.generation] == ["2", "3"]


def test_only_the_first_of_several_machines_has_a_server() -> None:
    machines = [Launch(processes=6, local_processes=3, rank=rank) for rank in (0, 3)]
    assert [gpus_needed(launch, "own server", None) for launch in machines] == [(3, 1), (3, 0)]
    assert gpus_needed(machines[0], "other server", None) == (3, 0)


@pytest.mark.parametrize(
    ("wanted", "ids"), [("2,0", ["2", "0"]), ("", []), ("1,9,2", ["1"]), ("GPU-3", ["GPU-3"]), ("-1", [])]
)
def test_visible_gpus_are_those_that_cuda_sees(wanted: str, ids: list[str], four_gpus: dict[str, str]) -> None:
    """Its order, and nothing from the first unknown id on."""
    assert [gpu.id for gpu in visible_gpus({"CUDA_VISIBLE_DEVICES": wanted})] == ids
    assert len(visible_gpus({})) == 4


# --- model, memory, disk, prompts ----------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_what_saves_most(four_gpus: dict[str, str]) -> None:
    report = check(four_gpus, **ON_GPUS, gpu_memory_gb=1)
    problem = next(p for p in report.problems if p.name == "memory per training GPU")
    assert problem.allowed == "at most 1.0 GiB"
    assert "gradient_checkpointing: true" in problem.fix


@pytest.mark.parametrize(
    ("keys", "share", "tight"),
    [({}, 0.6, False), ({}, 0.7, True), (ON_GPUS, 0.88, False), (ON_GPUS, 0.92, True)],
    ids=["CPU", "CPU, tight", "GPU", "GPU, tight"],
)
def test_an_estimate_near_the_capacity_is_said_to_be_tight(
    keys: dict[str, object], share: float, tight: bool, four_gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capacity = 80 * GIB if keys else machine_memory()
    monkeypatch.setattr("mini_r1.preflight.space.peak", lambda items: share * capacity)
    report = check(four_gpus if keys else None, **keys, **({"gpu_memory_gb": 80} if keys else {}))
    assert any(note.startswith("memory is tight") for note in report.notes) == tight


def test_a_full_disk_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_r1.preflight.space.free_bytes", lambda folder: 30 * 2**20)
    assert names(check()) == ["free disk"]
    assert check(save_total_limit=1, save_only_model=True).problems == []


def test_completions_longer_than_the_model_are_refused() -> None:
    (problem,) = check(max_completion_length=600).problems
    assert problem.fix == "set max_completion_length: 480"


def test_an_unknown_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", UNREACHABLE)
    report = check(model_name_or_path="nobody/nothing")
    assert names(report) == ["model_name_or_path"]
    assert "can't be reached" in report.table()


def test_a_tokenizer_that_loses_the_prefill_is_refused(tmp_path: Path) -> None:
    """The cause of a format reward that stays at 0."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    (problem,) = check(tokenizer_name_or_path=tmp_path).problems
    assert problem.name == "the prompt"


def saved_tokenizer(folder: Path, change: Callable[[Any], None]) -> Path:
    """The tiny base's tokenizer, changed in its files."""
    AutoTokenizer.from_pretrained(TINY_BASE).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_tags_that_decoding_leaves_out_are_refused(tmp_path: Path) -> None:
    """The other cause."""

    def make_special(content: Any) -> None:
        for token in content.get("added_tokens", content.get("added_tokens_decoder", {}).values()):
            token["special"] |= token["content"] in ("<think>", "</think>")

    (problem,) = check(tokenizer_name_or_path=saved_tokenizer(tmp_path, make_special)).problems
    assert "</think> are special tokens" in str(problem) or "</think>, " in str(problem)


def test_an_end_token_that_no_turn_ends_with_is_refused(tmp_path: Path) -> None:
    """As Qwen2.5's base: every completion would be cut off. The model's generation_config is of no help here."""

    def end_document(content: Any) -> None:
        if "eos_token" in content:
            content["eos_token"] = "<|endoftext|>"

    model = tmp_path / "model"
    shutil.copytree(TINY_BASE, model)
    saved_tokenizer(model, end_document)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}), encoding="utf-8")
    (problem,) = check(model_name_or_path=model).problems
    assert "ends the assistant's turn with '<|im_end|>" in str(problem)


def test_variables_of_the_template_are_used_and_checked() -> None:
    assert check(chat_template_kwargs='{"enable_thinking": false}').problems == []
    (problem,) = check(chat_template_kwargs='{"messages": []}').problems
    assert "chat_template_kwargs sets messages" in str(problem)


def test_a_data_set_without_the_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "puzzles.jsonl"
    file.write_text(json.dumps({"numbers": [1, 2], "target": 3}) + "\n")
    (problem,) = check(dataset_id_or_path=file).problems
    assert problem.name == "dataset_id_or_path"
    assert "no column 'nums'" in str(problem)


def test_too_few_puzzles_for_a_batch_are_refused() -> None:
    assert names(check(max_samples=10)) == ["max_samples"]


def test_only_groups_of_one_process_can_be_replaced() -> None:
    """6 completions a process are one and a half groups of 4."""
    two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    spread: dict[str, Any] = {"per_device_train_batch_size": 6, "num_generations": 4}
    assert "resample_uniform_groups" in names(check(two, **spread, resample_uniform_groups=2))
    assert "resample_uniform_groups" not in names(check(two, **spread))
    assert "resample_uniform_groups" not in names(
        check(**spread, gradient_accumulation_steps=2, resample_uniform_groups=2)
    )


def test_gpu_hours_are_gpus_times_hours(four_gpus: dict[str, str]) -> None:
    table = check(four_gpus, **ON_GPUS, max_steps=360, seconds_per_step=10).table()
    assert "360 steps x 10 s = 1.0 h" in table
    assert "4.0 on 4 GPUs" in table


# --- the Hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A local server that answers the Hub's whoami for the token "good", with the role that a test sets."""
    token: dict[str, object] = {"role": "write"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Bearer hf_good"
            account = {"name": "me", "orgs": [{"name": "team"}], "auth": {"accessToken": token}}
            body = json.dumps(account if known else {"error": "Invalid token"}).encode()
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    yield token
    server.shutdown()
    server.server_close()


def push(**more: object) -> tuple[str | None, str]:
    flags = [text for key, value in more.items() for text in (f"--{key}", str(value))]
    _, training, _ = read_recipe(["--config", str(TINY_RECIPE), "--push_to_hub", "true", *flags])
    line, problem = check_hub_access(training)
    return line, str(problem or "")


def test_a_token_that_may_write_is_fine(hub: dict[str, object]) -> None:
    assert push() == ("pushes as me (write token) to me/(name of the output folder)", "")
    assert push(hub_model_id="team/model")[1] == ""


def test_a_token_that_may_only_read_is_refused(hub: dict[str, object]) -> None:
    hub["role"] = "read"
    assert "a read token of me" in push()[1]


def test_a_fine_grained_token_needs_the_right_for_the_owner(hub: dict[str, object]) -> None:
    hub["role"] = "fineGrained"
    hub["fineGrained"] = {"scoped": [{"entity": {"name": "me"}, "permissions": ["repo.write"]}]}
    assert push()[1] == ""
    assert "it may not write to team" in push(hub_model_id="team/model")[1]


def test_somebody_elses_repository_is_refused(hub: dict[str, object]) -> None:
    assert "hub_model_id is other/model" in push(hub_model_id="other/model")[1]


def test_a_rejected_token_is_said_and_not_shown(hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    message = push()[1]
    assert "the Hub rejects it" in message
    assert "hf_secret" not in message


def test_no_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("mini_r1.hub.access.get_token", lambda: None)
    assert "HF_TOKEN is not set" in push()[1]


# --- the model's files, packages and logins ------------------------------------------------------------------------


WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# File -> what is in it instead (None: nothing, it is deleted), and what is said.
DAMAGES: dict[str, tuple[str, str | None, str]] = {
    "no weights": (WEIGHTS, None, "missing: the weights"),
    "empty": (WEIGHTS, "", "missing: the end of model.safetensors"),
    "no safetensors": (WEIGHTS, "<html>not found</html>", "missing: the end of model.safetensors"),
    "Git LFS": (WEIGHTS, "version https://git-lfs.github.com/spec/v1\nsize 5\n", "git lfs pull"),
    "a shard is missing": (INDEX, '{"weight_map": {"a": "model-2-of-2.safetensors"}}', "missing: model-2-of-2.safe"),
    "broken index": (INDEX, "{", "a readable model.safetensors.index.json"),
    "broken config": (CONFIG, "{", "not a valid JSON"),
    "no config": (CONFIG, None, "holds no model"),
    "another kind": (CONFIG, '{"model_type": "vit"}', "another kind of model"),
    "its own code": (CONFIG, '{"model_type": "x", "auto_map": {"AutoConfig": "x.Config"}}', "trust_remote_code: true"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_base_is_refused_in_words(damage: str, tmp_path: Path) -> None:
    model = tmp_path / "base"
    shutil.copytree(TINY_BASE, model)
    file, content, words = DAMAGES[damage]
    (model / file).unlink() if content is None else (model / file).write_text(content, encoding="utf-8")
    message = next(str(p) for p in check(model_name_or_path=model).problems if p.name == "model_name_or_path")
    assert words in message
    assert "hf download" not in message


def test_truncated_weights_and_an_adapter_are_refused_in_words(tmp_path: Path) -> None:
    model = tmp_path / "base"
    shutil.copytree(TINY_BASE, model)
    (model / WEIGHTS).write_bytes((TINY_BASE / WEIGHTS).read_bytes()[:-100])
    assert "missing: the end of model.safetensors" in str(check(model_name_or_path=model).problems[0])
    (model / CONFIG).rename(model / "adapter_config.json")
    assert "it holds only an adapter" in str(check(model_name_or_path=model).problems[0])


PACKAGES = [
    ({"report_to": "wandb"}, "wandb", "pip install wandb"),
    ({"report_to": "trackio"}, "trackio", "pip install trackio"),
    ({"report_to": "mlflow"}, "mlflow", "pip install mlflow"),
    ({"optim": "adamw_8bit"}, "bitsandbytes", "pip install bitsandbytes"),
    ({"optim": "paged_adamw_32bit"}, "bitsandbytes", "pip install bitsandbytes"),
    ({"optim": "schedule_free_adamw"}, "schedulefree", "pip install schedulefree"),
    ({"optim": "galore_adamw", "optim_target_modules": "all-linear"}, "galore_torch", "pip install galore-torch"),
    ({"load_in_4bit": True, "use_peft": True}, "bitsandbytes", "pip install bitsandbytes"),
    ({"load_in_8bit": True, "use_peft": True}, "bitsandbytes", "pip install bitsandbytes"),
    ({"use_vllm": True, "vllm_mode": "colocate"}, "vllm", "requirements-gpu.txt"),
    ({"use_vllm": True, "vllm_mode": "server"}, "vllm", "requirements-gpu.txt"),
    ({"use_liger_kernel": True}, "liger_kernel", "pip install liger-kernel"),
]


@pytest.mark.parametrize(("keys", "module", "install"), PACKAGES)
def test_a_package_that_the_recipe_names_is_missed(
    keys: dict[str, Any], module: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where it is not installed, whatever is installed here."""
    monkeypatch.setattr("mini_r1.preflight.packages.find_spec", lambda name: None)
    found = [problem for problem in check(**keys).problems if f"the package {module} is not" in problem.cause]
    assert len(found) == 1
    assert install in found[0].fix


def test_kubeflow_needs_no_package_but_its_job() -> None:
    assert "KUBEFLOW_TRAINER_SERVER_URL is not set" in str(check(report_to="kubeflow").problems)
    assert check({"KUBEFLOW_TRAINER_SERVER_URL": "https://trainer"}, report_to="kubeflow").problems == []


def test_a_package_for_gpus_is_only_noted_where_the_plan_is_for_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mini_r1.preflight.packages.find_spec", lambda name: None)
    report = check(THREE, **ON_GPUS, dry_run=True, report_to="none")
    assert report.problems == []
    assert "the package vllm is not installed here" in report.table()


@pytest.mark.parametrize(("installed", "fine"), [("0.31.0+cu129", True), ("0.22.1", True), ("0.32.0", False)])
def test_a_vllm_that_trl_does_not_work_with_is_refused(
    installed: str, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mini_r1.preflight.packages.find_spec", lambda name: object())
    monkeypatch.setattr("mini_r1.preflight.packages.version", lambda name: installed)
    found = [str(problem) for problem in check(use_vllm=True, vllm_mode="colocate").problems]
    assert [f"vllm {installed} is installed" in text for text in found] == [True] * (not fine)


@pytest.mark.parametrize(
    ("environ", "netrc", "asks"),
    [
        ({}, "", True),
        ({}, "machine api.wandb.ai login user password abc\n", False),
        ({}, "machine example.com login user password abc\n", True),
        ({}, "not a netrc file", True),
        ({"WANDB_BASE_URL": "https://wandb.here:8080"}, "machine wandb.here login user password abc\n", False),
        ({"WANDB_API_KEY": "abc"}, "", False),
        ({"WANDB_MODE": "offline"}, "", False),
        ({"WANDB_MODE": "disabled"}, "", False),
    ],
)
def test_a_tracker_that_would_wait_for_a_login_is_refused(
    environ: dict[str, str], netrc: str, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mini_r1.preflight.packages.find_spec", lambda name: object())
    (tmp_path / ".netrc").write_text(netrc)
    findings = check(environ | {"HOME": str(tmp_path)}, report_to="wandb")
    assert ["a login to Weights & Biases" in str(problem) for problem in findings.problems] == [True] * asks
