"""The Hub: a run pushes itself at every save, from a thread of process zero, and never waits or stops for it.

transformers' own push is turned off (`WITHOUT_PUSH`), because it raises in the middle of training, waits without
limit, and uploads files while the run writes to them. Here a save is first staged: large files as hard links, so that
they cost no disk and outlive the rotation of checkpoints; growing ones as copies. A push that fails is a warning; the
next save pushes everything again, and the end tries a few times more.
"""

import functools
import logging
import os
import queue
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, get_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from mini_r1.hub.access import stored_token
from mini_r1.program.redact import redact, remember

logger = logging.getLogger(__name__)

LOG_IN = (
    "set HF_TOKEN to a token with write permission (https://huggingface.co/settings/tokens), or run `hf auth login`"
)
STAGING = ".hub-"
GROWING = ("*.tfevents.*", "*.jsonl", "*.txt", "*.json", "*.md")  # written to in place, so never linked
# Only of use to resume training; several times the size of the model.
TRAINING_STATE = (
    "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "global_step*", "latest", "zero_to_fp32.py",
    "pytorch_model_fsdp*",
)  # fmt: skip
RUN_FILES = ("README.md", "run.json", "evaluation.json", "runs", "completion_samples", "report")
NETWORK_TIMEOUT = httpx.Timeout(300, connect=15)  # seconds without a byte; the library itself waits without limit
LAST_WAITS = (0.0, 5.0, 30.0)  # seconds before each try at the end
FINAL_LIMIT = 1800.0  # seconds that the end of a run waits for its upload
STOP_LIMIT = 20.0  # the same after SIGTERM, where a scheduler kills soon


@dataclass(frozen=True)
class Destination:
    """Where and how to push.

    Attributes:
        repo: "name" or "namespace/name".
        token: as given in the recipe; None to use HF_TOKEN or the stored one, read anew for each push.
    """

    repo: str
    token: str | None
    private: bool
    strategy: HubStrategy
    revision: str | None
    queue_saves: bool


# The arguments of a trainer that leaves pushing to us. The token has to go because transformers pickles its arguments
# into every checkpoint (`training_args.bin`).
WITHOUT_PUSH: dict[str, Any] = {"push_to_hub": False, "hub_token": None}


def destination_of(training: TrainingArguments) -> Destination | None:
    """Where a run is to be pushed, if at all; its token is kept out of the logs from here on."""
    token = training.hub_token
    remember(token, stored_token())
    if not training.push_to_hub:
        return None
    if token:
        logger.warning("hub_token is readable in the recipe or in the list of processes: rather %s", LOG_IN)
    return Destination(
        repo=_repo_name(training),
        token=token,
        private=training.hub_private_repo is not False,
        strategy=HubStrategy(training.hub_strategy),
        revision=training.hub_revision,
        queue_saves=training.hub_always_push,
    )


def _repo_name(training: TrainingArguments) -> str:
    return training.hub_model_id or Path(str(training.output_dir)).absolute().name


def explain(error: BaseException) -> str:
    """Return cause and fix of a failed push in one line, without tokens."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status == 401:
        return f"the Hub rejected the token (401): {LOG_IN}"
    if status == 403:
        return f"the token may not write there (403): {LOG_IN}"
    if status is not None:
        fix = "the Hub has trouble, nothing to fix here" if status >= 500 else "check hub_model_id and hub_revision"
        return f"the Hub answered {status}: {fix} ({_first_line(error)})"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, httpx.TransportError):
        return f"the Hub can't be reached ({type(error).__name__}: {_first_line(error)}): check the network"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return redact(str(error).strip().partition("\n")[0])[:300]


def _worth_another_try(error: BaseException) -> bool:
    """Whether the same push could succeed in a minute: not if the Hub understood it and said no."""
    response = error.response if isinstance(error, HfHubHTTPError) else None
    return response is None or response.status_code in (408, 409, 412, 429) or response.status_code >= 500


@functools.cache
def _limit_waiting() -> None:
    """Give the library's shared client time limits; it has none, and a connection that hangs would hang for ever."""
    hooks = get_session().event_hooks
    set_client_factory(lambda: httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=NETWORK_TIMEOUT))


# --- staging -------------------------------------------------------------------------------------------------------


def stage(output: Path, model: Path, checkpoints: Iterable[tuple[Path, str]] = ()) -> Path:
    """Set apart what one push uploads, in a folder of its own inside `output`, and return that folder.

    Args:
        model: a checkpoint, or `output` itself at the end; its files go to the top, without the state of training.
        checkpoints: folders to be uploaded whole, with their names in the repository.

    Raises:
        OSError: if the disk is full, for one.
    """
    staged = Path(tempfile.mkdtemp(prefix=STAGING, dir=output))
    try:
        for path in model.iterdir():
            ignored = any(path.match(pattern) for pattern in TRAINING_STATE)
            if path.is_file() and not ignored and path.name not in RUN_FILES:
                _link(path, staged / path.name)
        for name in RUN_FILES:
            if (output / name).exists():
                _place(output / name, staged / name)
        for folder, name in checkpoints:
            _place(folder, staged / name)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return staged


def _place(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=lambda one, other: _link(Path(one), Path(other)))
    else:
        _link(source, target)


def _link(source: Path, target: Path) -> None:
    if not any(source.match(pattern) for pattern in GROWING):
        try:
            os.link(source, target)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copy2(source, target)


# --- pushing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    staged: Path
    message: str
    tries: tuple[float, ...]
    checkpoints: frozenset[str]


