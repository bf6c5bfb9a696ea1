"""README.zh-CN.md is README.md in Chinese: the same parts in the same order, with the same code, links and numbers."""

import re
from collections.abc import Callable
from itertools import zip_longest

import pytest

from conftest import ROOT
from helpers.documents import anchor, blocks, inline_code, unwrapped

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))


def differences(find: Callable[[str], object]) -> list[str]:
    """The lines of the Chinese page in which something else is found than in the English ones."""
    lines = zip_longest(unwrapped(ENGLISH), unwrapped(CHINESE), fillvalue="")
    found = [(chinese[:40], find(chinese), find(english)) for english, chinese in lines]
    return [f"{line!r} has {theirs}, not {ours}" for line, theirs, ours in found if theirs != ours]


def kind(line: str) -> list[str]:
    """What a line begins with as a heading of its level, a point, a row, an image, a comment or a block."""
    return re.findall(r"^(?:#+ |\* |\||!\[|<!--|```|(?=.))", line)


def links(text: str) -> list[str]:
    """The targets of links and images, those within the page aside."""
    return re.findall(r"\]\(([^#\s]\S*?)\)", text)


def numbers(text: str) -> list[str]:
    """The numbers that a reader sees outside of code."""
    return re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"\]\(\S+?\)|`[^`]*`", "", text))


def sections_linked(text: str) -> list[int | str]:
    """Where the links within a page lead: the places of the headings, or an anchor that no heading has."""
    titles = [anchor(line.lstrip("#")) for line in unwrapped(text) if line.startswith("#")]
    return [titles.index(name) if name in titles else name for name in re.findall(r"\]\(#(\S+?)\)", text)]


def test_the_parts_are_the_same_in_the_same_order() -> None:
    assert differences(kind)[:1] == []


def test_the_blocks_are_the_same_to_the_byte() -> None:
    theirs, ours = ("\n".join(blocks(text)).split("\n") for text in (CHINESE, ENGLISH))
    assert [(line, other) for line, other in zip_longest(theirs, ours) if line != other][:1] == []


@pytest.mark.parametrize("find", [inline_code, links, numbers])
def test_each_part_has_the_same(find: Callable[[str], list[str]]) -> None:
    """Each cell of a row in the same order; a sentence may have another order in Chinese."""

    def by_cell(line: str) -> object:
        return [find(cell) for cell in line.split("|")] if line.startswith("|") else sorted(find(line))

    assert differences(by_cell) == []


def test_links_within_the_page_lead_to_the_same_sections() -> None:
    assert sections_linked(CHINESE) == sections_linked(ENGLISH)


def test_each_page_links_to_the_other_in_its_first_line() -> None:
    first = ENGLISH.splitlines()[0]
    assert first == CHINESE.splitlines()[0]
    assert links(first) == ["README.md", "README.zh-CN.md"]
