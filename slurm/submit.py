"""The cluster script on the submit host: check each run that the job will start, then hand the job to sbatch.

Called by run_r1_grpo.slurm, in the host's Python: see host.py. Checks run in the job's Python, where that runs here.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional, Sequence

from command_line import CommandLine, parse
from host import Site, call, die, program, read_site, status_of, tell, use_this_code
from layout import Run, choose_run, divide

FIND_MISSING = """\
import importlib.util, sys
missing = [name for name in sys.argv[1:] if not importlib.util.find_spec(name)]
sys.exit("not installed: " + ", ".join(missing) if missing else 0)"""


def check_then_submit(site: Site, line: CommandLine) -> None:
    """Do what the user asked for; a dry run ends after the check."""
    if not line.dry_run and not shutil.which("sbatch"):
        die("there is no sbatch on this machine: call this on a login node of the cluster; --dry-run checks without it")
    runs = _check_job(site, line) if _python_is_here(site, line) else []
    if not line.dry_run and not any(run.only_checks for run in runs):
        _submit(site, line, runs[-1].folder if runs else "OUTPUT_DIR")


def _python_is_here(site: Site, line: CommandLine) -> bool:
    """Whether the Python of the job runs here: that of a container may not."""
    needed = ["accelerate", "torch", "trl", "yaml"]
    config = Path(line.accelerate_config).read_text(encoding="utf-8", errors="replace")
    if re.search("^distributed_type: *DEEPSPEED", config, re.MULTILINE):
        needed.append("deepspeed")
    status, answer = call([*site.python, "-c", FIND_MISSING, *needed], stderr=subprocess.STDOUT)
    if not status:
        return True
    answer = f"{' '.join(site.python)} can't check the recipe here ({(answer.splitlines() or [''])[-1]})"
    if not site.elsewhere:
        die(
            f"{answer}: make a .venv in this folder as slurm/README.md says, or name another Python in the function "
            "site of slurm/run_r1_grpo.slurm"
        )
    if line.dry_run:
        die(f"{answer}: call --dry-run where the Python that the function site names can run")
    tell(f"NOT CHECKED: {answer}; the job itself checks it when it starts")
    return False


def _check_job(site: Site, line: CommandLine) -> "list[Run]":
    """The preflight, for each run that the job will start (of several seeds the first), told what sbatch will give."""
    words = ["slurm/plan.py", site.script, str(len(line.recipes)), *line.of_sbatch]
    status, plan = call([*site.python, *words])
    if status:
        sys.exit(status)
    nodes, per_node, *indices = plan.split()
    names = [f"node{number + 1}" for number in range(int(nodes))]
    checked = indices if len(line.recipes) > 1 else indices[:1]
    return [_check_run(site, line, index, names, int(per_node)) for index in checked or [""]]


def _check_run(site: Site, line: CommandLine, index: str, nodes: "list[str]", per_node: int) -> Run:
    run = choose_run(line, index, lambda words: call([*site.python, *words]))
    layout = divide(nodes, per_node, run, line.options["vllm-nodes"] == "1")
    first = max(per_node, 1)  # processes on the first node; without GPUs there is one
    processes = first * len(layout.training) - layout.kept
    if len(layout.training) == 1:
        first = processes
    address = ["--vllm_server_base_url", f"http://{layout.server}"] if layout.server else []
    tell(
        f"{run.recipe}: {len(nodes)} node(s) with {per_node} GPU(s), {processes} training process(es); "
        f"results in {run.folder}"
    )
    words = ["scripts/run_r1_grpo.py", "--config", run.recipe, *line.overrides, *run.extra, *address]
    plan = ["--plan_accelerate_config", line.accelerate_config, "--plan_processes", str(processes)]
    launch = [*plan, "--plan_processes_per_machine", str(first)]
    code = subprocess.call([*site.python, *words, "--dry_run", "true", *launch])
    if code:
        sys.exit(status_of(code))
    return run


def _submit(site: Site, line: CommandLine, folder: str) -> None:
    command = ["sbatch", *line.of_sbatch, site.script, *line.own, *line.recipes, *line.overrides]
    tell("$ " + " ".join(map(shlex.quote, command)))
    status, answer = call(command)
    print(answer, flush=True)
    if status:
        die(f"sbatch refused the job (status {status}, its reason is above): nothing is queued")
    job: "Optional[re.Match[str]]" = re.search("[0-9]+", answer)
    if job:
        number = job.group()
        tell(f"watch it: squeue --job {number}; logs in {folder}/logs; cancel it: scancel {number}")


def main(words: "Sequence[str]") -> None:
    """Read the command line and do as it says."""
    site, given = read_site(words)
    line = parse(given)
    use_this_code()
    check_then_submit(site, line)


if __name__ == "__main__":
    program(main)