class HubPush(TrainerCallback):
    """Pushes each save. For process zero only; the other processes neither push nor wait.

    The thread is a daemon, so that an upload that hangs can't keep the program from ending.
    """

    def __init__(self, destination: Destination, output: Path) -> None:
        self.destination, self.output = destination, output
        self.failure: str | None = None  # of the last push
        self._pushed: set[str] = set()  # checkpoints that are there already
        self._last_save: Path | None = None
        self._submitted: Path | None = None  # whose files the last push is of
        self._jobs: queue.Queue[_Job] = queue.Queue()
        self._thread: threading.Thread | None = None
        for forgotten in output.glob(f"{STAGING}*"):  # by a process that was killed
            shutil.rmtree(forgotten, ignore_errors=True)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the upload of the checkpoint just written, unless one is under way."""
        self._last_save = self.output / f"checkpoint-{state.global_step}"
        if self.destination.strategy is HubStrategy.END:
            return
        if self._jobs.unfinished_tasks and not self.destination.queue_saves:
            logger.warning("step %d is not pushed, the last push is still under way; a later one has all of it",
                           state.global_step)  # fmt: skip
            return
        self._submit(self._last_save, f"Training in progress, step {state.global_step}", tries=(0.0,))

    def finish(self) -> bool:
        """Push the finished run, trying again a few times, and print how it ended; True if all is on the Hub."""
        self._drop_waiting()
        self._submit(self.output, "End of training", LAST_WAITS)
        return self._report(self.output, FINAL_LIMIT)

    def stop(self) -> bool:
        """Give a push under way a little time, and print how it ended; for a run that was interrupted."""
        saved = self._last_save or self.output
        if self.destination.strategy is HubStrategy.END:
            self.failure = "hub_strategy is end, and the run is not at its end"
        return self._report(saved, STOP_LIMIT)

    def _submit(self, model: Path, message: str, tries: tuple[float, ...]) -> None:
        chosen = self._checkpoints()
        try:
            staged = stage(self.output, model, chosen)
        except OSError as error:
            self._fail(f"the files can't be set apart for the upload: {explain(error)}")
            return
        self._submitted = model
        self._jobs.put(_Job(staged, message, tries, frozenset(path.name for path, _ in chosen)))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hub push", daemon=True)
            self._thread.start()

    def _checkpoints(self) -> list[tuple[Path, str]]:
        strategy = self.destination.strategy
        if strategy is HubStrategy.CHECKPOINT:
            last = get_last_checkpoint(str(self.output))
            return [(Path(last), "last-checkpoint")] if last and Path(last).name not in self._pushed else []
        if strategy is HubStrategy.ALL_CHECKPOINTS:
            return [(path, path.name) for path in self.output.glob("checkpoint-*") if path.name not in self._pushed]
        return []

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                self._push(job)
            finally:
                shutil.rmtree(job.staged, ignore_errors=True)
                self._jobs.task_done()

    def _push(self, job: _Job) -> None:
        for wait in job.tries:
            time.sleep(wait)
            try:
                url = upload(self.destination, job)
            except Exception as error:  # no failure of a push may end training
                self._fail(explain(error))
                if not _worth_another_try(error):
                    return
            else:
                self.failure = None
                self._pushed |= job.checkpoints
                logger.info("pushed %r to %s", job.message, url)
                return

    def _fail(self, why: str) -> None:
        self.failure = why
        logger.warning("not pushed to the Hub: %s. Training continues; the next save is pushed again", why)

    def _drop_waiting(self) -> None:
        """Forget saves that still wait: the finished run, pushed next, has all of it but their checkpoints."""
        while self.destination.strategy is not HubStrategy.ALL_CHECKPOINTS:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            shutil.rmtree(job.staged, ignore_errors=True)
            self._jobs.task_done()

    def _report(self, folder: Path, limit: float) -> bool:
        deadline = time.monotonic() + limit
        while self._jobs.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._jobs.unfinished_tasks:
            self.failure = f"the upload took longer than {limit:.0f} s ({self.failure or 'no error so far'})"
        elif self.failure is None and self._submitted not in (folder, None):
            self.failure = "the push of the save before it was still under way"
        if self.failure is None:
            if self._thread is not None:
                print(f"pushed to the Hub: {self.destination.repo}", flush=True)
            return True
        print(f"NOT pushed to the Hub: {folder}, because {self.failure}", flush=True)
        print(f"to push it by hand: {command_by_hand(self.destination, folder)}", flush=True)
        return False


def command_by_hand(destination: Destination, folder: Path) -> str:
    """Return the shell command that uploads what a push would have."""
    excluded = [f"{pattern}{end}" for pattern in (*TRAINING_STATE, "checkpoint-*", f"{STAGING}*") for end in ("", "/*")]
    command = ["hf", "upload", destination.repo, str(folder), "."]
    command += ["--private"] if destination.private else []
    command += ["--revision", destination.revision] if destination.revision else []
    return shlex.join(command + [word for pattern in excluded for word in ("--exclude", pattern)])


def upload(destination: Destination, job: _Job) -> str:
    """Make the repository if need be, upload a staged folder in one commit, and return its address.

    Raises:
        Exception: what huggingface_hub and httpx raise.
    """
    disable_progress_bars()  # they would break up the bar of the run
    _limit_waiting()
    api = HfApi(token=destination.token)
    repo = api.create_repo(destination.repo, private=destination.private, exist_ok=True).repo_id
    if destination.revision:
        api.create_branch(repo, branch=destination.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo, folder_path=job.staged, commit_message=job.message, revision=destination.revision
    )
    return str(commit.commit_url)
