"""The cluster script without a cluster: what it says, what it refuses, what it hands to sbatch, and what a job does.

Programs of the cluster are stand-ins in front of PATH, each of which can be told to fail; bash, Python, the signals and
the processes are real. tests/e2e/test_slurm.py has the real SLURM.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import ROOT
from helpers.requirements import require_program

SCRIPT = ROOT / "slurm" / "run_r1_grpo.slurm"
RECIPE = "receipes/grpo-tiny-countdown.yaml"
SERVER_RECIPE = "receipes/grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml"
README_COMMANDS = [
    line.partition("   #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "slurm" / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
    if re.match(r"(bash|sbatch) ", line)
]
# A program that notes its arguments, fails if BROKEN names them ("PROGRAM ARGUMENTS", a pattern), and else does `BODY`.
STAND_IN = """\
#!/bin/bash
echo "$*" >> "$NOTES/NAME"
if [[ -n ${BROKEN:-} && "NAME $*" == *$BROKEN* ]]; then
  printf '%s\\n' 'Traceback (most recent call last):' 'broken on purpose' >&2
  exit 3
fi
BODY
"""
BODIES = {
    "python3": """\
case "$*" in
  *scripts/run_r1_grpo.py*--dry_run*) exit "${PREFLIGHT:-0}" ;;
  *scripts/serve_vllm.py*) exit 5 ;;
  *) exec "$REAL" "$@" ;;
esac""",
    "sbatch": 'printf "%s\\n" "$@" > "$NOTES/submitted"; echo "Submitted batch job 4711"',
    "srun": """\
while [[ $1 == --* ]]; do
  [[ $1 != --output=* ]] || { output=${1#*=}; exec >> "${output//%t/0}" 2>&1; }
  shift
done
export SLURM_NODEID=0 SLURM_STEP_NUM_NODES=1 SLURM_GPUS_ON_NODE=${GPUS:-1}
exec "$@" """,
    "scontrol": """\
(($(grep -cxF -- "$*" "$NOTES/scontrol") > ${SILENT:-0})) || { echo "Unable to contact slurm controller" >&2; exit 1; }
case "$*" in
  *hostnames*) printf '%s\\n' ${NODES:-127.0.0.1} ;;
  *show*job*) echo "JobId=77 JobState=${STATE:-RUNNING} Reason=None" ;;
esac""",
    "squeue": "exit 1",
    "pgrep": "exit 127",
}
LAUNCHER = """\
import os, signal, subprocess, sys
notes = os.environ["NOTES"]
deaf = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGUSR1)]
with open(notes + "/launcher", "w") as file:
    print(*deaf, signal.pthread_sigmask(signal.SIG_BLOCK, []), file=file)
if os.environ.get("BROKEN") == "accelerate":
    sys.exit(3)
sys.exit(subprocess.call([sys.executable, notes + "/trainer.py", *sys.argv[1:]], env=os.environ | {"LOCAL_RANK": "0"}))
"""
TRAINER = """\
import os, pathlib, signal, sys, time
notes = pathlib.Path(os.environ["NOTES"])
def stop(*_):
    (notes / "checkpoint").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(notes / "trains").write_text(" ".join(sys.argv))
if os.environ["TRAINER"] == "fails":
    print("error: the trainer's own reason", file=sys.stderr, flush=True)
    sys.exit(3)
