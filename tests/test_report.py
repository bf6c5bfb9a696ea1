"""The report of a run, from real files in to real files out."""

import base64
import html
import io
import json
import math
import random
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mini_r1.plots import PANELS, smooth
from mini_r1.report import headline, unlike, write_report
from mini_r1.run_records import Interval, points, read_log, read_results

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "report.py"
main = runpy.run_path(str(SCRIPT))["main"]
PNGS = ["aha.png", "solve_rate.png", "format.png", "length.png", "attempts.png"]
ATTACK = "<script>alert(1)</script>"
SOLVED, LENGTH = "rewards/equation_reward_func/mean", "completions/mean_length"

Log = list[dict[str, Any]]


def make_log(steps: int = 200) -> Log:
    """A run as TRL logs it: evaluations at every 40th step, the solve rate and the number of attempts rise."""
    rng = random.Random(0)
    log: Log = []
    for step in range(steps + 1):
        rise = 1 / (1 + math.exp(-(step - steps / 2) / (steps / 10)))
        entry = {
            SOLVED: 0.12 + 0.55 * rise + rng.gauss(0, 0.04),
            "rewards/format_reward_func/mean": min(1, 0.9 + 0.1 * rise + rng.gauss(0, 0.01)),
            LENGTH: 48 + 90 * rise + rng.gauss(0, 6),
            "completions/clipped_ratio": 0.01,
            "thinking/attempts": 2.1 + 3.4 * rise + rng.gauss(0, 0.2),
            "thinking/arithmetic": 0.98 if step % 7 else None,
        }
        if step:
            log.append({"step": step, "epoch": step / steps, "loss": 0.01, "step_time": 1.5} | entry)
        if step % 40 == 0:
            log.append({"step": step, "eval_runtime": 9.0} | {f"eval_{key}": value for key, value in entry.items()})
    return [*log, {"step": steps, "train_runtime": 312.0, "train_loss": 0.01}]


