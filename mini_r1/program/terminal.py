"""A model's text on a terminal: shown while it is written, and never able to control the terminal.

What a policy writes is untrusted: an escape sequence in it could retitle, recolour or overwrite what stands on the
screen, and an invisible character could hide what was judged.
"""

import sys
import unicodedata

# Controls, invisible format characters (those that turn the direction of text among them), surrogates, separators.
_SHOWN_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNFINISHED = "\ufffd"  # what decoding gives for a character whose last bytes are still to come


def visible(text: str) -> str:
    r"""`text` with every character that a terminal would obey or hide written as an escape; newline and tab stay.

    >>> visible("red \x1b[31m, back\r, \u202egnorw")
    'red \\x1b[31m, back\\r, \\u202egnorw'
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _SHOWN_ESCAPED and char not in "\n\t"
        else char
        for char in text
    )


class GrowingText:
    """Prints a text as it grows: of each longer version of it only what is new."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, text: str) -> None:
        """Print what `text` adds, less a character at its end that may still be incomplete."""
        self._print(text.rstrip(_UNFINISHED))

    def finish(self, text: str) -> None:
        """Print the rest of the final text; all of it again should decoding have changed what was already shown."""
        if not text.startswith(self._shown):
            print(flush=True)
            self._shown = ""
        self._print(text)
        print(flush=True)

    def _print(self, text: str) -> None:
        if text.startswith(self._shown):
            sys.stdout.write(visible(text[len(self._shown) :]))
            sys.stdout.flush()
            self._shown = text
