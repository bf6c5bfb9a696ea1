"""The report of a run, from real files in to real files out."""

import base64
import copy
import functools
import html
import io
import json
import math
import os
import random
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from conftest import as_program
from mini_r1.policy.weights import read_state
from mini_r1.results.metrics import ATTEMPTS, ENUMERATING, LENGTH, metric_of
from mini_r1.results.plots import ALWAYS, LIGHT, draw, panels_of, smooth
from mini_r1.results.report import headline, read_content, render_page, reward_rows, unlike, write_report
from mini_r1.runs.records import (
    Interval,
    RecordError,
    how_to_evaluate,
    points,
    read_evaluation,
    read_log,
    read_progress,
    read_results,
)
from mini_r1.tasks.task import FORMAT, SOLVED

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "report.py"
main = as_program(runpy.run_path(str(SCRIPT))["main"])
PNGS = ["aha.png", "solve_rate.png", "format.png", "length.png", "attempts.png", "enumerating.png"]
FILES = ("trainer_state.json", "run.json", "evaluation.json")
ATTACK = "<script>alert(1)</script>"

Log = list[dict[str, Any]]
Written = dict[str, Any]  # file name -> what its real writer wrote


def make_log(steps: int = 200) -> Log:
    """A run as TRL logs it: evaluations at every 40th step, the solve rate and the number of attempts rise."""
    rng = random.Random(0)
    log: Log = []
    for step in range(steps + 1):
        rise = 1 / (1 + math.exp(-(step - steps / 2) / (steps / 10)))
        entry = {
            SOLVED: 0.12 + 0.55 * rise + rng.gauss(0, 0.04),
            FORMAT: min(1, 0.9 + 0.1 * rise + rng.gauss(0, 0.01)),
            LENGTH: 48 + 90 * rise + rng.gauss(0, 6),
            ATTEMPTS: 2.1 + 3.4 * rise + rng.gauss(0, 0.2),
            ENUMERATING: 0.06 + 0.9 * rise,
        }
        if step:
            log.append({"step": step, "epoch": step / steps, "loss": 0.01, "step_time": 1.5} | entry)
        if step % 40 == 0:
            log.append({"step": step, "eval_runtime": 9.0} | {f"eval_{key}": value for key, value in entry.items()})
    return [*log, {"step": steps, "train_runtime": 312.0, "train_loss": 0.01}]


