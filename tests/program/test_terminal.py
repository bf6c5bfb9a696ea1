"""A model's text on a terminal: harmless, and exactly what was judged."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_r1.program.terminal import GrowingText, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("55 + 36\n\t= 91, ×, 数, 😀", "55 + 36\n\t= 91, ×, 数, 😀"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("right\rwrong\b\x7f", "right\\rwrong\\x08\\x7f"),
        ("\x9b31m \x85", "\\x9b31m \\x85"),
        ("1 \u202e+ 2\u2066 \u200b\ufeff", "1 \\u202e+ 2\\u2066 \\u200b\\ufeff"),
        ("\0 \ud800 \u2028\u2029 \U000e0041", "\\x00 \\ud800 \\u2028\\u2029 \\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


any_text = st.text(st.characters(codec=None, exclude_categories=()))


@given(any_text)
def test_nothing_else_reaches_the_terminal(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(char) for char in shown.replace("\n", "").replace("\t", "")} & {"Cc", "Cf", "Cs"}
    shown.encode()


@given(st.lists(any_text, max_size=8))
def test_the_pieces_add_up_to_the_text(pieces: list[str]) -> None:
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout.write", written.append, raising=True)
        growing, text = GrowingText(), ""
        for piece in pieces:
            text += piece
            growing.show(text)
        growing.finish(text)
    assert "".join(written) == visible(text) + "\n"


def test_a_character_is_held_back_until_all_its_bytes_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    growing = GrowingText()
    growing.show("a\ufffd")
    assert capsys.readouterr().out == "a"
    growing.show("aé")
    growing.finish("aé\ufffd")  # a byte that never became a character is shown at the end
    assert capsys.readouterr().out == "é\ufffd\n"


def test_text_that_decoding_has_changed_is_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    growing = GrowingText()
    growing.show("1 + 2 .")
    growing.show("1 + 2. So")
    growing.finish("1 + 2. So")
    assert capsys.readouterr().out == "1 + 2 .\n1 + 2. So\n"
