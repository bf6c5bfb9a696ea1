"""A real SLURM cluster on one machine, for tests: munged, slurmctld and two slurmd, started in under a second.

As root, each node gets a host name, an /etc/hosts and a PID namespace of its own: killing that ends every process of
its jobs, orphans too. In that /etc/hosts a node's own name stands for 127.0.1.1, as Debian and Ubuntu have it. Without
root, nodes are named by their addresses. GPUs are links to /dev/null: SLURM counts and hands them out like real ones.
"""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

USER = pwd.getpwuid(os.geteuid()).pw_name
ADDRESSES = ("127.0.0.11", "127.0.0.12")
IS_ROOT = os.geteuid() == 0
NODES = ("node0", "node1") if IS_ROOT else ADDRESSES
GPUS = 4  # per node
LIVE_STATES = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}
CREDENTIAL_SECONDS = 5  # SLURM waits as long before it starts a requeued job again; its default is two minutes
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire={credential_seconds}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
ReturnToService=2
KillWait=10
GresTypes=gpu
NodeName=DEFAULT CPUs=64 RealMemory=512000 Gres=gpu:{gpus}
NodeName={nodes} NodeAddr={addresses} Port=[{first_node_port}-{last_node_port}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
Job = dict[str, str]  # what `scontrol show job` says of it


def free_ports() -> int:
    """The first of three free consecutive ports, below the range from which the kernel takes its own."""
    for port in range(20000, 32000, 3):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + 3):
                stack.enter_context(socket.socket()).bind(("", number))
            return port
    raise RuntimeError("no three free ports in a row between 20000 and 32000")


class Cluster:
    """The daemons, their folder, and the commands to use them; `start` and `stop` it.

    Attributes:
        environment: of every command; change it to change what sbatch hands on.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # a socket's path has 108 bytes at most
        self.daemons: list[subprocess.Popen[bytes]] = []
        foreign = ("SLURM", "SBATCH", "SRUN", "CUDA")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self.environment["PATH"] += ":/usr/sbin"

    def start(self) -> None:
        """Start the daemons and wait until both nodes are idle."""
        port = free_ports()
        self._write_configuration(port)
        self._start_munged()
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self._wait_for(lambda: _listens(port), 20)
        for number, node in enumerate(NODES):
            (self.folder / f"spool.{node}").mkdir()
            command = ["slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf")]
            if IS_ROOT:
                isolate = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
                setup = f'mount --bind "{self._write_hosts(number)}" /etc/hosts; hostname {node}; exec "$@"'
                command = [*isolate, "sh", "-c", setup, "sh", *command]
            self._daemon(f"slurmd.{node}", *command)
        self._wait_for(lambda: self.run("sinfo", "-hN", "-o", "%T", check=False).split() == ["idle"] * len(NODES), 30)

    def stop(self) -> None:
        """Cancel what runs, end the daemons, remove their folder."""
        if len(self.daemons) > 1:
            with contextlib.suppress(subprocess.SubprocessError, OSError, TimeoutError):
                self.run("scancel", "--user", USER, timeout=5, check=False)
                self.wait_until(lambda: not self.run("squeue", "-h", timeout=5).strip(), 15)
        for process in reversed(self.daemons):
            arguments = process.args if isinstance(process.args, tuple) else ()
            (process.kill if "unshare" in arguments else process.terminate)()  # unshare ignores SIGTERM
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: object, timeout: float = 30, check: bool = True, cwd: Path | None = None) -> str:
        """Run a command with the cluster's environment; return what it printed."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=self.environment, text=True, capture_output=True, timeout=timeout, check=False, cwd=cwd
        )
        if check and done.returncode:
            raise RuntimeError(f"{words} ended with status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def job(self, job: object) -> Job:
        """What SLURM knows of a job (or of an array's element, `1_42`)."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "-o", "show", "job", job)))

    def wait(self, job: object, timeout: float) -> Job:
        """Wait until a job has ended for good."""
        self.wait_until(lambda: self.job(job)["JobState"] not in LIVE_STATES, timeout, f"the end of job {job}")
        return self.job(job)

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str = "the cluster") -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: if it does not come true.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout:.0f} s for {what}: {self.run('scontrol', 'show', 'job')}")
            time.sleep(0.2)

    def _write_hosts(self, number: int) -> Path:
        """The /etc/hosts of a node."""
        path = self.folder / f"hosts.{number}"
        others = [f"{address} {node}" for node, address in zip(NODES, ADDRESSES, strict=True) if node != NODES[number]]
        path.write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 {NODES[number]}", *others, ""]))
        return path

    def _write_configuration(self, port: int) -> None:
        folder = self.folder
        (folder / "state").mkdir()
        (folder / "dev").mkdir()
        for number in range(GPUS):
            (folder / f"dev/gpu{number}").symlink_to("/dev/null")
        text = CONFIGURATION.format(
            user=USER,
            folder=folder,
            port=port,
            nodes=",".join(NODES),
            addresses=",".join(ADDRESSES),
            first_node_port=port + 1,
            last_node_port=port + 2,
            gpus=GPUS,
            credential_seconds=CREDENTIAL_SECONDS,
        )
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/dev/gpu[0-{GPUS - 1}]\n")
        folder.chmod(0o755)

    def _start_munged(self) -> None:
        folder = self.folder
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        options = [f"--{option}={folder / name}" for option, name in (files | {"log-file": "munged.log"}).items()]
        self._daemon("munged", "munged", "--foreground", "--num-threads=2", *options)
        self._wait_for((folder / "munge.sock").exists, 10)

    def _daemon(self, name: str, *command: str) -> None:
        """Start a daemon that dies with this process, however that ends."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self.daemons.append(process)

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        while not condition():
            if any(process.poll() is not None for process in self.daemons) or time.monotonic() > end:
                logs = "\n".join(log.read_text(errors="replace")[-1000:] for log in self.folder.glob("*.log"))
                raise RuntimeError(f"SLURM did not start:\n{logs}")
            time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True