def groups_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every group of every breakdown of a result."""
    return [group for members in result["groups"].values() for group in members.values()]


def shaped(result: dict[str, Any], completion: str, **values: float) -> dict[str, Any]:
    """A real result with other values of metrics (`solved` stands for pass@1) and another first completion.

    Nothing is added that scripts/evaluate.py did not write.
    """
    changed = copy.deepcopy(result)
    values["pass@1"] = values.pop("solved")
    for part in (changed, *groups_of(changed)):
        for name, value in values.items():
            assert name in part["metrics"]
            half = 0.02 if metric_of(name).unit == "%" else 0.1
            part["metrics"][name] = {"value": value, "low": value - half, "high": value + half}
    assert {"held_out", "state"} <= set(changed)
    changed["held_out"] = True
    changed["samples"][0]["completion"] = completion
    return changed


def read_written(folder: Path) -> Written:
    return {name: json.loads((folder / name).read_text()) for name in FILES}


def base_of(written: Written) -> dict[str, Any]:
    completion = "\n9 - 4 = 5, 5 * 3 = 15 no\n</think>\n<answer> (9 - 4) * 3 </answer>"
    values = {"format": 0.99, "greedy": 0.137, "repeats": 0.06, "truncated": 0.03}
    return shaped(written["evaluation.json"][0], completion, solved=0.137, length=51.3, attempts=2.21, **values)


def trained_of(written: Written) -> dict[str, Any]:
    completion = f"\n9 * 4 = 36 no\n{ATTACK}</think>\n<answer> (9 + 4) * 3 </answer>"
    values = {"format": 0.91, "greedy": 0.5, "repeats": 0.22, "truncated": 0.04}
    return shaped(written["evaluation.json"][1], completion, solved=0.642, length=139.8, attempts=5.43, **values)


def make_run(folder: Path, written: Written, log: Log | None = None, results: Any = None, run: Any = None) -> Path:
    """The files of the real run in a folder, with another log; the results and run.json only where they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    log = make_log() if log is None else log
    state = written["trainer_state.json"] | {"global_step": 200, "max_steps": 200, "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))
    if results is not None:  # of the model that is there, if they say of which they are
        of_it = [result | {"state": read_state(folder)} if "state" in result else result for result in results]
        (folder / "evaluation.json").write_text(json.dumps(of_it))
    return folder


class Page(HTMLParser):
    """The page as a reader gets it: its elements, its text, and the text of every <pre>."""

    VOID = ("meta", "link", "img", "source")

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.pres, self._open = "", [""], [""]
        self.tagged: list[tuple[str, list[str]]] = []  # lines of <pre> that bear tags, with them
        self._is_tag = False
        self.feed(markup)
        self.close()
        assert self._open == [""], f"never closed: {self._open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " "
        if tag == "pre":
            self.pres.append("")
        if tag not in self.VOID:
            self._open.append(tag)
        self._is_tag = dict(attrs).get("class") == "mark"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"
        self.text += "" if tag in ("code", "span") else " "
        self._is_tag = False

    def handle_data(self, data: str) -> None:
        if self._open[-1] != "style":
            self.text += data
        if self._is_tag:
            line = self.pres[-1].rsplit("\n", 1)[-1]
            if not self.tagged or self.tagged[-1][0] != line:
                self.tagged.append((line, []))
            self.tagged[-1][1].append(data)
        elif "pre" in self._open:
            self.pres[-1] += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def report(run_dir: Path) -> Page:
    write_report(run_dir)
    return Page((run_dir / "report" / "index.html").read_text())


@pytest.fixture(scope="session")
def written(finished_run: Path) -> Written:
    """What the real writers wrote."""
    return read_written(finished_run)


@pytest.fixture(scope="session")
def base(written: Written) -> dict[str, Any]:
    return base_of(written)


@pytest.fixture(scope="session")
def trained(written: Written) -> dict[str, Any]:
    return trained_of(written)


Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(written: Written) -> Make:
    return functools.partial(lambda written, folder, *more, **files: make_run(folder, written, *more, **files), written)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, make: Make, base: Any, trained: Any, written: Written) -> Path:
    folder = make(tmp_path_factory.mktemp("runs") / "aha", results=[base, trained], run=written["run.json"])
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def markup(run_dir: Path) -> str:
    return (run_dir / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def page(markup: str) -> Page:
    return Page(markup)


# --- plots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PNGS)
def test_plot_is_an_image_with_all_colours(name: str, run_dir: Path) -> None:
    image = Image.open(run_dir / "report" / name)
    image.load()
    assert image.format == "PNG"
    assert image.size == ((1650, 1687) if name == "aha.png" else (900, 600))
    colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (255, 255, 255)} <= colours  # train, held out, background


def test_a_curve_with_gaps_and_an_empty_one(tmp_path: Path, make: Make) -> None:
    log: Log = [{"step": 1, SOLVED: None}, {"step": 2, SOLVED: 0.5}, {"step": 3, SOLVED: float("nan")}, {"step": 4}]
    page = report(make(tmp_path, log))
    alternatives = [image["alt"] for image in page.tags("img")]
    assert alternatives[0] == "Solve rate: training batch from 50.0% at step 2 to 50.0% at step 2"
    assert alternatives[1:] == [f"{panel.title}: not recorded" for panel in ALWAYS[1:]]


def test_points_are_finite_numbers() -> None:
    odd = [None, float("inf"), "7", True, 0.25]
    assert points([{"step": i, "x": value} for i, value in enumerate(odd)], "x") == {4: 0.25}


def test_what_was_done_again_after_a_resume_counts_once(tmp_path: Path, make: Make) -> None:
    first: Log = [{"step": s, "x": s} for s in (1, 2, 3, 4)] + [{"step": 4, "eval_x": 4}]
    log = read_log(make(tmp_path, [*first, {"step": 3, "x": 30}, {"step": 4, "x": 40}]) / "trainer_state.json")
    assert points(log, "x") == {1: 1, 2: 2, 3: 30, 4: 40}
    assert points(log, "eval_x") == {}  # of the model that was thrown away
    log = read_log(make(tmp_path, [*first, {"step": 2, "x": 20}]) / "trainer_state.json")
    assert points(log, "x") == {1: 1, 2: 20}


def test_smoothing_keeps_a_line_and_shrinks_noise() -> None:
    line = [float(i) for i in range(100)]
    assert smooth(line)[10:90] == line[10:90]
    assert max(map(abs, smooth([1.0, -1.0] * 100))) < 0.2
    assert smooth([]) == []


