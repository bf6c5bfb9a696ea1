"""The commands that the documents give to a reader, taken from their text: command blocks, inline code, docstrings."""

import ast
import json
import re
from collections.abc import Iterator

from conftest import ROOT

# What a reader types begins with one of these, or with a variable for one of them.
PROGRAMS = (
    "accelerate bash cat cd for git hf make pip python python3 sbatch squeue ssh tail tensorboard torchrun uv vllm"
)
_BEGIN = rf"(?:[A-Z][A-Z0-9_]*=\S* )*(?:{'|'.join(PROGRAMS.split())}|\.) "
_COMMAND = re.compile(_BEGIN)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_LABELLED = re.compile(rf"^(?:\S[^`]*?:)?\s+({_BEGIN}.*)$|^({_BEGIN}.*)$")

MARKDOWN = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "mini_r1/README.md", "slurm/README.md"]
MARKDOWN += ["receipes/KEYS.md", "receipes/TROUBLESHOOTING.md", "benchmarks/SPEEDRUN.md"]
MARKDOWN += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks" / "results").glob("*.md"))
MARKDOWN += ["assets/tiny-countdown-base/README.md"]
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "receipes").glob("*.yaml"))
SOURCES = [path for folder in ("scripts", "benchmarks", "slurm") for path in (ROOT / folder).glob("*.py")]
PROGRAM_FILES = sorted(str(path.relative_to(ROOT)) for path in SOURCES)


def commands() -> dict[str, list[str]]:
    """Every documented command, in one line, with the documents that have it."""
    found: dict[str, list[str]] = {}
    for document, text in documented():
        found.setdefault(text, []).append(document)
    return found


def documented() -> Iterator[tuple[str, str]]:
    """Each document and command, in the order of the text."""
    for name in MARKDOWN:
        yield from ((name, text) for text in in_markdown((ROOT / name).read_text(encoding="utf-8")))
    for name in HEADERS:
        yield from ((name, text) for text in in_header((ROOT / name).read_text(encoding="utf-8")))
    for name in PROGRAM_FILES:
        yield from ((name, text) for text in in_docstring((ROOT / name).read_text(encoding="utf-8")))


def in_markdown(text: str) -> Iterator[str]:
    """The lines of blocks marked ```bash, and inline code that begins as a command does."""
    for _, _, block in (match.groups() for match in _FENCE.finditer(text) if match[2] == "bash"):
        yield from lines_of(block)
    yield from filter(_COMMAND.match, inline_code(_FENCE.sub("", text)))


def blocks(text: str) -> list[str]:
    """The fenced blocks of a page, with their fences."""
    return [match[0] for match in _FENCE.finditer(text)]


def inline_code(text: str) -> list[str]:
    """The inline code of a text without blocks, each in one line."""
    return [" ".join(code.split()) for code in _INLINE.findall(text)]


def unwrapped(text: str) -> list[str]:
    """The parts of a page, one line each: headings, paragraphs, points, rows of tables, and ``` for a block."""
    joined_lines = re.sub(r"(?<!\n)\n(?![\n|]|\* )\s*", " ", _FENCE.sub("```", text))
    return [line.strip() for line in joined_lines.split("\n") if line.strip()]


def anchor(title: str) -> str:
    """The anchor of a title, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def unmarked_blocks(text: str) -> list[str]:
    """The first lines of blocks that don't say what they are (```bash, ```text ...)."""
    return [match[3].splitlines()[0] for match in _FENCE.finditer(text) if not match[2]]


def in_header(text: str) -> Iterator[str]:
    """Commands in the comment at the top of a YAML file."""
    comment = re.match(r"(?:#.*\n)*", text)
    assert comment
    lines = comment[0].replace("\n#", "\n").removeprefix("#")
    yield from in_prose(lines)


def in_docstring(source: str) -> Iterator[str]:
    """Commands in the docstring of a program."""
    yield from in_prose(ast.get_docstring(ast.parse(source), clean=False) or "")


def in_prose(text: str) -> Iterator[str]:
    """Lines that are a command, after a label with a colon or none; and inline code."""
    for line in joined(text).splitlines():
        if (match := _LABELLED.match(line)) and re.search(r"/| -", line):  # no sentence that begins as one does
            yield one_line(match[1] or match[2])
    yield from filter(_COMMAND.match, inline_code(text))


def lines_of(block: str) -> Iterator[str]:
    """The commands of a block: continued lines joined, comments left out."""
    for line in joined(block).splitlines():
        if text := one_line(line):
            yield text


def joined(text: str) -> str:
    """Continued lines as one."""
    return re.sub(r"\\\n\s*", " ", text)


def one_line(text: str) -> str:
    """A command without its comment (after # or in a column of its own), with single spaces."""
    return " ".join(re.sub(r"(^|\s)#.*|(?<=\S)\s{3,}\S.*", "", text).split())


def install_cell() -> str:
    """The source of the notebook's cell that installs."""
    (notebook,) = (ROOT / "notebooks").glob("*.ipynb")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (source,) = [cell["source"] for cell in cells if "install" in cell["metadata"].get("tags", [])]
    return "".join(source)