def make_result(model: str, solved: float, length: float, attempts: float, completion: str) -> dict[str, Any]:
    """One model's result as scripts/evaluate.py writes it."""

    def metric(value: float, half: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    puzzles: list[tuple[list[int], int, str]] = [([9, 4, 3], 39, "easy"), ([2, 8, 5, 1], 16, "medium")]
    shares = {"pass@1": 0.0, "pass@2": 0.1, "pass@4": 0.2, "greedy": 0.03}
    return {
        "model": model,
        "dataset": "generated:tiny",
        "puzzles": 400,
        "settings": {"samples": 4, "temperature": 1.0, "max_completion_length": 320, "seed": 0},
        "seconds": 42.5,
        "metrics": {name: metric(solved + more, 0.021) for name, more in shares.items()}
        | {"format": metric(0.95, 0.01), "length": metric(length, 2.5), "truncated": metric(0.013, 0.01)}
        | {"attempts": metric(attempts, 0.11), "arithmetic": {"value": None, "low": None, "high": None}},
        "by_difficulty": {
            name: {"puzzles": n, "metrics": {"pass@1": metric(solved + more, 0.05)}}
            for name, n, more in (("easy", 150, 0.2), ("medium", 200, 0.0), ("hard", 50, -0.1))
        },
        "by_numbers": {
            name: {"puzzles": 200, "metrics": {"pass@1": metric(solved + more, 0.04)}}
            for name, more in (("3", 0.1), ("4", -0.1))
        },
        "reasons": {"correct": solved, "no_answer": 0.04, "wrong_value": 0.96 - solved},
        "samples": [
            {
                "nums": nums,
                "target": target,
                "difficulty": difficulty,
                "completion": completion,
                "equation_reward": 1.0,
                "format_reward": 1.0,
                "reason": "correct",
                "attempts": 2,
                "tokens": 41,
            }
            for nums, target, difficulty in puzzles
        ],
    }


BASE = make_result(
    "tiny-base", 0.137, 51.3, 2.21, "\n9 - 4 = 5, 5 * 3 = 15 no\n</think>\n<answer> (9 - 4) * 3 </answer>"
)
TRAINED = make_result(
    "runs/aha", 0.642, 139.8, 5.43, f"\n9 * 4 = 36 no\n{ATTACK}</think>\n<answer> (9 + 4) * 3 </answer>"
)
RUN: dict[str, Any] = {
    "command": "python scripts/run_r1_grpo.py --config a.yaml",
    "seed": 42,
    "seconds": 312.4,
    "steps": 200,
}
RUN |= {"hardware": "2 CPU threads, no GPU", "model": "assets/tiny-base", "receipe": "receipes/aha.yaml"}


def make_run(folder: Path, log: Log | None = None, results: list[dict[str, Any]] | None = None, **run: Any) -> Path:
    """Write the files that a run leaves; results and run.json only where they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"global_step": 200, "log_history": make_log() if log is None else log}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if results is not None:
        (folder / "evaluation.json").write_text(json.dumps(results))
    if run:
        (folder / "run.json").write_text(json.dumps(run))
    return folder


class Page(HTMLParser):
    """The page as a reader gets it: its elements, its text, and the text of every <pre>."""

    VOID = ("meta", "link", "img", "source")

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.pres, self._open = "", [""], [""]
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

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"
        self.text += "" if tag in ("code", "span") else " "

    def handle_data(self, data: str) -> None:
        if self._open[-1] != "style":
            self.text += data
        if "pre" in self._open:
            self.pres[-1] += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def report(run_dir: Path) -> Page:
    write_report(run_dir)
    return Page((run_dir / "report" / "index.html").read_text())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "aha", results=[BASE, TRAINED], **RUN)
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
    assert image.size == ((1650, 1125) if name == "aha.png" else (900, 600))
    colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (255, 255, 255)} <= colours  # train, held out, background


def test_a_curve_with_gaps_and_an_empty_one(tmp_path: Path) -> None:
    log: Log = [{"step": 1, SOLVED: None}, {"step": 2, SOLVED: 0.5}, {"step": 3, SOLVED: float("nan")}, {"step": 4}]
    page = report(make_run(tmp_path, log))
    alternatives = [image["alt"] for image in page.tags("img")]
    assert alternatives[0] == "Solve rate: training batch from 50.0% at step 2 to 50.0% at step 2"
    assert alternatives[1:] == [f"{panel.title}: not recorded" for panel in PANELS[1:]]


def test_points_are_finite_numbers() -> None:
    odd = [None, float("inf"), "7", True, 0.25]
    assert points([{"step": i, "x": value} for i, value in enumerate(odd)], "x") == {4: 0.25}


def test_what_was_done_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    first: Log = [{"step": s, "x": s} for s in (1, 2, 3, 4)] + [{"step": 4, "eval_x": 4}]
    log = read_log(make_run(tmp_path, [*first, {"step": 3, "x": 30}, {"step": 4, "x": 40}]) / "trainer_state.json")
    assert points(log, "x") == {1: 1, 2: 2, 3: 30, 4: 40}
    assert points(log, "eval_x") == {}  # of the model that was thrown away
    log = read_log(make_run(tmp_path, [*first, {"step": 2, "x": 20}]) / "trainer_state.json")
    assert points(log, "x") == {1: 1, 2: 20}


def test_smoothing_keeps_a_line_and_shrinks_noise() -> None:
    line = [float(i) for i in range(100)]
    assert smooth(line)[10:90] == line[10:90]
    assert max(map(abs, smooth([1.0, -1.0] * 100))) < 0.2
    assert smooth([]) == []


def test_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    code = """
import sys, matplotlib
from pathlib import Path
from mini_r1.report import write_report
def settings():  # to ask for the backend would import pyplot and choose one
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
write_report(Path(sys.argv[1]))
assert settings() == before and not {"matplotlib.pyplot", "torch"} & set(sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(make_run(tmp_path))]
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)


