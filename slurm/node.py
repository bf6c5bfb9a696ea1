"""A task of the cluster script on one node: starts accelerate with this node's GPUs, or the vLLM server with its own.

slurm/job.py calls it with srun, in the job's Python and its container. A signal (SIGTERM or SIGUSR1) is handed to the
training processes, which save a checkpoint and stop. accelerate itself ignores it, else it would end them after 30
seconds, in the middle of a checkpoint.

python slurm/node.py train PROCESSES ON_THE_LAST_NODE [OPTIONS OF ACCELERATE] -- SCRIPT [ARGUMENTS]
python slurm/node.py serve GPUS SCRIPT [ARGUMENTS]
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOP = {signal.SIGTERM, signal.SIGUSR1}
AGAIN_SECONDS = 1  # between looks for training processes that have begun to listen


def use_gpus(part: slice) -> None:
    """Show what follows only some of this node's GPUs."""
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[part])


def serve(gpus: int, script: Sequence[str]) -> None:
    """Become the server, on the last GPUs of this node."""
    os.environ.pop("VLLM_HOST_IP", None)  # the trainers'
    use_gpus(slice(-gpus, None))
    os.execv(sys.executable, [sys.executable, *script])


def train(processes: int, options: Sequence[str], script: Sequence[str]) -> int:
    """Start the training processes of this node and wait for their end.

    Returns:
        the exit status.
    """
    nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
    if nodes > 1:  # on one node the trainer starts vLLM itself, on a GPU that it must see
        use_gpus(slice(processes))
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # torchrun's, inside accelerate: not those of STOP
    # accelerate divides --num_processes by --num_machines; nodes may have different numbers of processes.
    place = ["--machine_rank", os.environ["SLURM_NODEID"], "--num_processes", str(processes * nodes)]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *place, *script]
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})  # they wait for sigtimedwait
    launcher = subprocess.Popen(command, preexec_fn=_be_deaf)
    stopping, asked = False, set[int]()
    while launcher.poll() is None:
        came = signal.sigtimedwait({*STOP, signal.SIGCHLD}, AGAIN_SECONDS if stopping else 3600)
        stopping = stopping or (came is not None and came.si_signo in STOP)
        if stopping:
            asked |= ask_trainers(asked)
    return launcher.returncode if launcher.returncode >= 0 else 128 - launcher.returncode


def _be_deaf() -> None:
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP, signal.SIGCHLD})


def ask_trainers(asked: set[int]) -> set[int]:
    """Ask each training process of this job on this node, once, to save a checkpoint and stop, as soon as it listens.

    Those are the processes with a rank whose parent, the launcher, has none: not their own children.

    Args:
        asked: processes to leave out.

    Returns:
        those that are asked now.
    """
    ours = f"SLURM_JOB_ID={os.environ['SLURM_JOB_ID']}".encode()
    ranked = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if ours in variables and any(variable.startswith(b"LOCAL_RANK=") for variable in variables):
                ranked[int(folder.name)] = (folder / "status").read_text()
        except OSError:  # it has ended, or is another user's
            continue
    found = set()
    for process, status in ranked.items():
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        listens = int(fields["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
        if listens and int(fields["PPid"]) not in ranked and process not in asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            found.add(process)
    return found


def main() -> None:
    """Do as the command line says."""
    action, *words = sys.argv[1:]
    if action == "serve":
        serve(int(words[0]), words[1:])
        return
    is_last = int(os.environ["SLURM_NODEID"]) == int(os.environ["SLURM_STEP_NUM_NODES"]) - 1
    split = words.index("--")
    sys.exit(train(int(words[is_last]), words[2:split], words[split + 1 :]))


if __name__ == "__main__":
    main()