def test_leaves_matplotlib_as_it_was(tmp_path: Path, make: Make) -> None:
    code = """
import sys, matplotlib
from pathlib import Path
from mini_r1.results.report import write_report
def settings():  # to ask for the backend would import pyplot and choose one
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
write_report(Path(sys.argv[1]))
assert settings() == before and not {"matplotlib.pyplot", "torch"} & set(sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(make(tmp_path))]
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)


# --- page ----------------------------------------------------------------------------------------------------------

NOT_FOR_READERS = re.compile(r"[\[{]['\"]|\b(?:None|nan|NaN|inf|True|False|null)\b|Reason\.|(?:equation|format) \d\.\d")


def test_a_real_run_is_told_in_words(finished_run: Path, tmp_path: Path, written: Written) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    page = report(folder)
    prose, recipe = page.text.split("recipe, with what the command line set")
    assert NOT_FOR_READERS.findall(prose) == [] and NOT_FOR_READERS.sub("", recipe).count("{") == 0
    assert yaml.safe_load(page.pres[-2]) == {k: v for k, v in written["run.json"]["recipe"].items() if v is not None}
    for told in (
        "base model " + written["run.json"]["model"],
        'problems generated:tiny, split "train", at most 200 problems, 10 % of them held out (split seed 42)',
        "steps 4 ",
        "seed 42 ",
        "trained all parameters",
        f"torch {written['run.json']['versions']['torch']}",
        "evaluated on 16 ",
        "problems of generated:tiny",
        "samples 4; temperature 1; max completion length 64",
    ):
        assert told in prose + recipe, told
    assert "command python " in prose


def test_the_synthetic_log_has_the_keys_of_a_real_one(written: Written) -> None:
    real = {key for entry in written["trainer_state.json"]["log_history"] for key in entry}
    assert {key for entry in make_log() for key in entry} <= real
    keys = {key for panel in panels_of(make_log()) for key in (panel.key, f"eval_{panel.key}")}
    assert keys <= real


def test_headline_tells_before_and_after(page: Page) -> None:
    assert (
        "More held-out problems are solved by a sampled completion (pass@1): 13.7 % (11.7–15.7) before, "
        "64.2 % (62.2–66.2) after." in page.text
    )
    assert "Thinking got longer: 51.3 tokens (51.2–51.4) before, 139.8 tokens (139.7–139.9) after." in page.text
    assert "The model tries more often: 2.21 (2.11–2.31) before, 5.43 (5.33–5.53) after." in page.text


def test_the_game_is_the_first_that_it_says(page: Page) -> None:
    before, _, after = page.text.partition("The task is the Countdown numbers game: use each given number exactly once")
    assert before.split() == ["Mini-R1", "report:", "aha"] * 2 and "13.7 %" in after  # the two titles


def test_losses_are_in_the_headline(page: Page) -> None:
    assert (
        "Worse after training: completions in the format 99.0 % → 91.0 % (89.0–93.0); "
        "attempts that repeat an earlier one 6.0 % → 22.0 % (20.0–24.0)." in page.text
    )
    assert "Its greedy completion solves less than a sampled one: 50.0 % (48.0–52.0) against 64.2 %." in page.text


@pytest.fixture
def said(tmp_path: Path, make: Make) -> Callable[..., str]:
    def said(*results: dict[str, Any]) -> str:
        folder = make(tmp_path, [], list(results))
        return " ".join(headline(read_results(folder / "evaluation.json"), read_progress(folder)))

    return said


def test_headline_holds_whichever_way_it_went(said: Callable[..., str], base: Any, trained: Any) -> None:
    worse = said(trained, base)
    assert "Fewer held-out problems are solved by a sampled completion (pass@1): 64.2 %" in worse
    assert "Thinking got shorter: 139.8" in worse and "less often: 5.43" in worse
    assert "Worse after training: solved by the greedy completion 50.0 %" in worse and "format" not in worse
    near = shaped(base, "", solved=0.14, length=51.35, attempts=2.25)
    same = said(base, near)
    assert (
        same.count("unchanged within the intervals") == 3 and "Nothing else that was measured got clearly worse" in same
    )
    assert not re.search("longer|shorter|often|More|Fewer|Worse", same)


LOWER = ("truncated", "repeats", "foreign", "false_yes", "false_no")
HIGHER = ("pass@2", "pass@4", "greedy", "format", "arithmetic")


@pytest.mark.parametrize("name", [*LOWER, *HIGHER])
def test_each_loss_is_named_and_coloured_and_each_gain_is_not_a_loss(
    name: str, said: Callable[..., str], base: Any, tmp_path: Path, make: Make
) -> None:
    low, high = shaped(base, "", solved=0.137), shaped(base, "", solved=0.137)
    for result, value in ((low, 0.2), (high, 0.6)):
        result["metrics"][name] = {"value": value, "low": value - 0.01, "high": value + 0.01}
    lost, gained = ((low, high), (high, low)) if name in LOWER else ((high, low), (low, high))
    assert f"Worse after training: {metric_of(name).label}" in said(*lost)
    assert metric_of(name).label not in said(*gained)
    for results, verdict in ((lost, "worse"), (gained, "better")):
        rows = read_content(make(tmp_path, [], list(results)))["metrics"]
        (row,) = (row for row in rows if row["label"] == metric_of(name).label)
        assert row["change"]["says"] == verdict


NEITHER_WAY = ("length", "attempts", "enumerating", "mixed")


def test_every_metric_of_a_real_evaluation_has_words_and_a_direction(written: Written) -> None:
    for name in written["evaluation.json"][0]["metrics"]:
        metric = metric_of(name)
        assert metric.label != name and (metric.better != 0) == (name not in NEITHER_WAY)


def test_a_change_is_shown_by_colour_and_by_word(page: Page) -> None:
    styles = [str(attributes.get("class")) for attributes in page.tags("span")]
    assert styles.count("better") == styles.count("range better") > 0
    assert styles.count("worse") == styles.count("range worse") == 2  # format and repeats


def test_intervals_that_touch_are_no_change() -> None:
    assert Interval(1, 0, 2).change_to(Interval(3, 2, 4)) == 0
    assert Interval(1, 0, 2).change_to(Interval(3, 2.001, 4)) == 1
    assert Interval(3, 2.001, 4).change_to(Interval(1, 0, 2)) == -1


@pytest.mark.parametrize(
    "row",
    [
        "solved by a sampled completion (pass@1) 13.7 % 11.7–15.7 64.2 % 62.2–66.2 +50.5 points better",
        "solved by the greedy completion 13.7 % 11.7–15.7 50.0 % 48.0–52.0 +36.3 points better",
        "completions in the format 99.0 % 97.0–101.0 91.0 % 89.0–93.0 −8.0 points worse",
        "completion length 51.3 tokens 51.2–51.4 139.8 tokens 139.7–139.9 +88.5 tokens",
        "completions cut off at the token limit 3.0 % 1.0–5.0 4.0 % 2.0–6.0 +1.0 points within the intervals",
        "attempts per completion 2.21 2.11–2.31 5.43 5.33–5.53 +3.22",
        "attempts that repeat an earlier one 6.0 % 4.0–8.0 22.0 % 20.0–24.0 +16.0 points worse",
    ],
)
def test_table_rows_equal_the_inputs(row: str, page: Page) -> None:
    assert row in page.text


def test_breakdowns_and_verdicts_are_those_of_the_evaluation(page: Page, base: Any, trained: Any) -> None:
    groups = base["groups"]["difficulty"]
    for name, group in groups.items():
        assert f"{name} {group['puzzles']} 13.7 % 11.7–15.7 64.2 % 62.2–66.2 +50.5 points better" in page.text
    for name in ("correct uses every number once and reaches the target", "no answer no finished answer block"):
        shares = [
            100 * result["reasons"][name.split(" uses")[0].split(" no f")[0].replace(" ", "_")]
            for result in (base, trained)
        ]
        assert f"{name} {shares[0]:.1f} % {shares[1]:.1f} %" in page.text
    assert [page.text.index(f" {name} {group['puzzles']} ") for name, group in groups.items()] == sorted(
        page.text.index(f" {name} {group['puzzles']} ") for name, group in groups.items()
    )


def test_a_breakdown_with_one_row_is_left_out(page: Page, base: Any) -> None:
    assert len(base["groups"]["difficulty"]) > 1 == len(base["groups"]["how many numbers"])  # 3 in each tiny puzzle
    assert "pass@1 by difficulty" in page.text and "by how many numbers" not in page.text


def test_metric_without_a_value_is_left_out(tmp_path: Path, make: Make, base: Any) -> None:
    silent = copy.deepcopy(base)
    silent["metrics"]["arithmetic"] = {"value": None, "low": None, "high": None}
    page = report(make(tmp_path, [], [silent]))
    assert "equations in the thinking" not in page.text and "None" not in page.text and "nan" not in page.text


def test_plots_are_embedded_light_and_dark_with_one_legend(page: Page) -> None:
    pictures = [[str(image[key]) for image in page.tags(tag)] for tag, key in (("img", "src"), ("source", "srcset"))]
    assert len(pictures[0]) == len(pictures[1]) == 5
    for sources, colour in zip(pictures, ((255, 255, 255), (0x16, 0x1B, 0x22)), strict=True):
        for source in sources:
            image = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))).convert("RGB")
            assert image.size == (900, 600) and image.getpixel((0, 0)) == colour
    assert page.text.count("training batch, smoothed") == 1
    first, last = (points(make_log(), f"eval_{SOLVED}")[step] for step in (0, 200))
    assert f"held-out problems from {first:.1%} at step 0 to {last:.1%} at step 200" in str(page.tags("img")[0]["alt"])


def test_only_pictures_of_their_own_have_a_legend() -> None:
    with_legend, without = (
        Image.open(io.BytesIO(draw([ALWAYS[0]], make_log(), LIGHT, legend))) for legend in (True, False)
    )
    foot = (0, 580, 900, 600)
    inks = [len(image.convert("L").crop(foot).getcolors() or []) for image in (with_legend, without)]
    assert with_legend.tobytes() != without.tobytes() and inks[0] > 1


def test_nothing_runs_and_nothing_is_fetched(page: Page) -> None:
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert str(attributes.get(name, "data:")).startswith("data:")
    policy = next(meta["content"] for meta in page.tags("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy) and "script-src" not in str(policy)


# --- samples -------------------------------------------------------------------------------------------------------


def test_completions_are_shown_as_written_and_escaped(page: Page, markup: str, base: Any, trained: Any) -> None:
    assert ATTACK not in markup and markup.count(html.escape(ATTACK)) == 1
    shown = [f"<think>{result['samples'][i]['completion']}" for i in range(16) for result in (base, trained)]
    assert page.pres[1:-2] == shown  # the last two are the recipe and all settings


def test_lines_that_go_wrong_are_tagged(tmp_path: Path, make: Make, base: Any) -> None:
    marked = copy.deepcopy(base)
    lines = {
        "9 - 4 = 5, 5 * 3 = 15 no": [],
        "4 + 9 = 13, 13 * 3 = 39 no": ["false no"],
        "9 - 4 = 5, 5 * 3 = 15 yes": ["repeat", "false yes"],
        "8 + 9 = 17 no": ["not among the numbers"],
        "9 + 3 = 13, 13 - 4 = 9 no": ["wrong arithmetic"],
        "<b>": [],
    }
    marked["samples"] = marked["samples"][:1]
    marked["samples"][0] |= {
        "row": {"nums": [9, 4, 3], "target": 39},
        "completion": "\n".join(["", *lines, "</think>", "<answer>"]),
    }
    page = report(make(tmp_path, [], [marked]))
    assert page.pres[1] == f"<think>{marked['samples'][0]['completion']}"  # the tags are no part of what was written
    assert page.tagged == [(text, tags) for text, tags in lines.items() if tags]
    assert not page.tags("b")


def test_a_sample_says_in_words_how_it_was_judged(page: Page, base: Any) -> None:
    first = base["samples"][0]
    answer, form = ("right" if first["solved"] else "wrong"), ("kept" if first["in_format"] else "broken")
    attempts = f"{first['attempts']} attempt{'' if first['attempts'] == 1 else 's'}"
    assert f"{first['tokens']} tokens, {attempts}, answer {answer}, format {form}" in page.text
    assert not re.search(r"equation \d\.\d", page.text)


def test_every_other_text_is_escaped_too(tmp_path: Path, make: Make, base: Any) -> None:
    attacks = [f"<script>alert({n})</script>" for n in range(12)]
    result: dict[str, Any] = copy.deepcopy(base)
    result |= {"model": attacks[0], "dataset": attacks[1]}
    result["samples"][0] |= {"reason": attacks[2], "groups": {"difficulty": attacks[3]}, "shown": attacks[11]}
    result["settings"][attacks[4]] = attacks[5]
    result["metrics"][attacks[6]] = result["metrics"]["pass@1"]
    result["groups"]["difficulty"][attacks[7]] = result["groups"]["difficulty"]["easy"]
    run = {"command": attacks[8], "data": {"dataset": attacks[9]}, "recipe": {"key": attacks[10]}}
    page = report(make(tmp_path / ATTACK.replace("/", ""), results=[result], run=run))
    assert not page.tags("script") and [attack for attack in attacks if attack not in page.text] == []


def test_odd_characters_do_not_stop_the_report(tmp_path: Path, make: Make, base: Any) -> None:
    odd = shaped(base, "half a pair \ud83d, a whole 😀, nul \0, </pre><b>", solved=0.5)
    page = report(make(tmp_path, results=[odd]))
    assert "half a pair \\ud83d, a whole 😀" in page.text and "</pre><b>" in page.pres[1] and not page.tags("b")


def test_samples_stand_beside_the_same_puzzle(tmp_path: Path, make: Make, base: Any, trained: Any) -> None:
    left, right = copy.deepcopy(base), copy.deepcopy(trained)
    for result in (left, right):
        result["samples"] = result["samples"][:2]
        result["samples"][0] |= {"key": "3,4,9:39", "shown": "9, 4, 3 → 39", "groups": {"difficulty": "easy"}}
        result["samples"][1] |= {"key": "2,5,8:16", "shown": "2, 8, 5 → 16"}
    right["samples"].reverse()
    right["samples"][1] |= {"shown": "3, 9, 4 → 39", "completion": "of the first puzzle"}  # its numbers reordered
    left["samples"][1] |= {"key": "2,5,8:17", "shown": "2, 8, 5 → 17"}  # another puzzle
    page = report(make(tmp_path, [], [left, right]))
    assert page.pres[1:] == [f"<think>{base['samples'][0]['completion']}", "<think>of the first puzzle"]
    assert "9, 4, 3 → 39 easy" in page.text and "→ 16" not in page.text and "→ 17" not in page.text


def test_no_puzzles_in_common(tmp_path: Path, make: Make, base: Any) -> None:
    page = report(make(tmp_path, [], [base, base | {"samples": []}]))
    assert "no completions of the same problems" in page.text


def test_warns_of_evaluations_that_were_not_alike(
    page: Page, tmp_path: Path, make: Make, base: Any, trained: Any
) -> None:
    assert "not measured alike" not in page.text
    other = trained | {"settings": trained["settings"] | {"temperature": 0.5}}
    warned = report(make(tmp_path, [], [base, other]))
    assert "not measured alike" in warned.text
    assert "temperature: 1 for the base, 0.5 for the trained" in warned.text
    asked = [result | {"per_puzzle": {"key": [f"1,2:{n}"]}} for n, result in enumerate((base, trained))]
    results = read_results(make(tmp_path, [], asked) / "evaluation.json")
    assert unlike(results) == ["the problems are others, or in another order"]


# --- which state of the model ----------------------------------------------------------------------------------------


def test_without_an_evaluation(tmp_path: Path, make: Make, written: Written) -> None:
    folder = make(tmp_path / "aha", run=written["run.json"])
    page = report(folder)
    before, after = (100 * points(make_log(), f"eval_{SOLVED}")[step] for step in (0, 200))
    assert f"{before:.1f} % of the held-out problems were solved at step 0 and {after:.1f} % at step 200" in page.text
    assert "There is no evaluation.json in the run's folder yet. Make one" in page.text
    assert len(page.tags("img")) == 5 and not page.tags("table") and "steps 200" in page.text


def test_the_command_that_it_names_makes_the_evaluation(finished_run: Path, tmp_path: Path, written: Written) -> None:
    """Run for real as it stands, but with fewer puzzles: its values are those of run.json, not placeholders."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "my run"))
    (folder / "evaluation.json").unlink()
    command = report(folder).pres[1]
    assert command == how_to_evaluate(folder) and written["run.json"]["model"] in command
    arguments = shlex.split(command)
    assert arguments[:2] == ["python", "scripts/evaluate.py"]
    evaluate = runpy.run_path(str(ROOT / arguments[1]))["main"]
    assert evaluate([*arguments[2:], "--puzzles", "4", "--samples", "1"]) == 0
    page = report(folder)
    assert (
        re.search("evaluated on 4 (held-out )?problems", page.text) and "There is no evaluation.json" not in page.text
    )