time.sleep(0 if os.environ["TRAINER"] == "ends" else 30)
"""
Done = subprocess.CompletedProcess[str]


class Host:
    """A folder like the repository's, and a machine with stand-ins for SLURM.

    Attributes:
        notes: the folder with what the stand-ins were called with.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"  # without .venv, so that the script takes python3 from PATH
        self.notes, self.bin = folder / "notes", folder / "bin"
        for path in (self.repository, self.notes, self.bin):
            path.mkdir()
        for name in ("scripts", "receipes", "configs", "mini_r1", "assets"):
            (self.repository / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "slurm", self.repository / "slurm", ignore=shutil.ignore_patterns("__pycache__"))
        job = self.repository / "slurm" / "job.py"
        job.write_text(job.read_text().replace("RETRY_SECONDS = 5.0", "RETRY_SECONDS = 0.1"))
        for name, body in BODIES.items():
            (self.bin / name).write_text(STAND_IN.replace("NAME", name).replace("BODY", body))
            (self.bin / name).chmod(0o755)
        (self.notes / "trainer.py").write_text(TRAINER)
        foreign = ("SLURM", "SBATCH", "SRUN", "CUDA", "PYTHONPATH")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", "NOTES": str(self.notes), "REAL": sys.executable}

    def call(self, *arguments: str, **variables: str) -> Done:
        """Run the script as on a submit host, with more environment variables."""
        return self.run(["bash", str(SCRIPT), *arguments], **variables)

    def run(self, command: Sequence[str], **variables: str) -> Done:
        environment = self.environment | variables
        return subprocess.run(command, cwd=self.repository, env=environment, capture_output=True, text=True)

    def noted(self, program: str) -> str:
        path = self.notes / program
        return path.read_text() if path.exists() else ""

    def job(self, arguments: Sequence[str], ask: signal.Signals | None = None, **variables: str) -> tuple[int, str]:
        """Run the script as slurmd does; return its status and everything that it said.

        Args:
            ask: a signal for the script once training listens.
            variables: more environment variables.
        """
        launcher = self.repository / "accelerate" / "commands" / "launch.py"
        launcher.parent.mkdir(parents=True)
        for package in launcher.parents[:2]:
            (package / "__init__.py").touch()
        launcher.write_text(LAUNCHER)
        spool = self.notes / "slurm_script"  # in another folder, as slurmd has it
        spool.write_text(SCRIPT.read_text())
        given = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n", "TRAINER": "waits" if ask else "ends", **variables}
        process = subprocess.Popen(
            ["bash", spool, *arguments],
            cwd=self.repository,
            env=self.environment | given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if ask:
            end = time.monotonic() + 30
            while not (self.notes / "trains").exists() and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(ask)
        said, _ = process.communicate(timeout=60)
        logs = "\n".join(log.read_text() for log in sorted(self.repository.glob("run/logs/*.log")))
        return process.returncode, said + logs


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_shellcheck_finds_nothing() -> None:
    """With the checks for statuses that get lost, in a command substitution or a case that nobody thought of."""
    require_program("shellcheck")
    checks = "check-extra-masked-returns,add-default-case,quote-safe-variables,avoid-nullary-conditions,deprecate-which"
    done = subprocess.run(["shellcheck", "-o", checks, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_status_is_lost_in_a_process_substitution() -> None:
    """Shellcheck does not look there, nor at `|| true`."""
    code = re.sub(r"(^|\s)#.*", "", SCRIPT.read_text(), flags=re.MULTILINE)
    assert "<(" not in code
    assert "|| true" not in code


def test_the_script_is_short_enough_to_hand_over() -> None:
    """Most of it is what a site may edit; the rest is in Python."""
    assert len(SCRIPT.read_text().splitlines()) < 150


@pytest.mark.parametrize("program", ["submit", "job"])
def test_the_hosts_python_needs_no_packages(host: Host, program: str) -> None:
    """Where the job's Python is a container's."""
    words = [sys.executable, "-S", "-E", f"slurm/{program}.py", "script", "1", "python", "0", "--help"]
    done = host.run(words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == host.call("--help").stdout


def test_without_any_python_it_says_so(host: Host) -> None:
    done = host.call(RECIPE, PATH=str(folder_of_bash(host)))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Python 3.6 or newer on ")
    assert done.stderr.count("\n") == 1


def test_a_python_that_is_too_old_is_passed_over(host: Host) -> None:
    """As python3 may be where the function site names a newer one."""
    old = '#!/bin/bash\n[[ $1 != -c ]] && echo "old Python was called"; exit 1\n'
    (host.bin / "python3").rename(host.bin / "python3.11")
    (host.bin / "python3").write_text(old)
    (host.bin / "python3").chmod(0o755)
    done = host.run([*site(host, "python=(python3.11)"), RECIPE])
    assert done.returncode == 0, done.stderr
    assert "old Python" not in done.stdout + done.stderr
    assert host.noted("submitted")


def test_it_assumes_nothing_of_a_site() -> None:
    """No modules, no shell start-up file; the site's block has examples in comments only."""
    code = [line.split("#")[0] for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in code if "module load" in line or "bashrc" in line]


def test_help_names_every_option(host: Host) -> None:
    for words in (["--help"], [RECIPE, "--help"], ["-h"], [RECIPE, "--help-all"]):
        done = host.call(*words)
        assert done.returncode == 0
        for option in ("--vllm-nodes", "--max-requeues", "--accelerate-config", "--dry-run", "--array", "--nodes"):
            assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name a recipe"),
        ("--dry-run", "name a recipe"),
        ("receipes/none.yaml", "there is no recipe 'receipes/none.yaml'; recipes here: receipes/"),
        (f"{RECIPE} --vllm-nodes 2", "--vllm-nodes=2 is not 0 or 1"),
        (f"{RECIPE} --vllm_nodes=2", "--vllm-nodes=2 is not 0 or 1"),
        (f"{RECIPE} --vllm-nodes", "--vllm-nodes needs a value"),
        (f"{RECIPE} --vllm-nodes 1", f"--vllm-nodes=1, but {RECIPE} wants no vLLM server started"),
        (f"{SERVER_RECIPE} --vllm-nodes 1", "--vllm-nodes=1 needs a second node for training"),
        (f"{RECIPE} --max-requeues=-1", "--max-requeues=-1 is not a whole number"),
        (f"{RECIPE} --max-requeues 1e3", "--max-requeues=1e3 is not a whole number"),
        (f"{RECIPE} --accelerate-config x.yaml", "there is no --accelerate-config 'x.yaml'; allowed: configs/"),
        (f"{RECIPE} --dry_run maybe", "--dry_run is 'maybe', but must be true or false"),
        (f"{RECIPE} --config x.yaml", "a recipe is named without --config"),
        (f"--config {RECIPE}", "a recipe is named without --config"),
        (f"--config={RECIPE}", "a recipe is named without --config"),
        (f"{RECIPE} --plan_processes 4", "--plan_processes: this script plans by --nodes"),
        (f"{RECIPE} --hub_token hf_x", "--hub_token would stand in sbatch's command line"),
        (f"{RECIPE} --hub-token=hf_x", "--hub-token would stand in sbatch's command line"),
        (f"--export=ALL,HF_TOKEN=hf_x {RECIPE}", "'--export' with a secret would stand in sbatch's command line"),
        (f"--export=ALL,WANDB_API_KEY=x {RECIPE}", "'--export' with a secret would stand in sbatch's command line"),
        (f"{RECIPE} --nodes 2", "--nodes is an option of sbatch: put it before the recipe"),
        (f"{RECIPE} -N2", "-N2 is an option of sbatch: put it before the recipe"),
        (f"{RECIPE} --time=10", "--time is an option of sbatch: put it before the recipe"),
        (f"{RECIPE} {RECIPE}", "2 recipes need an array, whose index picks one. Give --array=0-1"),
        (f"--array=42-44 {RECIPE} {RECIPE}", "--array=42-44 has the index 44"),
        (f"--array=42-44 {RECIPE} --seed 7", "both --seed and --array are given"),
        (f"--gres=gpu:2 {RECIPE}", "--gres=gpu:2 and --gpus-per-node=4 (at the top of the script) ask for different"),
        (f"--nodes=2-4 {RECIPE}", "--nodes=2-4 lets SLURM choose"),
        (f"{RECIPE} --output_dir $SCRATCH/x", "output_dir is '$SCRATCH/x', but nothing replaces variables there"),
        (f"{RECIPE} --output_dir=", "output_dir is '', but must be a folder"),
        (f"--gpus-per-node=1 {SERVER_RECIPE}", "1 GPU per node, of which vLLM gets 1: none is left to train on"),
        (f"--gpus-per-node=0 {SERVER_RECIPE}", "no GPU per node"),
    ],
)
def test_a_bad_command_line_is_one_line_and_status_2(host: Host, words: str, message: str) -> None:
    done = host.call(*words.split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: {message}")
    assert not host.noted("submitted")


def test_elsewhere_it_names_the_folder_to_call_it_from(tmp_path: Path) -> None:
    done = subprocess.run(["bash", SCRIPT, RECIPE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "submit from the repository's folder" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        f"{RECIPE} --dry_run",
        f"{RECIPE} --dry-run",
        f"{RECIPE} --dry_run true",
        f"{RECIPE} --dry_run=true",
        f"{RECIPE} --dry-run=1 --max_steps 3",
        f"{RECIPE} --max_steps 3 --dry_run yes",
        f"--dry_run {RECIPE}",
        f"--dry-run --nodes=2 {RECIPE}",
        f"--nodes=2 --dry_run=True {RECIPE}",
    ],
)
def test_a_dry_run_is_never_queued(host: Host, words: str) -> None:
    done = host.call(*words.split())
    assert done.returncode == 0, done.stderr
    assert "--dry_run true" in host.noted("python3")
    assert not host.noted("submitted")
    assert host.call(*words.split(), PREFLIGHT="2").returncode == 2


def test_a_recipe_that_is_a_dry_run_is_not_queued(host: Host) -> None:
    (host.repository / "dry.yaml").write_text((ROOT / RECIPE).read_text() + "\ndry_run: true\n")
    assert host.call("dry.yaml").returncode == 0
    assert not host.noted("submitted")


def test_dry_run_false_is_no_dry_run(host: Host) -> None:
    assert host.call(RECIPE, "--dry_run", "false", "--max_steps", "3").returncode == 0
    assert host.noted("submitted").splitlines()[1:] == [RECIPE, "--max_steps", "3"]


def test_the_preflight_is_told_what_sbatch_will_give(host: Host) -> None:
    done = host.call("--nodes=2", "--gpus-per-node=8", SERVER_RECIPE)
    assert done.returncode == 0, done.stderr
    assert "--plan_processes 15 --plan_processes_per_machine 8" in host.noted("python3")
    assert host.call(SERVER_RECIPE).returncode == 0
    assert "--plan_processes 3 --plan_processes_per_machine 3" in host.noted("python3")


def test_each_recipe_of_an_array_and_one_of_the_seeds_is_checked(host: Host) -> None:
    host.call("--array=0-1", RECIPE, SERVER_RECIPE)
    checks = [line for line in host.noted("python3").splitlines() if "scripts/run_r1_grpo.py" in line]
    folders = [re.findall(r"--output_dir (\S+)", line)[-1] for line in checks]
    assert folders == ["runs/aha/0-grpo-tiny-countdown", "runs/qwen-2.5-3b-r1-countdown/1-" + Path(SERVER_RECIPE).stem]
    (host.notes / "python3").unlink()
    host.call("--array=42-44", RECIPE, "--output_dir", "~/x")
    (check,) = [line for line in host.noted("python3").splitlines() if "scripts/run_r1_grpo.py" in line]
    assert f"--seed 42 --output_dir {Path.home()}/x/seed-42" in check


def test_it_says_what_it_submits_and_how_to_watch_and_cancel_it(host: Host) -> None:
    done = host.call("--nodes=2", RECIPE, "--output_dir", "runs/a b")
    assert done.returncode == 0
    assert done.stdout == "Submitted batch job 4711\n"
    for text in ("2 node(s) with 4 GPU(s), 8 training", "'runs/a b'", "squeue --job 4711", "a b/logs", "scancel 4711"):
        assert text in done.stderr


@pytest.mark.parametrize("command", README_COMMANDS)
def test_a_command_of_the_readme_reaches_sbatch(host: Host, command: str) -> None:
    """As written, but for the names that a reader must fill in."""
    for name, value in (("<recipe>", RECIPE), ("a", RECIPE), ("b", SERVER_RECIPE)):
        command = command.replace(f"receipes/{name}.yaml", value)
    words = shlex.split(command)
    done = host.run(words)
    assert done.returncode == 0, done.stderr
    assert ("slurm/run_r1_grpo.slurm" in host.noted("submitted")) == ("--dry-run" not in words)


# What a submit host does in turn, and what breaks there: the program with its arguments, and a word of the message.
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("python3 -c", "make a .venv in this folder as slurm/README.md says"),
        ("python3 -c import importlib", "python3 can't check the recipe here (broken on purpose): make a .venv"),
        ("python3 slurm/plan.py", "broken on purpose"),
        ("python3 slurm/recipe_values.py", "broken on purpose"),
        ("python3 scripts/run_r1_grpo.py", "broken on purpose"),
        ("sbatch", "sbatch refused the job (status 3"),
    ],
)
def test_whatever_breaks_on_the_submit_host_ends_it(host: Host, broken: str, message: str) -> None:
    done = host.call(RECIPE, BROKEN=broken)
    assert done.returncode != 0
    assert message in done.stderr
    assert not host.noted("submitted")


def test_a_missing_package_is_named(host: Host) -> None:
    """DeepSpeed is one only for a launch that uses it."""
    (host.notes / "sitecustomize.py").write_text("import sys; sys.modules['deepspeed'] = None")  # find_spec finds none
    done = host.call(RECIPE, PYTHONPATH=str(host.notes))
    assert done.returncode == 2
    assert "(not installed: deepspeed): make a .venv" in done.stderr
    ddp = "--accelerate-config=configs/accelerate_configs/ddp.yaml"
    assert host.call(ddp, RECIPE, PYTHONPATH=str(host.notes)).returncode == 0


def test_without_sbatch_it_says_so_before_any_check(host: Host) -> None:
    (host.bin / "sbatch").unlink()
    done = host.call(RECIPE, PATH=f"{host.bin}:{folder_of_bash(host)}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no sbatch on this machine")
    assert len(host.noted("python3").splitlines()) == 2  # whether it is there, and the script's own program


def folder_of_bash(host: Host) -> Path:
    """A folder with bash and nothing else."""
    folder = host.notes / "few"
    folder.mkdir()
    (folder / "bash").symlink_to("/bin/bash")
    return folder


def site(host: Host, line: str) -> list[str]:
    """The command for a script whose site block has a line."""
    script = host.repository / "edited.slurm"
    script.write_text(SCRIPT.read_text().replace("\n  :\n}\n", f"\n  {line}\n}}\n", 1))
    return ["bash", str(script)]


def test_a_container_that_does_not_run_on_the_submit_host_is_no_obstacle(host: Host) -> None:
    """The check is left out, loudly; a dry run is nothing else, and fails."""
    command = site(host, "python=(no-such-container exec mini-r1.sif python)")
    done = host.run([*command, RECIPE])
    assert done.returncode == 0, done.stderr
    assert "NOT CHECKED: no-such-container exec mini-r1.sif python can't check the recipe here" in done.stderr
    assert host.noted("submitted")
    assert host.run([*command, RECIPE, "--dry-run"]).returncode == 2


def test_a_containers_python_does_all_that_python_does(host: Host) -> None:
    (host.bin / "container").write_text('#!/bin/bash\nexec "$NOTES/../bin/python3" "$@"\n')
    (host.bin / "container").chmod(0o755)
    path = f"{host.bin}:{folder_of_bash(host)}"
    done = host.run([*site(host, "python=(container)"), RECIPE], PATH=path, BROKEN="plan.py")
    assert done.returncode == 3
    assert "broken on purpose" in done.stderr


# ---- In a job ----

JOB = (RECIPE, "--output_dir", "run")


def test_a_job_trains(host: Host) -> None:
    status, said = host.job(JOB, GPUS="3")
    assert status == 0, said
    assert "training ended with status 0" in said
    assert "--machine_rank 0 --num_processes 3" in host.noted("trains")
    assert host.noted("launcher") == "True True set()\n"  # deaf to SIGTERM and SIGUSR1, and no signal blocked


def test_a_failed_training_fails_the_job_with_its_reason(host: Host) -> None:
    status, said = host.job(JOB, TRAINER="fails")
    assert status == 3
    assert "error: the trainer's own reason" in (host.repository / "run/logs/job-77.log").read_text(), said


@pytest.mark.parametrize("ask", [signal.SIGUSR1, signal.SIGTERM])
def test_a_stopped_job_saves_and_requeues(host: Host, ask: signal.Signals) -> None:
    status, said = host.job(JOB, ask=ask)
    assert status == 0, said
    assert (host.notes / "checkpoint").exists()
    assert "requeue 77" in host.noted("scontrol")


def test_a_silent_controller_is_asked_again(host: Host) -> None:
    """Three times for each question."""
    status, said = host.job(JOB, ask=signal.SIGUSR1, SILENT="3")
    assert status == 0, said
    assert host.noted("scontrol").count("requeue 77") == 4


def test_a_cancelled_job_stays_away(host: Host) -> None:
    status, said = host.job(JOB, ask=signal.SIGTERM, STATE="CANCELLED")
    assert status == 143, said
    assert "requeue" not in host.noted("scontrol")


@pytest.mark.parametrize("broken", ["scontrol --oneliner show job", "scontrol requeue"])
def test_a_job_that_cannot_requeue_says_so(host: Host, broken: str) -> None:
    """Not as cancelled, nor as finished: with the status of a job that may be submitted again."""
    status, said = host.job(JOB, ask=signal.SIGUSR1, BROKEN=broken)
    assert status == 75
    assert "submit it again to resume: run" in said
    assert "broken on purpose" in said


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("scontrol show hostnames", "scontrol does not name the nodes"),
        ("srun", "srun can't start a step"),
        ("python3 slurm/recipe_values.py", "broken on purpose"),
        ("python3 slurm/reach.py ports", "no free ports"),
        ("python3 slurm/node.py train", "training ended with status 3"),
        ("accelerate", "training ended with status 3"),
    ],
)
def test_whatever_breaks_in_a_job_fails_it(host: Host, broken: str, message: str) -> None:
    status, said = host.job(JOB, BROKEN=broken)
    assert status != 0
    assert message in said


