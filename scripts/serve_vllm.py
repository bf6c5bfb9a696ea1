"""Serve vLLM for a run whose training is on other machines: slurm/run_r1_grpo.slurm calls it on the node kept for that.

It becomes the server that the run would start itself on one machine, but at an address that the others can reach, and
on all GPUs that it sees.

python scripts/serve_vllm.py --config receipes/NAME.yaml --host node2 --port 8000
python scripts/run_r1_grpo.py --config receipes/NAME.yaml --vllm_server_base_url http://node2:8000
"""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.failures import in_words

with in_words():
    from mini_r1.generation_server import plan_server
    from mini_r1.recipe import read_recipe


def main() -> NoReturn:
    """Parse, and become the server, or exit with status 2 where the recipe is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--host", required=True, help="name or address of this machine for the others")
    parser.add_argument("--port", required=True, type=int, help="of its HTTP interface")
    address, recipe = parser.parse_known_args()
    script, training, model = read_recipe(recipe)  # GRPOConfig itself would want the other processes
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    plan = plan_server(script, training, model, gpus)
    plan = dataclasses.replace(plan, host=address.host, port=address.port)
    command = plan.command()
    print(f"$ {shlex.join(command)}", flush=True)
    os.execvpe(command[0], command, plan.environment(os.environ))


if __name__ == "__main__":
    with in_words():
        main()