# --- page ----------------------------------------------------------------------------------------------------------


def test_headline_tells_before_and_after(page: Page) -> None:
    assert "pass@1 rose: 13.7 % (11.6–15.8) before, 64.2 % (62.1–66.3) after." in page.text
    assert "Thinking got longer: 51.3 tokens (48.8–53.8) before, 139.8 tokens (137.3–142.3) after." in page.text
    assert "The model tries more often: 2.21 (2.10–2.32) before, 5.43 (5.32–5.54) after." in page.text


def test_headline_holds_whichever_way_it_went(tmp_path: Path) -> None:
    def said(*results: dict[str, Any]) -> str:
        return headline(read_results(make_run(tmp_path, [], list(results)) / "evaluation.json"), [])

    worse = said(TRAINED, BASE)
    assert "pass@1 fell: 64.2 %" in worse and "Thinking got shorter: 139.8" in worse and "less often: 5.43" in worse
    near = make_result("near", 0.14, 52.0, 2.25, "")
    same = said(BASE, near)
    assert same.count("unchanged within the intervals") == 3 and not re.search("rose|fell|longer|shorter|often", same)


def test_intervals_that_touch_are_no_change() -> None:
    assert Interval(1, 0, 2).change_to(Interval(3, 2, 4)) == 0
    assert Interval(1, 0, 2).change_to(Interval(3, 2.001, 4)) == 1
    assert Interval(3, 2.001, 4).change_to(Interval(1, 0, 2)) == -1


@pytest.mark.parametrize(
    "row",
    [
        "pass@1 13.7 % 11.6–15.8 64.2 % 62.1–66.3 +50.5 points",
        "pass@4 33.7 % 31.6–35.8 84.2 % 82.1–86.3 +50.5 points",
        "solved by the greedy completion 16.7 % 14.6–18.8 67.2 % 65.1–69.3 +50.5 points",
        "completions in the format 95.0 % 94.0–96.0 95.0 % 94.0–96.0 +0.0 points within the intervals",
        "completion length 51.3 tokens 48.8–53.8 139.8 tokens 137.3–142.3 +88.5 tokens",
        "cut off at the token limit 1.3 % 0.3–2.3 1.3 % 0.3–2.3 +0.0 points within the intervals",
        "attempts per completion 2.21 2.10–2.32 5.43 5.32–5.54 +3.22",
        "easy 150 33.7 % 28.7–38.7 84.2 % 79.2–89.2 +50.5 points",
        "hard 50 3.7 % -1.3–8.7 54.2 % 49.2–59.2 +50.5 points",
        "4 200 3.7 % -0.3–7.7 54.2 % 50.2–58.2 +50.5 points",
        "correct uses every number once and reaches the target 13.7 % 64.2 %",
        "no answer no finished answer block 4.0 % 4.0 %",
    ],
)
def test_table_rows_equal_the_inputs(row: str, page: Page) -> None:
    assert row in page.text


def test_metric_without_a_value_is_left_out(page: Page) -> None:
    assert "equations in the thinking" not in page.text and "None" not in page.text and "nan" not in page.text


def test_rows_keep_the_order_of_the_file(page: Page) -> None:
    order = ["pass@1 13.7", "pass@2", "pass@4", "easy 150", "medium 200", "hard 50", "3 200", "4 200"]
    assert [page.text.index(row) for row in order] == sorted(page.text.index(row) for row in order)


def test_plots_are_embedded_light_and_dark(page: Page, run_dir: Path) -> None:
    light = [str(image["src"]) for image in page.tags("img")]
    dark = [str(source["srcset"]) for source in page.tags("source")]
    assert len(light) == len(dark) == 4
    for source, panel in zip(light, PANELS, strict=True):
        kind, _, data = source.partition("base64,")
        assert (
            kind == "data:image/png;" and base64.b64decode(data) == (run_dir / f"report/{panel.name}.png").read_bytes()
        )
    for source in dark:
        image = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))).convert("RGB")
        assert image.getpixel((0, 0)) == (0x16, 0x1B, 0x22)
    first, last = (points(make_log(), f"eval_{SOLVED}")[step] for step in (0, 200))
    assert f"held-out puzzles from {first:.1%} at step 0 to {last:.1%} at step 200" in str(page.tags("img")[0]["alt"])


