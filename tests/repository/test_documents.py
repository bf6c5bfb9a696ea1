"""What the documents state is so: links lead somewhere, keys, flags and files exist, numbers are those of the runs."""

import os
import re

import pytest
from accelerate.commands.launch import launch_command_parser

from conftest import ROOT
from helpers.documents import MARKDOWN, SOURCES, anchor
from mini_r1.preflight.checks import check_run, planned
from mini_r1.recipe.read import KEYS, read_recipe

PAGES = [name for name in MARKDOWN if not name.startswith("benchmarks/")]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in MARKDOWN}
# TRL's, named to say what replaced them.
FORMER_KEYS = {"vllm_device", "torch_dtype", "warmup_ratio", "max_prompt_length"}
IN_MESSAGES = {"port"}  # of other programs, quoted
# Options of programs that are not installed everywhere, as their manuals have them.
OTHER_OPTIONS = {
    "sbatch": "account array export gpus gpus-per-node gres nodes partition signal",
    "scancel": "batch",
    "squeue": "me",
    "tensorboard": "logdir",
    "pip": "no-build-isolation",
    "pytest": "basetemp",
    "uv": "upgrade",
    "vllm": "api-key dtype enforce-eager gpu-memory-utilization host logprobs-mode max-logprobs max-model-len "
    "max-num-seqs port weight-transfer-config",
    "hugging face": "revision",
    "any key of a recipe": "key",
}


def code(text: str) -> list[str]:
    """What a page has as code: blocks and inline."""
    return re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL)


@pytest.mark.parametrize("name", MARKDOWN)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]) + re.findall(r"^\[[^]]+\]: (\S+)$", TEXTS[name], re.MULTILINE)
    for link in (link for link in links if not link.startswith("https://")):
        path, _, section = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if section else []
        assert not section or section in map(anchor, titles), link


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_named_reference_is_defined(name: str) -> None:
    defined = set(re.findall(r"^\[([^]]+)\]: ", TEXTS[name], re.MULTILINE))
    used = set(re.findall(r"\[([\w.-]+/[\w.-]+#\d+)\]", TEXTS[name]))
    assert used == defined


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)(?![\w])", " ".join(code(TEXTS[name])))) <= targets


@pytest.mark.parametrize("name", MARKDOWN)
def test_keys_exist(name: str) -> None:
    """`key: value` in code is a key of a recipe."""
    keys = re.findall(r"`([a-z][a-z0-9_]+): [^`]*`", TEXTS[name])
    assert set(keys) - set(KEYS) - FORMER_KEYS - IN_MESSAGES == set()


@pytest.mark.parametrize("name", MARKDOWN)
def test_flags_exist(name: str) -> None:
    """`--flag` in code is a key, or an option of one of the programs that the documents use."""
    flags = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", " ".join(code(TEXTS[name]))))
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    sources += (ROOT / "slurm" / "run_r1_grpo.slurm").read_text(encoding="utf-8")
    known = {*KEYS, *(key.replace("_", "-") for key in KEYS), "help", "help-all", "config"}
    known |= set(re.findall(r"--([a-z][\w-]*)", sources))
    known |= {option.removeprefix("--") for option in launch_command_parser()._option_string_actions}
    known |= FORMER_KEYS
    known |= {option for options in OTHER_OPTIONS.values() for option in options.split()}
    assert flags - known == set()


@pytest.mark.parametrize("name", PAGES)
def test_named_files_exist(name: str) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "runs")
    paths = re.findall(rf"`((?:{re.escape(folders).replace(chr(92) + '|', '|')})/[\w./-]+)`", TEXTS[name])
    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / name).with_name(path).exists()] == []


