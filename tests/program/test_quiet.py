"""What a person sees of a run's whole life: what the programs have to say, and not one line of any library."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub.utils import hf_raise_for_status

from conftest import ROOT
from helpers.walk import IMPORTS, Said, usual_steps, walk
from mini_r1.program.quiet import silence_the_meaningless

BAR = r" +\d+%\|.{10}\| \d+/\d+ \[\d\d:\d\d<(\d\d:\d\d|\?), +[\d.?]+ ?(\w+/s|s/\w+)(, .*)?\]"
RATES = r"solved [\d.]+%, format [\d.]+%, \d+ tokens, [\d.]+ attempts"
# Of keys without effect, which the walk sets: tests/recipe/test_contradictions.py.
WITHOUT_EFFECT = (r"warning: vllm_server_args has no effect .*", r"warning: the run ends while it warms up.*")
TRAINING = (
    *WITHOUT_EFFECT,
    r"preflight: ready: .*",
    r"resuming from .*/checkpoint-2 \(step 2\)",
    r"max_steps: 2 -> 4, from here on",
    rf"step +\d+: (held-out|training) {RATES}",
    rf"GRPO(, evaluating)?:{BAR}",
    r"\d+ steps, [\d.]+ min; model saved in .*",
)
SECRETS = {
    "HF_TOKEN": "hf_ofTheEnvironment123",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-proj-ofTheEnvironment",
    "VLLM_API_KEY": "ofTheEnvironmentOfTheServer",
    "recipe": "ofTheRecipeAndOfNoUsualShape",
    "flag": "first-key-of-the-server",
    "second": "second-key-of-the-server",
    "again": "third-key-of-the-server",
}
SERVER_ARGUMENTS = f"--api-key {SECRETS['flag']} {SECRETS['second']} --seed 3 --api_key={SECRETS['again']}"
ALLOWED = {
    IMPORTS: (),
    # Headings, and lines of a name and a value, two blanks further in: tests/preflight/test_preflight.py holds them.
    "plan": (r"[A-Z][\w ]+( \(.*\))?", r"  (KV cache|[a-z/][\w /-]+)  .*", *TRAINING[:3]),
    "train": TRAINING,
    "resume": TRAINING,
    "again": (*TRAINING[:3], r".* holds this run, finished: nothing left to train"),
    "evaluate": (
        r"NOT VERIFIED AS HELD OUT: .*",
        rf"(sampling|greedy):{BAR}",
        r"4 problems of generated:tiny, 2 samples each at temperature 1; .*",
        r" +/\S+ +/\S+",
        r"[\w@, ]+( \(\d+\))?( +(-|-?[\d.]+ \[[-\d., ]+\])){2}",
        r"pass@1 of .* minus .*, problem by problem: .*",
        r"/\S+: RL has .*",
        r"the results are now in .*/README.md",
    ),
    "ask": (
        r"> 3, 4, 5 → 12",
        r"Let me solve this step by step\.",
        r"</?think>",
        r"</?answer>.*",
        r"[\d +*/=()-]+( (yes|no))?(, .*)?",  # the policy's own
        r"--- \w+; format (ok|broken); \d+ tokens(, cut off)?",
        r"a solution: .*",
    ),
    "report": (r"/\S+/report/(\w+\.png|index\.html)",),
}


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the walk."""
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def said(walked: Path) -> dict[str, Said]:
    """The usual walk, with every kind of secret where people keep them."""
    steps = usual_steps(walked, "--vllm_server_args", SERVER_ARGUMENTS, recipe=f"hub_token: {SECRETS['recipe']}\n")
    environment = {name: secret for name, secret in SECRETS.items() if name.isupper()}
    return walk(steps, walked / "printed", environment)


@pytest.mark.parametrize("name", ALLOWED)
def test_nothing_is_printed_but_what_the_program_has_to_say(name: str, said: dict[str, Said]) -> None:
    assert said[name].status == 0, said[name].err
    allowed = re.compile("|".join(f"(?:{line})" for line in ALLOWED[name]))
    assert [line for line in said[name].lines() if not allowed.fullmatch(line)] == []


def test_messages_that_mean_nothing_are_dropped_and_their_like_are_not(caplog: pytest.LogCaptureFixture) -> None:
    """What the Hub sends with its answers, read by huggingface_hub itself, and a line of the trainer's."""
    silence_the_meaningless()
    answer = httpx.Response(200, request=httpx.Request("GET", "https://huggingface.co"))
    unauthenticated = "You are sending unauthenticated requests to the HF Hub. Please set a HF_TOKEN"
    answer.headers = httpx.Headers([("X-HF-Warning", f"a; {unauthenticated}"), ("X-HF-Warning", "b; Moved soon")])
    hf_raise_for_status(answer)
    trainer = logging.getLogger("transformers.trainer")
    for missing in ("lm_head.weight", "model.embed_tokens.weight"):
        trainer.warning("There were missing keys in the checkpoint model loaded: ['%s'].", missing)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split("'")[1] for line in said if "missing keys" in line] == ["model.embed_tokens.weight"]
    assert [line for line in said if "Moved soon" in line] and not [line for line in said if "unauth" in line]


def test_downloads_keep_their_bars_unless_the_user_has_switched_them_off() -> None:
    program = (
        "from mini_r1.program.quiet import quiet_libraries as quiet; import huggingface_hub.utils as hub; quiet();"
        "print(hub.are_progress_bars_disabled())"
    )
    for value, expected in (("0", "False\n"), ("1", "True\n")):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": value}
        environment["HF_DATASETS_DISABLE_PROGRESS_BARS"] = value
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (expected, "")


def test_no_secret_is_in_anything_that_a_run_leaves_or_prints(said: dict[str, Said], walked: Path) -> None:
    """Every file: records, card, report, checkpoints with their pickled arguments, TensorBoard's events, and output."""
    files = [path for path in walked.rglob("*") if path.is_file() and path.name not in ("recipe.yaml", "steps.json")]
    kinds = {path.suffix for path in files} | {path.name for path in files if "tfevents" in path.name}
    assert kinds >= {".json", ".jsonl", ".md", ".html", ".bin", ".safetensors", ".pt", ".out", ".err"}
    assert any("tfevents" in path.name for path in files)
    told = [
        (secret, path.name) for path in files for secret in SECRETS.values() if secret.encode() in path.read_bytes()
    ]
    assert told == []
    assert "--seed 3" in (walked / "run" / "run.json").read_text(encoding="utf-8")  # what is no secret stays