def test_nothing_runs_and_nothing_is_fetched(page: Page) -> None:
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert str(attributes.get(name, "data:")).startswith("data:")
    policy = next(meta["content"] for meta in page.tags("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy) and "script-src" not in str(policy)


def test_completions_are_shown_as_written_and_escaped(page: Page, markup: str) -> None:
    assert ATTACK not in markup and markup.count(html.escape(ATTACK)) == 2
    shown = [f"<think>{result['samples'][i]['completion']}" for i in range(2) for result in (BASE, TRAINED)]
    assert page.pres[1:] == shown


def test_every_other_text_is_escaped_too(tmp_path: Path) -> None:
    attacks = [f"<script>alert({n})</script>" for n in range(9)]
    result: dict[str, Any] = json.loads(json.dumps(BASE))
    result |= {"model": attacks[0], "dataset": attacks[1]}
    result["samples"][0] |= {"reason": attacks[2], "difficulty": attacks[3]}
    result["settings"][attacks[4]] = attacks[5]
    result["metrics"][attacks[6]] = result["metrics"]["pass@1"]
    result["by_difficulty"][attacks[7]] = result["by_difficulty"]["easy"]
    page = report(make_run(tmp_path / ATTACK.replace("/", ""), results=[result], command=attacks[8]))
    assert not page.tags("script") and [attack for attack in attacks if attack not in page.text] == []


def test_odd_characters_do_not_stop_the_report(tmp_path: Path) -> None:
    odd = make_result("odd", 0.5, 1, 1, "half a pair \ud83d, a whole 😀, nul \0, </pre><b>")
    page = report(make_run(tmp_path, results=[odd]))
    assert "half a pair \\ud83d, a whole 😀" in page.text and "</pre><b>" in page.pres[1] and not page.tags("b")


def test_samples_stand_beside_the_same_puzzle(tmp_path: Path) -> None:
    base, trained = (json.loads(json.dumps(result)) for result in (BASE, TRAINED))
    trained["samples"].reverse()
    trained["samples"][1] |= {"nums": [3, 9, 4], "completion": "of the first puzzle"}  # the same numbers, reordered
    base["samples"][1]["target"] = 17  # another puzzle
    page = report(make_run(tmp_path, results=[base, trained]))
    assert page.pres[1:] == [f"<think>{BASE['samples'][0]['completion']}", "<think>of the first puzzle"]
    assert "9, 4, 3 → 39 easy" in page.text and "→ 16" not in page.text and "→ 17" not in page.text


def test_no_puzzles_in_common(tmp_path: Path) -> None:
    assert (
        "no completions of the same puzzles" in report(make_run(tmp_path, results=[BASE, BASE | {"samples": []}])).text
    )


def test_warns_of_evaluations_that_were_not_alike(page: Page, tmp_path: Path) -> None:
    assert "not measured alike" not in page.text
    other = TRAINED | {"settings": TRAINED["settings"] | {"temperature": 0.5}}
    warned = report(make_run(tmp_path, [], [BASE, other]))
    assert "not measured alike" in warned.text
    assert "temperature: 1.0 for the base, 0.5 for the trained model" in warned.text
    asked = [result | {"per_puzzle": {"nums": [[1, 2]], "target": [n]}} for n, result in enumerate((BASE, TRAINED))]
    results = read_results(make_run(tmp_path, [], asked) / "evaluation.json")
    assert unlike(results) == ["the puzzles are others, or in another order"]


def test_settings_of_the_run(page: Page) -> None:
    for value in ("command " + str(RUN["command"]), "2 CPU threads, no GPU", "5 min 12 s", "seed 42", "steps 200"):
        assert value in page.text
    assert "evaluated on 400 puzzles of generated:tiny" in page.text and "evaluation: temperature 1.0" in page.text


def test_without_an_evaluation(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "aha")
    page = report(folder)
    before, after = (100 * points(make_log(), f"eval_{SOLVED}")[step] for step in (0, 200))
    assert f"{before:.1f} % of the held-out puzzles were solved at step 0 and {after:.1f} % at step 200" in page.text
    assert page.pres[1:] == [f"python scripts/evaluate.py BASE TRAINED --out {folder}/evaluation.json"]
    assert len(page.tags("img")) == 4 and not page.tags("table") and "steps 200" in page.text


def test_nothing_logged_and_nothing_evaluated(tmp_path: Path) -> None:
    assert "has not been evaluated yet" in report(make_run(tmp_path, [])).text


def test_one_model(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, results=[TRAINED]))
    assert "runs/aha on 400 held-out puzzles: pass@1 64.2 % (62.1–66.3), completion length 139.8 tokens" in page.text
    assert not re.search(r"\bbase\b|before|within the intervals|points", page.text)
    assert len(page.pres[1:]) == 2


# --- files ---------------------------------------------------------------------------------------------------------


def test_again_gives_the_same_bytes_and_leaves_nothing_else(run_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run_dir / "report").iterdir()}
    assert sorted(before) == sorted([*PNGS, "index.html"])
    write_report(run_dir)
    assert {path.name: path.read_bytes() for path in (run_dir / "report").iterdir()} == before


