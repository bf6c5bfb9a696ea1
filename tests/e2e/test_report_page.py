"""The report's page in a real browser: it draws, fits a phone, follows the dark scheme, and nothing runs in it."""

import html
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageColor

from conftest import ROOT
from helpers.requirements import require_program
from mini_r1.results.report import DARK, write_report

# How a run is made of real files, and the parser of its page.
inputs = runpy.run_path(str(ROOT / "tests" / "results" / "test_report.py"))
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--allow-file-access-from-files"),  # to see the console; to look into a frame
]

Browse = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """A function that opens a page with further switches and returns what Chromium printed."""
    chromium = require_program("chromium")

    def open_page(page: Path, *switches: str) -> subprocess.CompletedProcess[str]:
        profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
        command = [chromium, *SWITCHES, profile, *switches, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return open_page


@pytest.fixture(scope="module")
def results(finished_run: Path) -> list[dict[str, Any]]:
    written = inputs["read_written"](finished_run)
    return [inputs["base_of"](written), inputs["trained_of"](written)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, finished_run: Path, results: list[dict[str, Any]]) -> Path:
    written = inputs["read_written"](finished_run)
    folder = inputs["make_run"](
        tmp_path_factory.mktemp("runs") / "aha", written, results=results, run=written["run.json"]
    )
    return Path(write_report(folder)[-1])


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def near(image: Image.Image, colour: str) -> float:
    """The share of pixels of (almost) this colour."""
    wanted = ImageColor.getrgb(colour)
    difference = ImageChops.difference(image.convert("RGB"), Image.new("RGB", image.size, wanted))
    counts: list[tuple[int, tuple[int, int, int]]] = difference.getcolors(1 << 24)  # type: ignore[assignment]
    return sum(count for count, channels in counts if max(channels) < 6) / (image.width * image.height)


def test_browser_reads_the_page_without_complaint(page: Path, browse: Browse, results: list[dict[str, Any]]) -> None:
    done = browse(page, "--dump-dom")
    assert console(done) == []
    dom = inputs["Page"](done.stdout)
    assert "(pass@1): 13.7 % (11.7–15.7) before, 64.2 % (62.2–66.2) after." in dom.text
    written = [result["samples"][i]["completion"] for i in range(16) for result in results]
    assert dom.pres[1:-2] == [f"<think>{completion}" for completion in written]
    assert len(dom.tags("img")) == 5 and not dom.tags("script")


def test_a_complaint_would_be_seen_and_no_script_could_run(page: Path, browse: Browse, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    escaped = html.escape(inputs["ATTACK"])
    broken.write_text(page.read_text(encoding="utf-8").replace(escaped, "<script>document.title = 'ran'</script>"))
    done = browse(broken, "--dump-dom")
    assert any("Content Security Policy" in line for line in console(done))
    assert "<title>ran" not in done.stdout


@pytest.mark.parametrize("scheme, background", [("light", "#f6f8fa"), ("dark", "#0d1117")])
def test_browser_draws_the_page_in_both_schemes(
    scheme: str, background: str, page: Path, browse: Browse, tmp_path: Path
) -> None:
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(page, f"--screenshot={shot}", "--window-size=1200,1100", *dark)
    image = Image.open(shot)
    assert image.size == (1200, 1100)
    assert 0.1 < near(image, background) < 0.9
    curve, other = ("#56B4E9", "#0072B2") if scheme == "dark" else ("#0072B2", "#56B4E9")
    assert near(image, curve) > 0.0005 > near(image, other)  # the plots follow the scheme
    assert (near(image, DARK.background) > 0.2) == (scheme == "dark")


@pytest.mark.parametrize("width", [360, 1200])
def test_page_is_not_wider_than_the_window(width: int, page: Path, browse: Browse, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"  # a window cannot be as narrow as a phone, a frame can
    frame.write_text(
        f"""<iframe width="{width}" height="800" style="border: 0" src="{page.as_uri()}"></iframe><script>
        onload = () => {{
            const page = document.querySelector("iframe").contentDocument
            const tables = [...page.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth)
            document.title = `${{page.documentElement.scrollWidth}} wide, ${{tables.length}} tables cut off`
        }}</script>"""
    )
    done = browse(frame, "--dump-dom")
    assert f"<title>{width} wide, 0 tables cut off</title>" in done.stdout


def test_a_missing_program_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINI_R1_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-program"):
        require_program("no-such-program")
    monkeypatch.setenv("MINI_R1_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="MINI_R1_REQUIRE_ALL=1 forbids to skip"):
        require_program("no-such-program")
