"""The Hub: a run pushes itself at every save, from a thread of process zero, and never waits or stops for it.

transformers' own push is turned off (`WITHOUT_PUSH`), because it raises in the middle of training, waits without
limit, and uploads files while the run writes to them; and huggingface_hub's `run_as_future` would keep the program from
ending while an upload hangs. Here a save is first staged: large files as hard links, so that they cost no disk and
outlive the rotation of checkpoints; growing ones as copies. A push that fails is a warning; the next save pushes
everything again, and the end tries a few times more.
"""

import functools
import logging
import os
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, get_session, set_client_factory
from huggingface_hub.utils import disable_progress_bars
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import HubStrategy

from mini_r1.hub.access import stored_token
from mini_r1.policy.checkpoints import checkpoint_folders
from mini_r1.program.causes import LOG_IN, describe
from mini_r1.program.redact import redact, remember
from mini_r1.runs.folder import output_path

logger = logging.getLogger(__name__)

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
# The arguments of a trainer that leaves pushing to us. The token has to go because transformers pickles its arguments
# into every checkpoint (`training_args.bin`).
WITHOUT_PUSH: dict[str, Any] = {"push_to_hub": False, "hub_token": None}


class HubPush(TrainerCallback):
    """Pushes each save. For process zero only; the other processes neither push nor wait.

    Its threads are daemons, so that an upload that hangs can't keep the program from ending.

    Args:
        training: the recipe's own arguments. Without `hub_token` each push reads HF_TOKEN or the stored token anew.
    """

    def __init__(self, training: TrainingArguments) -> None:
        self.training, self.output = training, output_path(training)
        self.repo = training.hub_model_id or self.output.absolute().name
        self.strategy = HubStrategy(training.hub_strategy)
        self.failure: str | None = None  # of the last push
        self._pushed: set[str] = set()  # names of the checkpoints that are there already
        self._last_save: Path | None = None
        self._submitted: Path | None = None  # whose files the last push is of
        self._thread: threading.Thread | None = None  # of the last push
        self._at_end = False
        for forgotten in self.output.glob(f"{STAGING}*"):  # by a process that was killed
            shutil.rmtree(forgotten, ignore_errors=True)
        if training.hub_token:
            logger.warning("hub_token is readable in the recipe or in the list of processes: rather %s", LOG_IN)

    @property
    def is_busy(self) -> bool:
        """Whether a push is under way."""
        return self._thread is not None and self._thread.is_alive()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the upload of the checkpoint just written, unless one is under way."""
        self._last_save = self.output / f"checkpoint-{state.global_step}"
        if self.strategy is HubStrategy.END:
            return
        if self.is_busy and not self.training.hub_always_push:
            logger.warning("step %d is not pushed, the last push is still under way; a later one has all of it",
                           state.global_step)  # fmt: skip
            return
        self._start(self._last_save, f"Training in progress, step {state.global_step}")

    def finish(self) -> bool:
        """Push the finished run, trying again a few times, and print how it ended; True if all is on the Hub."""
        self._at_end = True
        self._start(self.output, "End of training", is_last=True)
        return self._report(self.output, FINAL_LIMIT)

    def stop(self) -> bool:
        """Give a push under way a little time, and print how it ended; for a run that was interrupted."""
        if self.strategy is HubStrategy.END:
            self.failure = "hub_strategy is end, and the run is not at its end"
        return self._report(self._last_save or self.output, STOP_LIMIT)

    def _start(self, model: Path, message: str, is_last: bool = False) -> None:
        """Push in a thread, after the push before it."""
        checkpoints = self._checkpoints()
        try:
            staged = stage(self.output, model, checkpoints)
        except OSError as error:
            self._fail(f"the files can't be set apart for the upload: {describe(error)}")
            return
        self._submitted, before = model, self._thread
        names = {folder.name for folder in checkpoints.values()}
        push = functools.partial(self._push, before, staged, message, names, is_last)
        self._thread = threading.Thread(target=push, name="hub push", daemon=True)
        self._thread.start()

    def _checkpoints(self) -> dict[str, Path]:
        """The checkpoints that are to be pushed complete, by their names in the repository."""
        folders, chosen = checkpoint_folders(self.output), dict[str, Path]()
        if self.strategy is HubStrategy.ALL_CHECKPOINTS:
            chosen = {folder.name: folder for folder in folders}
        elif self.strategy is HubStrategy.CHECKPOINT and folders:
            chosen = {"last-checkpoint": folders[-1]}
        return {name: folder for name, folder in chosen.items() if folder.name not in self._pushed}

    def _push(
        self, before: threading.Thread | None, staged: Path, message: str, checkpoints: set[str], is_last: bool
    ) -> None:
        if before:
            before.join()
        # What has waited until the end is in the finished run, pushed next, but for the checkpoints.
        is_needed = is_last or not self._at_end or self.strategy is HubStrategy.ALL_CHECKPOINTS
        waits = LAST_WAITS if is_last else (0.0,)
        for wait in waits if is_needed else ():
            time.sleep(wait)
            try:
                self._upload(staged, message)
            except Exception as error:  # no failure of a push may end training
                self._fail(describe(error))
            else:
                self.failure = None
                self._pushed |= checkpoints
                break
        shutil.rmtree(staged, ignore_errors=True)

    def _upload(self, staged: Path, message: str) -> None:
        """Make the repository if need be, and upload a staged folder in one commit."""
        disable_progress_bars()  # they would break up the bar of the run
        _limit_waiting()
        api, revision = HfApi(token=self.training.hub_token), self.training.hub_revision
        private = self.training.hub_private_repo is not False
        repo = api.create_repo(self.repo, private=private, exist_ok=True).repo_id
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=staged, commit_message=message, revision=revision)

    def _fail(self, why: str) -> None:
        self.failure = redact(why)
        logger.warning("not pushed to the Hub: %s. Training continues; the next save is pushed again", self.failure)

    def _report(self, folder: Path, limit: float) -> bool:
        if self._thread:
            self._thread.join(limit)
        if self.is_busy:
            self.failure = f"the upload took longer than {limit:.0f} s ({self.failure or 'no error so far'})"
        elif self.failure is None and self._submitted not in (folder, None):
            self.failure = "the push of the save before it was still under way"
        if self.failure is None:
            if self._thread:
                print(f"pushed to the Hub: {self.repo}", flush=True)
            return True
        print(f"NOT pushed to the Hub: {folder}, because {self.failure}", flush=True)
        print(f"to push it by hand: {self.command_by_hand(folder)}", flush=True)
        return False

    def command_by_hand(self, folder: Path) -> str:
        """Return the shell command that uploads what a push would have."""
        patterns = [*TRAINING_STATE, "checkpoint-*", f"{STAGING}*"]
        command = ["hf", "upload", self.repo, str(folder), "."]
        command += ["--private"] if self.training.hub_private_repo is not False else []
        command += ["--revision", self.training.hub_revision] if self.training.hub_revision else []
        return shlex.join(command + [word for pattern in patterns for word in ("--exclude", pattern)])


def hub_push(training: TrainingArguments) -> HubPush | None:
    """What pushes a run, if its recipe asks for that and this is process zero.

    The stored token is kept out of the logs from here on; that of the recipe has been since it was read.
    """
    remember(stored_token())
    return HubPush(training) if training.push_to_hub and training.process_index == 0 else None


@functools.cache
def _limit_waiting() -> None:
    """Give the library's shared client time limits; it has none, and a connection that hangs would hang for ever."""
    hooks = get_session().event_hooks
    set_client_factory(lambda: httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=NETWORK_TIMEOUT))


def stage(output: Path, model: Path, checkpoints: Mapping[str, Path]) -> Path:
    """Set apart what one push uploads, in a folder of its own inside `output`, and return that folder.

    Args:
        model: a checkpoint, or `output` itself at the end; its files go to the top, without the state of training.
        checkpoints: folders to be uploaded complete, by their names in the repository.

    Raises:
        OSError: if the disk is full, for one.
    """
    staged = Path(tempfile.mkdtemp(prefix=STAGING, dir=output))
    files = [path for path in model.iterdir() if path.is_file() and path.name not in RUN_FILES]
    chosen = {path.name: path for path in files if not any(map(path.match, TRAINING_STATE))}
    of_run = {name: output / name for name in RUN_FILES if (output / name).exists()}
    try:
        for name, path in (chosen | of_run | dict(checkpoints)).items():
            if path.is_dir():
                shutil.copytree(path, staged / name, copy_function=_link)
            else:
                _link(path, staged / name)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return staged


def _link(source: str | Path, target: str | Path) -> None:
    """Copy a file: by a hard link, unless it grows or the file system has none."""
    if not any(map(Path(source).match, GROWING)):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)