def test_without_run_json_the_command_measures_the_model_alone(tmp_path: Path, make: Make) -> None:
    folder = make(tmp_path / "aha")
    assert how_to_evaluate(folder) == f"python scripts/evaluate.py {folder} --out {folder}/evaluation.json"


def test_an_evaluation_of_another_model_is_refused(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    assert read_evaluation(folder).results  # whatever the times of its files: it was copied
    for part in ("evaluation.json", "trainer_state.json", "run.json"):
        os.utime(folder / part, (1, 1))
    assert read_evaluation(folder).results
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")  # the same step, another seed
    page = report(folder)
    assert "evaluation.json is not of the model that the run has now: the weights are others now." in page.text
    assert page.tags("table") == [{"id": "rewards"}] and how_to_evaluate(folder) in page.pres


def test_an_evaluation_without_a_state_counts_while_it_is_the_newest_file(
    tmp_path: Path, make: Make, base: Any, trained: Any
) -> None:
    folder = make(tmp_path, results=[without(base, "state"), without(trained, "state")])  # of an earlier version
    assert read_evaluation(folder).results
    later = (folder / "evaluation.json").stat().st_mtime + 10
    os.utime(folder / "trainer_state.json", (later, later))
    page = report(folder)
    assert "not of the model that the run has now: it is older than the newest checkpoint." in page.text
    assert "13.7 %" not in page.text and "64.2 %" not in page.text and how_to_evaluate(folder) in page.pres


def without(result: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != key}


@pytest.mark.parametrize("held_out, told", [("unknown", "nobody can say"), (False, "it was trained on some of them")])
def test_puzzles_are_called_held_out_only_where_that_is_known(
    held_out: Any, told: str, tmp_path: Path, make: Make, base: Any, trained: Any, page: Page
) -> None:
    assert "Not verified as held out" not in page.text and "More held-out problems are solved" in page.text
    doubtful = report(make(tmp_path, [], [base, trained | {"held_out": held_out}]))
    assert f"Not verified as held out. trained: {told}" in doubtful.text
    assert "More problems are solved" in doubtful.text and "held-out problems are" not in doubtful.text


def test_a_run_under_way_is_reported(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for name in ("trainer_state.json", "evaluation.json", "config.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoint-4")
    state = folder / "checkpoint-2" / "trainer_state.json"
    assert json.loads(state.read_text())["max_steps"] == 4
    page = report(folder)
    assert "This run is not finished: step 2 of 4: under way, or stopped." in page.text
    assert f"{folder}/checkpoint-2 " in page.pres[1]
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "trainer_state.json").write_text("{")  # being written
    assert "step 2 of 4" in report(folder).text


def test_a_run_gone_on_with_after_its_end_is_under_way(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    state = json.loads((folder / "trainer_state.json").read_text())
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-6")
    state |= {"global_step": 6, "max_steps": 8, "log_history": [*state["log_history"], {"step": 6, SOLVED: 1.0}]}
    (folder / "checkpoint-6" / "trainer_state.json").write_text(json.dumps(state))
    page = report(folder)
    assert (
        "step 6 of 8: under way, or stopped." in page.text and "it is of step 4, and the run is at step 6" in page.text
    )


def test_every_reward_is_shown_from_the_beginning_to_the_end(tmp_path: Path, make: Make, finished_run: Path) -> None:
    """Under the name that TRL logs it by; of an evaluation during the run there is another entry, which is not it."""
    log = [{"step": step, "rewards/my <b>/mean": float(step), "rewards/my <b>/std": 1.0} for step in range(1, 21)]
    log += [{"step": 20, "eval_rewards/my <b>/mean": 7.0}, {"step": 21, "rewards/late/mean": float("nan")}]
    page = report(make(tmp_path, log))
    assert "Rewards reward at the beginning at the end my <b> 1.500 19.500 The mean of each" in page.text
    assert "over 2 training batches" in page.text
    log = json.loads((finished_run / "trainer_state.json").read_text())["log_history"]
    rows = reward_rows(log)
    assert {row["name"] for row in rows} == {"format_reward_func", "equation_reward_func"}
    assert "Rewards" not in report(make(tmp_path / "none", [])).text


def test_nothing_logged_and_nothing_evaluated(tmp_path: Path, make: Make) -> None:
    assert "has not been evaluated yet" in report(make(tmp_path, [])).text


def test_one_model(tmp_path: Path, make: Make, trained: Any) -> None:
    page = report(make(tmp_path, results=[trained]))
    told = f"{trained['model']} on 16 held-out problems: solved by a sampled completion (pass@1) 64.2 % (62.2–66.2), "
    assert told in page.text
    assert not re.search(r"\bbase\b|before|within the intervals|points", page.text)


# --- files ---------------------------------------------------------------------------------------------------------


def test_again_gives_the_same_bytes_and_leaves_nothing_else(run_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run_dir / "report").iterdir()}
    assert sorted(before) == sorted([*PNGS, "index.html"])
    write_report(run_dir)
    assert {path.name: path.read_bytes() for path in (run_dir / "report").iterdir()} == before


def test_an_error_leaves_the_old_report(tmp_path: Path, make: Make) -> None:
    write_report(make(tmp_path))
    old = (tmp_path / "report" / "index.html").read_bytes()
    (tmp_path / "evaluation.json").write_text("[{}]")
    with pytest.raises(RecordError, match="no 'model'"):
        write_report(tmp_path)
    assert (tmp_path / "report" / "index.html").read_bytes() == old


def test_script_prints_the_paths(tmp_path: Path, make: Make) -> None:
    command = [sys.executable, str(SCRIPT), str(make(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "report" / name) for name in [*PNGS, "index.html"]]
    assert done.stderr == ""


Broken = Callable[[list[dict[str, Any]]], Any]  # the two real results -> what evaluation.json holds instead


@pytest.mark.parametrize(
    "file, content, complaint, fix",
    [
        ("trainer_state.json", None, "no {path}", "give the output folder of a run"),
        ("trainer_state.json", '{"log_history": [', "{path} is not JSON", "checkpoint-N/"),
        ("trainer_state.json", "[]", '{path}: expected {{"log_history"', "checkpoint-N/"),
        ("trainer_state.json", '{"log_history": [{"loss": 1}]}', "{path}: expected", "checkpoint-N/"),
        ("evaluation.json", "{", "{path} is not JSON", "scripts/evaluate.py"),
        ("evaluation.json", "[]", "{path}: expected a list of one or two", "scripts/evaluate.py"),
        ("evaluation.json", lambda both: both + both, "{path}: expected a list of one or two", "scripts/evaluate.py"),
        ("evaluation.json", lambda both: [both[0], {**both[1], "metrics": None}], "result 1: ", "scripts/evaluate.py"),
        ("evaluation.json", '["tiny-base"]', "{path}, result 0: ", "scripts/evaluate.py"),
        ("evaluation.json", lambda both: [both[0] | {"metrics": {"pass@1": 0.5}}], "result 0: ", "scripts/evaluate.py"),
        ("run.json", "\xff", "{path} is not JSON", "correct or remove it"),
        ("run.json", "[]", "{path}: expected an object", "correct or remove it"),
    ],
)
def test_says_what_is_wrong_and_what_to_do(
    file: str, content: str | Broken | None, complaint: str, fix: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], make: Make, base: Any, trained: Any,
) -> None:  # fmt: skip
    path = make(tmp_path) / file
    if content is None:
        path.unlink()
    else:
        text = content if isinstance(content, str) else json.dumps(content([base, trained]))
        path.write_text(text, encoding="latin-1")
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert complaint.format(path=path) in printed.err and fix in printed.err and str(path) in printed.err
    assert not (tmp_path / "report").exists()


def test_a_mistyped_folder_is_answered_with_the_runs_there(
    tmp_path: Path, make: Make, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "aha-seed42", run=written["run.json"])
    assert main([str(tmp_path / "ahaseed42")]) == 2
    told = f"error: no folder {tmp_path}/ahaseed42; runs there: {tmp_path}/aha-seed42. Fix: give the output folder of a"
    assert told in capsys.readouterr().err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    assert main([str(tmp_path / "begun")]) == 2
    assert "this run has not saved anything yet. Fix: wait for its first checkpoint" in capsys.readouterr().err


ODD: tuple[Any, ...] = (None, True, -1, 1e400, "<&>", [], [None], {}, {"a": {"b": None}}, 0.5)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value stands in a JSON file; of a list only the first and the last are looked into."""
    if path:
        yield path
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = sorted({0: value[0], len(value) - 1: value[-1]}.items()) if value else []
    for key, item in items:
        yield from paths_in(item, (*path, key))


@pytest.mark.parametrize("file", FILES)
def test_whatever_is_missing_or_odd_ends_in_a_page_or_in_one_line(
    file: str, tmp_path: Path, make: Make, base: Any, trained: Any, written: Written
) -> None:
    """Each value of each file, at any depth, is left out and replaced by values of other kinds."""
    few = [copy.deepcopy(result) for result in (base, trained)]
    for result in few:  # one of each kind is enough
        result["groups"] = {kind: dict([*members.items()][:1]) for kind, members in result["groups"].items()}
        for part in (result, *groups_of(result)):
            part["metrics"] = {name: part["metrics"][name] for name in ("pass@1", "format")}
        result["samples"] = result["samples"][:1]
    run = written["run.json"]
    run = run | {key: dict([*run[key].items()][:3]) for key in ("recipe", "settings")}
    whole = {"results": few, "run": run}
    path = make(tmp_path, written["trainer_state.json"]["log_history"], **whole) / file
    original = json.loads(path.read_text())
    pages = refusals = 0
    for number, place in enumerate(paths_in(original)):
        for odd in (
            "missing",
            *(ODD[(3 * number + k) % len(ODD)] for k in range(3)),
        ):  # in turn: all of them take minutes
            changed = copy.deepcopy(original)
            parent = functools.reduce(lambda value, key: value[key], place[:-1], changed)
            if odd == "missing":
                del parent[place[-1]]
            else:
                parent[place[-1]] = odd
            path.write_text(json.dumps(changed))
            os.utime(tmp_path / "evaluation.json")  # the newest
            try:
                page = Page(render_page(read_content(tmp_path), []))
            except RecordError as error:
                refusals += 1
                assert str(path) in str(error) and "Fix: " in str(error) and "\n" not in str(error)
            else:
                pages += 1
                assert not re.search(r"\bNone\b|\bnan\b|[{\[]['\"]", page.text), (place, odd)
    assert pages > 20