def test_an_error_leaves_the_old_report(tmp_path: Path) -> None:
    write_report(make_run(tmp_path))
    old = (tmp_path / "report" / "index.html").read_bytes()
    (tmp_path / "evaluation.json").write_text("[{}]")
    with pytest.raises(ValueError, match="no 'model'"):
        write_report(tmp_path)
    assert (tmp_path / "report" / "index.html").read_bytes() == old


def test_script_prints_the_paths(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(make_run(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "report" / name) for name in [*PNGS, "index.html"]]
    assert done.stderr == ""


def without(result: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != key}


@pytest.mark.parametrize(
    "file, content, complaint, fix",
    [
        ("trainer_state.json", None, "no {path}", "checkpoint-N/"),
        ("trainer_state.json", '{"log_history": [', "{path} is not JSON", "checkpoint-N/"),
        ("trainer_state.json", "[]", '{path}: expected {{"log_history"', "checkpoint-N/"),
        ("trainer_state.json", '{"log_history": [{"loss": 1}]}', "{path}: expected", "checkpoint-N/"),
        ("evaluation.json", "{", "{path} is not JSON", "scripts/evaluate.py"),
        ("evaluation.json", "[]", "{path}: expected a list of one or two", "scripts/evaluate.py"),
        ("evaluation.json", json.dumps([BASE] * 3), "{path}: expected a list of one or two", "scripts/evaluate.py"),
        ("evaluation.json", json.dumps([BASE, without(TRAINED, "metrics")]), "result 1: no 'metrics'", "evaluate.py"),
        ("evaluation.json", '["tiny-base"]', "{path}, result 0: ", "scripts/evaluate.py"),
        ("evaluation.json", json.dumps([BASE | {"metrics": {"pass@1": 0.5}}]), "result 0: ", "scripts/evaluate.py"),
        ("run.json", "\xff", "{path} is not JSON", "correct or remove it"),
        ("run.json", "[]", "{path}: expected an object", "correct or remove it"),
    ],
)
def test_says_what_is_wrong_and_what_to_do(
    file: str, content: str | None, complaint: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path) / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content, encoding="latin-1")
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert complaint.format(path=path) in printed.err and fix in printed.err and str(path) in printed.err
    assert not (tmp_path / "report").exists()