TWO_NODES = (SERVER_RECIPE, "--output_dir", "run", "--vllm-nodes", "1")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("reach.py address", "no address for vLLM on 127.0.0.2"),
        ("reach.py connect", "127.0.0.1 can't reach the node of vLLM, 127.0.0.2"),
        ("serve_vllm.py", "the vLLM server ended before training did, with status 3"),
        ("", "the vLLM server ended before training did, with status 5"),
    ],
)
def test_a_job_without_its_server_fails(host: Host, broken: str, message: str) -> None:
    status, said = host.job(TWO_NODES, NODES="127.0.0.1 127.0.0.2", TRAINER="waits", BROKEN=broken)
    assert status in (1, 2), said
    assert message in said


def test_a_job_refuses_nodes_with_different_numbers_of_gpus(host: Host) -> None:
    (host.bin / "srun").write_text(f"#!/bin/bash\necho 2\n{BODIES['srun']}\n")
    status, said = host.job(JOB)
    assert status == 2
    assert "different numbers of GPUs (2, 1)" in said


def test_an_arrays_job_logs_under_the_arrays_number(host: Host) -> None:
    status, said = host.job(JOB, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="43")
    assert status == 0, said
    assert (host.repository / "run/seed-43/logs/job-70_43-node0.log").exists()
    assert "--seed 43 --output_dir run/seed-43" in host.noted("trains")