def test_the_messages_of_the_cluster_are_those_that_it_prints() -> None:
    """Of the rows on SLURM whose symptom is ours: the others' come from NCCL and have a source."""
    text = TEXTS["receipes/TROUBLESHOOTING.md"].partition("## SLURM")[2].partition("\n## ")[0]
    symptoms = [row.split("|")[1] for row in text.splitlines() if row.startswith("| ") and "<sub>" not in row]
    sources = [*(ROOT / "slurm").glob("*.py"), ROOT / "slurm" / "run_r1_grpo.slurm"]
    printed = "".join(path.read_text(encoding="utf-8") for path in sources)
    printed = re.sub(r'"?\s*\\?\n\s*f?"', "", printed)  # a text over two lines is one
    parts = [part.strip(" …():") for quoted in code(" ".join(symptoms[1:])) for part in quoted.strip("`").split("…")]
    assert len(parts) > 15
    assert [part for part in parts if part and part not in printed] == []


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cell."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


@pytest.mark.parametrize(
    ("row", "measured", "digits"),
    [
        ("solved (pass@1, sampled)", "pass@1", 1),
        ("solved in one of 4 samples (pass@4)", "pass@4", 1),
        ("solved greedily", "greedy", 1),
        ("hard puzzles solved (pass@1)", "pass@1 on hard puzzles", 1),
        ("completions that enumerate", "enumerating", 1),
        ("right format (truncation counts against it)", "format", 1),
        ("attempts per completion", "attempts", 1),
        ("tokens per completion", "length", 0),
        ("right arithmetic inside the thinking", "arithmetic", 1),
    ],
)
def test_the_table_of_results_is_that_of_the_runs(row: str, measured: str, digits: int) -> None:
    quoted, results = rows(TEXTS["README.md"])[row], rows(TEXTS["benchmarks/results/aha.md"])[measured]
    values = [float(cell.split()[0]) for cell in results]
    assert [float(cell.split()[0]) for cell in quoted] == [round(value, digits) for value in values]
    assert all(cell in full for cell, full in zip(quoted, results, strict=True) if "[" in cell)


@pytest.mark.parametrize(
    ("sentence", "file", "numbers"),
    [
        (
            r"(\S+) times as fast as TRL's own.* makes it (\S+) times",
            "step.md",
            r"times as fast as TRL \|[^|]*\|[^|]*\| (\S+) \([^|]*\| (\S+) \(",
        ),
        (
            r"Speed: (\S+) to (\S+) times",
            "verifier.md",
            r"all correct \|.*\| (\S+) \([\s\S]*none correct \|.*\| (\S+) \(",
        ),
        (r"memory model was (\d+) %", "memory_model.md", r"Mean error (\d+)%"),
        (
            r"`make aha` takes (\S+) and (\S+) minutes of training, and stock TRL .* recipe (\S+) and (\S+) \(medians",
            "speedrun.md",
            r"\| Mini-R1 \| (\S+) min[^|]*\| (\S+) min[\s\S]*TRL-our-recipe \| (\S+) min[^|]*\| (\S+) min",
        ),
        (r"(\S+) % \[(\S+), (\S+)\] of held-out", "server.md", r"pass@1 \| [^|]* \| (\S+) % \[(\S+), (\S+)\]"),
        (r"to (\S+) % \[(\S+), (\S+)\] on held-out", "small_model.md", r"pass@1 \| [^|]* \| (\S+) % \[(\S+), (\S+)\]"),
    ],
)
def test_a_number_in_the_text_is_that_of_the_results(sentence: str, file: str, numbers: str) -> None:
    stated = re.search(sentence, " ".join(TEXTS["README.md"].split()))
    measured = re.search(numbers, TEXTS[f"benchmarks/results/{file}"])
    assert stated
    assert measured
    for text, value in zip(stated.groups(), measured.groups(), strict=True):
        assert float(text) == pytest.approx(float(value), abs=0.05)


def test_the_plan_that_readme_shows_is_what_a_laptop_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of the excerpt, of the command above it."""
    command, excerpt = re.findall(
        r"```bash\n(python [^`]*--plan_[^`]*)```\s+It prints[^`]*```text\n([^`]*)```", TEXTS["README.md"]
    )[0]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    script, training, model = read_recipe(command.replace("\\", "").split()[2:])
    printed = check_run(script, training, model, os.environ | planned(script)).table()
    for line in excerpt.splitlines():
        assert line.strip() == "..." or line.rstrip() in map(str.rstrip, printed.splitlines())
