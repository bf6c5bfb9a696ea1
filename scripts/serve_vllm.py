"""Serve vLLM for a run that trains on other machines: slurm/run_r1_grpo.slurm calls this on the node kept for vLLM.

It is the same server that a run on one machine would start itself, but at an address that the other machines can reach,
and on all visible GPUs. It has no password: whoever reaches that address can use it.

python scripts/serve_vllm.py --config receipes/NAME.yaml --host 10.0.0.2 --port 8000
python scripts/run_r1_grpo.py --config receipes/NAME.yaml --vllm_server_base_url http://10.0.0.2:8000
"""

import argparse
import dataclasses
import ipaddress
import os
import shlex
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.generation.server import plan_server
    from mini_r1.machine.gpus import visible_gpus
    from mini_r1.program.problems import UserError
    from mini_r1.recipe.read import read_recipe


def check_address(host: str, port: int) -> None:
    """Refuse an address at which the other machines would not find the server.

    Debian and Ubuntu let a machine's own name stand for 127.0.1.1 (/etc/hosts), which only that machine can reach.

    Raises:
        UserError: for a name without an address, one of loopback, another machine's, or a port that is taken.
    """
    try:
        if not 0 < port < 2**16:  # getaddrinfo takes it modulo that
            raise OverflowError("there is no such port")
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"the server can't listen at --host {host} --port {port}: {error}. Give an address of this machine "
            "(hostname -I lists them) and a free port from 1024 to 65535"
        ) from error
    address = str(place[0])
    if ipaddress.ip_address(address).is_loopback and host not in (address, "localhost"):
        raise UserError(
            f"--host {host} is {address} on this machine (/etc/hosts), which no other machine can reach. Give the "
            "address that the others use (hostname -I lists this machine's)"
        )


def main() -> NoReturn:
    """Parse, and become the server, or exit with status 2 where the recipe is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--host", required=True, help="name or address at which the other machines reach this one")
    parser.add_argument("--port", required=True, type=int, help="port of the server's HTTP interface")
    address, recipe = parser.parse_known_args()
    if find_spec("vllm") is None:
        raise UserError("vLLM is not installed in this Python. Run: pip install -r requirements-gpu.txt")
    check_address(address.host, address.port)
    script, training, model = read_recipe(recipe)  # GRPOConfig itself would want the other processes
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [gpu.id for gpu in visible_gpus()] if chosen is None else [gpu for gpu in chosen.split(",") if gpu]
    plan = plan_server(script, training, model, gpus)
    plan = dataclasses.replace(plan, host=address.host, port=address.port)
    command = plan.command()
    print(f"$ {shlex.join(command)}", flush=True)
    os.execvpe(command[0], command, plan.environment(os.environ))


if __name__ == "__main__":
    with in_words():
        main()
