"""The cluster script in its job, on the first node: starts training, and a vLLM server where that has a node or GPU of
its own, asks for a checkpoint when SLURM wants the nodes back, and queues the job again.

Called by run_r1_grpo.slurm, in the host's Python: see host.py. What runs on the nodes are steps of srun, in the job's
Python and its container.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn, Optional, Sequence

from command_line import CommandLine, parse
from host import Site, call, die, program, read_site, say, status_of, tell, use_this_code
from layout import Layout, Run, choose_run, divide
from submit import check_then_submit

RETRY_SECONDS = 5.0  # between questions to a SLURM that does not answer
TRIES = 12
COUNT_GPUS = 'echo "${SLURM_GPUS_ON_NODE:-0}"'  # for the task's shell
SUBMIT_AGAIN = 75  # EX_TEMPFAIL, the status of a job that was stopped and may be submitted again
CANCELLED = 143


def step(nodes: "Sequence[str]", *words: str) -> "list[str]":
    """The command of a step with a task on each of its nodes.

    Steps share the nodes' resources; a task gets all CPUs of the node; the environment goes along even after
    `sbatch --export=NONE`.
    """
    number, names = str(len(nodes)), ",".join(nodes)
    options = ["--export=ALL", "--overlap", "--cpu-bind=none", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    return ["srun", *options, f"--nodes={number}", f"--ntasks={number}", f"--nodelist={names}", *words]


def ask_slurm(*command: str) -> "Optional[str]":
    """What a command of SLURM prints, tried again while it fails, for a minute; None if it never answered."""
    for attempt in range(TRIES):
        status, answer = call(command, stderr=subprocess.STDOUT)
        if not status:
            return answer
        if attempt < TRIES - 1:
            time.sleep(RETRY_SECONDS)
    tell(f"{' '.join(command)}: {answer}")
    return None


class Job:
    """The job under way.

    Attributes:
        stop_asked: the name of the signal that asked it to stop; empty before.
        log: the path of its logs, without what follows the job's number.
    """

    def __init__(self, site: Site, line: CommandLine) -> None:
        self.site, self.line = site, line
        self.number = os.environ["SLURM_JOB_ID"]
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.stop_asked = ""
        self.training: "Optional[subprocess.Popen[bytes]]" = None
        self.server: "Optional[subprocess.Popen[bytes]]" = None
        self.log = Path()
        self.started = Path()

    def run(self) -> NoReturn:
        """From the first look at the nodes to the job's exit status."""
        signal.signal(signal.SIGUSR1, self._ask_to_stop)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        nodes = self._find_nodes()
        per_node = self._count_gpus(nodes)
        run = choose_run(
            self.line, os.environ.get("SLURM_ARRAY_TASK_ID", ""), lambda words: self._python(nodes[0], words)
        )
        layout = divide(nodes, per_node, run, self.line.options["vllm-nodes"] == "1")
        self._start_logs(run)
        say(
            f"job {self.number}, start {self.restarts + 1}: {run.recipe} on {' '.join(layout.training)}, "
            f"{per_node} GPU(s) each"
        )
        status, ports = self._python(nodes[0], ["slurm/reach.py", "ports", "2"])
        if status:
            die(f"no free ports on {nodes[0]}")
        main_port, group_port = ports.split()
        address = self._meet(layout, run, group_port) if layout.server else []
        if self.stop_asked:  # while the nodes met
            self._conclude(run, 0)
        self._start_training(layout, run, max(per_node, 1), main_port)
        if layout.server:
            self._start_server(layout, run, address)
        self._conclude(run, self._wait_for_training())

    # ---- before training ----

    def _find_nodes(self) -> "list[str]":
        answer = ask_slurm("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
        if answer is None:
            die("scontrol does not name the nodes of this job")
        return answer.split()

    def _count_gpus(self, nodes: "list[str]") -> int:
        """How many GPUs each node gives to a step: in an --exclusive job the batch script sees more."""
        status, answer = call(step(nodes, "--job-name=gpus", "bash", "-c", COUNT_GPUS))
        if status:
            die(f"srun can't start a step on {' '.join(nodes)}: its reason is above")
        counts = answer.split()
        if len(set(counts)) > 1:
            different = ", ".join(counts)
            die(f"the nodes give different numbers of GPUs ({different}): ask for them with --gpus-per-node")
        return int(counts[0])

    def _on_node(self, node: str, words: "Sequence[str]") -> "list[str]":
        """The step that runs the job's Python on a node, in its container if it has one."""
        return step([node], "--job-name=python", *self.site.srun_options, *self.site.python, *words)

    def _python(self, node: str, words: "Sequence[str]") -> "tuple[int, str]":
        return call(self._on_node(node, words))

    def _start_logs(self, run: Run) -> None:
        """Write to the run's folder from here on."""
        name = self.number
        if os.environ.get("SLURM_ARRAY_JOB_ID"):
            name = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        logs = Path(run.folder) / "logs"
        self.log = logs / f"job-{name}"
        self.started = logs / f".job-{name}.started"  # its time tells this attempt's results from older ones
        try:
            logs.mkdir(parents=True, exist_ok=True)
            self.started.touch()
            file = os.open(f"{self.log}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            die(f"can't write to {logs}: {error.strerror}: choose another output_dir")
        print(f"log: {self.log}.log", flush=True)
        for stream in (1, 2):
            os.dup2(file, stream)

    def _meet(self, layout: Layout, run: Run, group_port: str) -> "list[str]":
        """Find an address for vLLM, a step of its own on several nodes, and try it from the first node.

        Returns:
            it and its port, as options of the server.
        """
        first, server = layout.training[0], layout.server
        status, place = self._python(server, ["slurm/reach.py", "address", first])
        if status:
            die(f"no address for vLLM on {server}")
        address, port = place.split()
        listener = subprocess.Popen(self._on_node(server, ["slurm/reach.py", "listen", address, port]))
        status, ours = self._python(first, ["slurm/reach.py", "connect", address, port])
        if status:
            listener.terminate()
            die(f"{first} can't reach the node of vLLM, {server}")
        if listener.wait():
            die(f"{server} was not reached")
        host = f"[{address}]" if ":" in address else address
        run.extra += ["--vllm_server_base_url", f"http://{host}:{port}", "--vllm_group_port", group_port]
        os.environ["VLLM_HOST_IP"] = ours  # where trainer and server meet to pass weights: on the first training node
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = f"{address},{os.environ.get(name, '')}"
        say(f"vLLM at {host}:{port}")
        return ["--host", address, "--port", port]

    # ---- training ----

    def _start(self, nodes: "Sequence[str]", name: str, log: str, words: "Sequence[str]") -> "subprocess.Popen[bytes]":
        """Start a step of slurm/node.py, with a log of its own."""
        options = [f"--job-name={name}", "--open-mode=append", f"--output={self.log}-{log}.log"]
        command = [*self.site.srun_options, *self.site.python, "slurm/node.py", *words]
        return subprocess.Popen(step(nodes, *options, *command))

    def _start_training(self, layout: Layout, run: Run, processes: int, port: str) -> None:
        here = ["--num_machines", str(len(layout.training)), "--main_process_ip", layout.training[0]]
        rendezvous = ["--main_process_port", port, "--same_network", "--rdzv_backend", "static"]
        launch = ["--config_file", self.line.accelerate_config, *here, *rendezvous]
        script = ["scripts/run_r1_grpo.py", "--config", run.recipe, *self.line.overrides, *run.extra]
        counts = [str(processes), str(processes - layout.kept)]
        words = ["train", *counts, *launch, "--deepspeed_multinode_launcher", "standard", "--", *script]
        self.training = self._start(layout.training, "train", "node%t", words)
        if self.stop_asked:  # before the handler knew of it
            self.training.send_signal(signal.SIGUSR1)

    def _start_server(self, layout: Layout, run: Run, address: "Sequence[str]") -> None:
        script = ["scripts/serve_vllm.py", "--config", run.recipe, *self.line.overrides, *address]
        self.server = self._start([layout.server], "vllm", "vllm", ["serve", str(layout.server_gpus), *script])

    def _wait_for_training(self) -> int:
        """Wait for its end; the server's is one, too, with a status of its own.

        Without its server, training would wait for long, or end in an error about the network.
        """
        assert self.training
        while self.training.poll() is None and (self.server is None or self.server.poll() is None):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # until any child ends
        if self.server is None or self.server.poll() is None:
            return status_of(self.training.returncode)
        status = status_of(self.server.returncode)
        say(f"the vLLM server ended before training did, with status {status}: see {self.log}-vllm.log")
        if self.training.poll() is None:
            self.training.kill()  # SLURM ends the step with the job
            self.training.wait()
        return 1

    def _ask_to_stop(self, number: int, frame: "Optional[FrameType]") -> None:
        self.stop_asked = signal.Signals(number).name[3:]
        say(f"{self.stop_asked}: asking the trainer for a checkpoint")
        if self.training:
            self.training.send_signal(signal.SIGUSR1)  # srun hands it on to slurm/node.py

    # ---- the end ----

    def _finished(self, run: Run) -> bool:
        """Whether this attempt finished the run: the trainer leaves its state there last."""
        state = Path(run.folder) / "trainer_state.json"
        return state.is_file() and state.stat().st_mtime_ns > self.started.stat().st_mtime_ns

    def _conclude(self, run: Run, status: int) -> NoReturn:
        """End as COMPLETED if the run is done or will resume later, else as FAILED."""
        if not self.stop_asked or self._finished(run):
            say(f"training ended with status {status}")
            reasons = self._reasons() if status else []
            for reason in reasons[-1:]:
                say(reason)
            sys.exit(status)
        state = ask_slurm("scontrol", "--oneliner", "show", "job", self.number)
        if state and " JobState=RUNNING " not in state:
            sys.exit(CANCELLED)  # after scancel it is no longer running, and is to stay that way
        most = int(self.line.options["max-requeues"])
        if self.restarts >= most:
            say(
                f"stopped, and requeued {self.restarts} times already (--max-requeues); submit it again to resume: "
                f"{run.folder}"
            )
            sys.exit(SUBMIT_AGAIN)
        say(f"stopped; requeue {self.restarts + 1} of at most {most}")
        # Without an answer nobody knows whether it was cancelled; a cancelled job must not come back.
        if not state or ask_slurm("scontrol", "requeue", self.number) is None:
            say(f"SLURM does not take it back into the queue; submit it again to resume: {run.folder}")
            sys.exit(SUBMIT_AGAIN)
        sys.exit()

    def _reasons(self) -> "list[str]":
        """The lines with which programs of this job ended, from the logs of its steps."""
        logs = sorted(self.log.parent.glob(f"{self.log.name}-*.log"))
        text = "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
        return re.findall("^error: .*", text, re.MULTILINE)


def main(words: "Sequence[str]") -> None:
    """Run the job, or check its recipe if that is all that is asked for."""
    site, given = read_site(words)
    line = parse(given)
    use_this_code()
    if line.dry_run:
        check_then_submit(site, line)
    else:
        Job(site, line).run()


if __name__ == "__main__":
    program(main)
