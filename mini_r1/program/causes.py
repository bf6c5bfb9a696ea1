"""What an exception means, in words: its cause and, where one is known, what to do about it.

Libraries raise hundreds of kinds; a person who runs a program meets some twenty of them. Each is a row of `CAUSES`.
Types are known by name, so that nothing has to be imported to look one up.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mini_r1.program.problems import UserError

LONGEST = 400  # characters of a library's message that are shown
LOST = "the processes of this run lost each other"
LOG_IN = (
    "set HF_TOKEN to a token with write permission (https://huggingface.co/settings/tokens), or run `hf auth login`"
)
_MEMORY = (
    "this machine's memory is used up ({text}). Fix: end other programs, or use a smaller model or batch; on a cluster "
    "ask for more memory"
)
_PROXY = (
    "a proxy or Hub address is not usable ({text}). Fix: correct or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and "
    "HF_ENDPOINT; they look like http://host:port"
)
_WRITE = (
    "{file} can't be used: {reason}. Fix: give yourself the permission, or name another folder (output_dir, --out; "
    "HF_HOME for what is downloaded, TMPDIR for temporary files)"
)
_LOST = LOST + " ({text}). The cause is what the first of them to end has said; else check the network between machines"
_GPU_PACKAGES = dict.fromkeys(("bitsandbytes", "deepspeed", "vllm"), "-r requirements-gpu.txt")
_PACKAGES = _GPU_PACKAGES | {"flash_attn": "flash-attn --no-build-isolation", "yaml": "-r requirements.txt"}


@dataclass(frozen=True, slots=True)
class Cause:
    """One kind of failure: an error number of the system, or a type (any if none is named) with a pattern.

    Attributes:
        types: names of exception types; their subclasses count, too.
        pattern: has to be found in the message.
        words: the sentence; {text} is the message in one line, {file} the file's name, {reason} the system's reason,
            {module} and {package} what is missing and how pip is asked for it.
    """

    types: tuple[str, ...]
    pattern: str
    words: str
    numbers: tuple[int, ...] = ()

    def matches(self, error: BaseException) -> bool:
        """Whether an exception is of this kind."""
        if isinstance(error, OSError) and error.errno in self.numbers:
            return True
        if self.types and not any(kind.__name__ in self.types for kind in type(error).__mro__):
            return False
        return bool(self.types or self.pattern) and re.search(self.pattern, str(error)) is not None

    def caused(self, error: BaseException) -> bool:
        """Whether an exception, or one that it came from, is of this kind."""
        return any(map(self.matches, chain(error)))


# Python says so with an error number; safetensors (Rust) and torch.save (C++) only in words.
DISK_FULL = Cause(
    (),
    r"No space left on device|StorageFull|Disk quota exceeded|QuotaExceeded|PytorchStreamWriter failed",
    "{text}: the disk, or your quota on it, is full. Fix: free space there, or write to another folder",
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
)
NON_FINITE = Cause(
    (),
    r"probabilities are not finite|probability tensor contains either|Out of range float values are not JSON compliant",
    "the policy's probabilities are not finite numbers (NaN or infinite): its weights are broken. Fix: use an earlier "
    "checkpoint; in training a lower learning_rate",
)
# The first row that fits anything in the chain of exceptions is the cause: special rows first.
CAUSES = (
    Cause(("OutOfMemoryError",), "",
          "the GPU's memory is used up ({text}). Fix: halve per_device_train_batch_size and double "
          "gradient_accumulation_steps, set gradient_checkpointing: true, or shorten max_completion_length; --dry_run "
          "lists what takes how much"),
    DISK_FULL,
    Cause(("MemoryError",), "", _MEMORY, (errno.ENOMEM,)),
    Cause((), r"can't allocate memory|Cannot allocate memory|not enough memory|std::bad_alloc", _MEMORY),
    NON_FINITE,
    Cause(("ImportError", "ValueError"), "socksio|SOCKS",
          "ALL_PROXY or HTTPS_PROXY names a SOCKS proxy, and the package for those is missing. Fix: unset it, or "
          "pip install socksio"),
    Cause(("InvalidURL", "UnsupportedProtocol", "InvalidProxyURL", "LocationParseError", "InvalidSchema"), "", _PROXY),
    Cause((), r"Unknown scheme for proxy|Invalid port|[Ii]nvalid (proxy|URL)|proxy URL", _PROXY),
    Cause(("OfflineModeIsEnabled",), "",
          "HF_HUB_OFFLINE is set, and this needs the Hub ({text}). Fix: unset it, or name a folder on this machine"),
    Cause(("GatedRepoError",), "",
          "the Hub gives this model only to those who accepted its terms ({text}). Fix: accept them on its page, then "
          "`hf auth login`"),
    Cause(("RepositoryNotFoundError", "RevisionNotFoundError"), "",
          "the Hub has no such thing ({text}). Fix: check the name"),
    Cause(("HfHubHTTPError",), r"\b401\b", f"the Hub rejected the token (401). Fix: {LOG_IN}"),
    Cause(("HfHubHTTPError",), r"\b403\b", f"the token does not allow that (403). Fix: {LOG_IN}"),
    Cause(("HfHubHTTPError",), r"(?i)server error", "the Hub has trouble ({text}). Fix: try again later"),
    Cause(("DistBackendError", "DistNetworkError", "DistStoreError"), "", _LOST),
    Cause(("RuntimeError",), r"[Cc]onnection (closed|reset) by peer|gloo.*([Bb]roken pipe|peer)|NCCL", _LOST),
    Cause(("ConnectError", "ConnectTimeout", "ReadTimeout", "ConnectionError", "LocalEntryNotFoundError", "gaierror",
           "TransportError", "ProxyError", "MaxRetryError", "SSLError"), "",
          "the network can't be reached ({text}). Fix: check the connection, HF_ENDPOINT and the proxy variables "
          "(HTTPS_PROXY, ALL_PROXY); without a network use local folders and HF_HUB_OFFLINE=1"),
    Cause(("AcceleratorError", "RuntimeError"),
          "CUDA error|CUDA driver|no kernel image|device-side assert|NVML|No CUDA GPUs",
          "the GPU or its driver refuses ({text}). Fix: check it with nvidia-smi and "
          "`python -m torch.utils.collect_env`; after a failed assertion set CUDA_LAUNCH_BLOCKING=1 to see which"),
    Cause(("ModuleNotFoundError",), "No module named",
          "the Python package {module} is missing. Fix: pip install {package}"),
    Cause(("ImportError",), "",
          "a Python package can't be loaded ({text}). Fix: install it, or the versions that requirements.txt pins"),
    Cause(("SafetensorError",), "", "a file of weights is damaged or cut off ({text}). Fix: download or copy it again"),
    Cause(("UnicodeDecodeError",), "", "a file is not UTF-8 text ({text}). Fix: save it as UTF-8"),
    Cause(("RecursionError",), "",
          "something is nested too deeply ({text}). Fix: look for a loop or for thousands of brackets in the recipe or "
          "the data"),
    Cause(("Warning",), "",
          "a warning was made an error by PYTHONWARNINGS or -W ({text}). Fix: unset it; the libraries warn often"),
    Cause((), "Too many open files", "too many files are open ({text}). Fix: ulimit -n 65536", (errno.EMFILE,)),
    Cause(("PermissionError",), "", _WRITE, (errno.EROFS, errno.EACCES, errno.EPERM)),
    Cause(("IsADirectoryError", "NotADirectoryError", "FileExistsError"), "", _WRITE),
    Cause(("FileNotFoundError",), "", "a file or folder is missing ({text}). Fix: check the path"),
)  # fmt: skip


def explain(error: BaseException) -> str | None:
    """Say in one line what ended a program; None if it is nothing that is known here.

    >>> explain(UserError("the disk is full"))
    'the disk is full'
    >>> explain(ModuleNotFoundError("No module named 'peft'", name="peft"))
    'the Python package peft is missing. Fix: pip install peft'
    >>> explain(KeyError("x")) is None
    True
    """
    errors = list(chain(error))
    ours = [str(one) for one in errors if isinstance(one, UserError)]
    known = (cause.words.format_map(_facts(one)) for cause in CAUSES for one in errors if cause.matches(one))
    return next(iter(ours), None) or next(known, None)


def describe(error: BaseException) -> str:
    """Say in one line what happened, known or not."""
    return explain(error) or f"{type(error).__name__}: {one_line(error)}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the last raised first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def one_line(error: BaseException) -> str:
    """Return an exception's message in one line, cut where it is long; its type if it says nothing."""
    text = " ".join(str(error).split())
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]} ...") or type(error).__name__


def _facts(error: BaseException) -> dict[str, str]:
    module = (getattr(error, "name", None) or "?").partition(".")[0]
    number = getattr(error, "errno", None)
    return {
        "text": one_line(error),
        "file": str(getattr(error, "filename", None) or "a file"),
        "reason": os.strerror(number) if number else one_line(error),
        "module": module,
        "package": _PACKAGES.get(module, module),
    }
