"""The generation GPU: starts vLLM's server for a run, waits for it, watches it, and stops it with the run.

TRL's trainer talks to a vLLM server but starts none. Here the main process starts one on the GPUs that training leaves
free, bound to loopback on a free port, unless the recipe gives an address. A guardian process
(mini_r1.generation.guardian) ends it when the trainer is killed; a watcher thread ends the trainer when the server dies
or stops answering.
"""

import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from trl import GRPOConfig, ModelConfig
from urllib3.util.retry import Retry

from mini_r1.generation import guardian
from mini_r1.generation.guardian import GRACE_SECONDS
from mini_r1.machine.generator import generation_kind
from mini_r1.machine.gpus import server_gpus
from mini_r1.policy.checkpoints import decide_for_all
from mini_r1.program.failures import tell
from mini_r1.program.problems import UserError
from mini_r1.program.redact import redact, take_api_key
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.runs.folder import output_path

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
LOG_NAME = "vllm_server.log"
LOG_LINES = 20  # of the server's log, quoted when it fails
POLL_SECONDS = 1.0
HEALTH_TIMEOUT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without an answer to /health, after which a server counts as hung
UNWIND_SECONDS = 30.0  # for the trainer to leave what it waits for, after the server is gone
# What belongs to the trainer's process group; the server's processes form a group of their own.
TRAINER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
TRAINER_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "ROLE_")


class GenerationServerError(UserError, RuntimeError):
    """The generation server can't be started, or is gone; the message holds the last lines of its log."""


@dataclass(frozen=True)
class ServerPlan:
    """How the server of a recipe is started.

    Attributes:
        gpus: what its CUDA_VISIBLE_DEVICES will be; empty leaves that as it is (a machine without GPUs).
        host, port, group_port: of its HTTP interface, and of the group in which it receives weights.
    """

    script: ScriptArguments
    training: GRPOConfig
    model: ModelConfig
    gpus: tuple[str, ...]
    port: int
    group_port: int
    host: str = LOOPBACK

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """The file of all that it prints."""
        return output_path(self.training) / LOG_NAME

    def command(self) -> list[str]:
        """The command line, with what TRL's trainer needs of a server (trl.generation.vllm_client)."""
        script, training, model = self.script, self.training, self.model
        longest = script.max_prompt_length + (training.max_completion_length or 0)
        options: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "weight-transfer-config": json.dumps({"backend": "nccl"}),
            "logprobs-mode": "processed_logprobs",
            "max-logprobs": -1,
            "max-model-len": training.vllm_max_model_length or longest,
            "tensor-parallel-size": max(1, len(self.gpus)),
            "seed": training.seed,
            "revision": model.model_revision,
            "tokenizer": script.tokenizer_name_or_path,
        }
        given = [text for key, value in options.items() if value is not None for text in (f"--{key}", str(value))]
        given.append("--disable-uvicorn-access-log")  # a line per request would drown what matters
        given += ["--trust-remote-code"] if training.trust_remote_code else []
        extra, _ = take_api_key(script.vllm_server_args)  # last, so that it overrides
        vllm = Path(sys.executable).with_name("vllm")  # of this environment, whatever PATH says
        start = [str(vllm)] if vllm.exists() else [sys.executable, "-m", "vllm.entrypoints.cli.main"]
        return [*start, "serve", str(model.model_name_or_path), *given, *extra]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The trainer's environment without its process group, and with the server's GPUs and the key of its clients.

        The key is here since a command line is in the log and in `ps`.
        """
        kept = {
            name: value
            for name, value in base.items()
            if name not in TRAINER_VARIABLES and not name.startswith(TRAINER_PREFIXES)
        }
        kept["VLLM_SERVER_DEV_MODE"] = "1"  # the endpoints that take weights
        if self.gpus:
            kept["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        _, api_key = take_api_key(self.script.vllm_server_args)
        if api_key:
            kept["VLLM_API_KEY"] = api_key
        return kept


def plan_server(script: ScriptArguments, training: GRPOConfig, model: ModelConfig, gpus: Sequence[str]) -> ServerPlan:
    """What to start for a recipe, on two ports that are free now."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            probe = stack.enter_context(socket.socket())
            probe.bind((LOOPBACK, 0))
            ports.append(probe.getsockname()[1])
    return ServerPlan(script, training, model, tuple(gpus), *ports)