@pytest.mark.slow
def test_a_bad_recipe_is_never_queued(host: Host) -> None:
    """The real preflight refuses it."""
    use_real_python(host)
    done = host.call("--nodes=2", RECIPE, "--learning_speed", "1e-4")
    assert done.returncode == 2
    assert "learning_speed" in done.stderr + done.stdout
    assert not host.noted("submitted")


@pytest.mark.slow
def test_a_good_recipe_is_queued_with_all_that_was_given(host: Host) -> None:
    """After the real preflight."""
    use_real_python(host)
    overrides = ["--output_dir", "runs/a b"]
    done = host.call("-N", "2", "--max-requeues", "3", RECIPE, *overrides)
    assert done.returncode == 0, done.stderr
    assert "8 processes on 2 machines" in done.stdout
    script, *rest = host.noted("submitted").splitlines()[2:]
    assert script.endswith("run_r1_grpo.slurm")
    assert rest == ["--max-requeues=3", RECIPE, *overrides]


@pytest.mark.slow
def test_a_configuration_that_accelerate_cannot_read_is_never_queued(host: Host) -> None:
    use_real_python(host)
    (host.repository / "bad.yaml").write_text("distributed_type: MANY_GPUS\n")
    done = host.call("--accelerate-config=bad.yaml", RECIPE)
    assert done.returncode == 2
    assert "bad.yaml" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not host.noted("submitted")


def use_real_python(host: Host) -> None:
    """For the real preflight."""
    (host.bin / "python3").write_text('#!/bin/bash\nexec "$REAL" "$@"\n')