class GenerationServer:
    """A running `vllm serve`; a context manager that stops it.

    Raises:
        GenerationServerError: from `with`, if the server does not come up; into the body, if it dies or hangs there.
    """

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        self._process: subprocess.Popen[bytes]
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._previous_handler: Any = signal.SIG_DFL

    def __enter__(self) -> "GenerationServer":
        self.plan.log.parent.mkdir(parents=True, exist_ok=True)
        command = self.plan.command()
        with self.plan.log.open("a", encoding="utf-8") as log:
            print(redact(f"$ {shlex.join(command)}"), file=log, flush=True)
            self._process = subprocess.Popen(
                [sys.executable, "-I", guardian.__file__, str(os.getpid()), *command],  # wherever mini_r1 lies
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.plan.environment(os.environ),
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        self._previous_handler = signal.signal(signal.SIGUSR2, self._interrupt)
        threading.Thread(target=self._watch, name="generation-server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        signal.signal(signal.SIGUSR2, self._previous_handler)
        if isinstance(error, requests.RequestException) and not self._failure:  # seen before the watcher has looked
            self._failure = self._explain(self._diagnose(error))
        self._stop()
        if self._failure and not isinstance(error, GenerationServerError):
            raise GenerationServerError(self._failure) from error

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self) -> None:
        started, limit = time.monotonic(), self.plan.training.vllm_server_timeout
        where = f"GPU {','.join(self.plan.gpus)}" if self.plan.gpus else "the CPU"
        label = f"generation server: loading {self.plan.model.model_name_or_path} on {where}"
        with tqdm(desc=label, bar_format="{desc}, {elapsed} [{postfix}]", mininterval=0) as bar:
            while not answers(self.plan.url):
                bar.set_postfix_str(last_lines(self.plan.log, 1)[-80:].strip())
                if (status := self._process.poll()) is not None:
                    raise GenerationServerError(self._explain(f"ended with status {status} while loading"))
                if time.monotonic() - started > limit:
                    what = f"was not ready after {limit:.0f} s (vllm_server_timeout; a first start may also download"
                    raise GenerationServerError(self._explain(f"{what} the model)"))
                time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - started
        logger.warning("generation server ready at %s after %.0f s; log: %s", self.plan.url, seconds, self.plan.log)

    def _explain(self, what: str) -> str:
        lines = last_lines(self.plan.log, LOG_LINES)
        return f"the generation server {what}; the last lines of {self.plan.log} are above\n{lines}"

    def _diagnose(self, error: requests.RequestException) -> str:
        """What an error of TRL's client says of the server."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if not isinstance(error, requests.Timeout):
                self._process.wait(2 * POLL_SECONDS)
        if self._process.poll() is not None:
            return f"ended during training, with status {self._process.poll()}"
        if isinstance(error, requests.Timeout):
            return f"did not finish a batch within {self.plan.script.vllm_request_timeout:.0f} s (vllm_request_timeout)"
        return f"can't be reached ({error})"

    def _watch(self) -> None:
        """Until the end of the run: interrupt the trainer when the server has ended or is silent for too long."""
        heard = time.monotonic()
        while not self._stopping.wait(POLL_SECONDS):
            heard = time.monotonic() if answers(self.plan.url) else heard
            if self._stopping.is_set():
                return
            if (status := self._process.poll()) is not None:
                self._failure = self._explain(f"ended during training, with status {status}")
                break
            if time.monotonic() - heard > SILENCE_SECONDS:
                self._failure = self._explain(f"has not answered for {SILENCE_SECONDS:.0f} s")
                break
        else:
            return
        os.kill(os.getpid(), signal.SIGUSR2)
        # The trainer may wait in a collective operation that no signal interrupts: then nothing is left to unwind.
        if not self._stopping.wait(UNWIND_SECONDS):
            status = tell(GenerationServerError(self._failure))
            self._stop()
            os._exit(status)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        raise GenerationServerError(self._failure or "the generation server is gone")


def answers(url: str) -> bool:
    """Whether the server says that it is well."""
    try:
        return requests.get(f"{url}/health", timeout=HEALTH_TIMEOUT_SECONDS).status_code == 200
    except requests.RequestException:
        return False


def last_lines(path: Path, count: int) -> str:
    """The last lines of a log; none if it can't be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, count)).rstrip("\n")
    except OSError:
        return ""


class _PatientAdapter(HTTPAdapter):
    """HTTP with a time limit on each answer. A batch is asked for once: a second one would run beside the first."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        super().__init__(
            pool_maxsize=64, max_retries=Retry(total=5, read=False, backoff_factor=2, allowed_methods=None)
        )

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As `HTTPAdapter.send`, never without a time limit."""
        kwargs["timeout"] = kwargs.get("timeout") or self.timeout
        return super().send(*args, **kwargs)


def limit_requests(trainer: Any, seconds: float) -> None:
    """Give TRL's client a time limit, so that a server that answers /health but never finishes a batch is an error."""
    client = getattr(getattr(trainer, "vllm_generation", None), "vllm_client", None)
    if client is not None:  # the main process in server mode
        client.session.mount("http://", _PatientAdapter(seconds))
        client.session.mount("https://", _PatientAdapter(seconds))


def _use_loopback() -> None:
    """Have this process and what it starts meet the server on loopback: no proxy, and the weights' group there too."""
    os.environ["VLLM_HOST_IP"] = LOOPBACK
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), LOOPBACK]))


@contextlib.contextmanager
def generation_server(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> Iterator[dict[str, Any]]:
    """Start a server if the recipe wants one, and stop it afterwards.

    Yields:
        in every process, the keys of GRPOConfig that say where the server is; none if no server was started.

    Raises:
        UserError: in every process, if the server does not come up.
    """
    if generation_kind(training) != "own server":
        yield {}
        return
    with contextlib.ExitStack() as stack:

        def start() -> dict[str, Any]:
            _use_loopback()
            plan = plan_server(script, training, model, server_gpus(training, script.vllm_gpus))
            stack.enter_context(GenerationServer(plan))
            return {"vllm_server_base_url": plan.url, "vllm_group_port": plan.group_port}

        yield decide_for_all(training, start)  # the other processes wait here while the server loads
