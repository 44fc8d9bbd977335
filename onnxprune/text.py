"""Names of models, files and classes, made harmless where people read them.

A terminal, a browser, an editor obeys some characters instead of showing them: it clears the
screen, fills the clipboard, starts a line, turns the order of letters around. Whatever prints a
name (terminal, page, SVG, Markdown, errors) shows it through `harmless` first; markup of a page is
escaped there as well, by what writes the page.
"""

from __future__ import annotations

import ast
import codecs
import re
from typing import Any

LONGEST_LITERAL = 1 << 20
"""Characters of a literal; a longer one is cut, and is none then."""

NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
NOT_PLAIN_IN_LINES = re.compile(r"[^\x20-\x7e\n]")
"""Characters that are looked at one by one: all but those that ASCII prints."""


def harmless(text: str, most: int | None = None, *, lines: bool = False) -> str:
    r"""Return a text in which every character is shown, none is obeyed.

    White space becomes a space, as the end of a line does unless `lines` stay; control characters,
    those that turn the direction of letters, and bytes of a file's name that are not UTF-8 are
    written as Python escapes them. A text of more than `most` characters loses its middle.

    >>> harmless("a\x1b[2J\n\u202eb\udcff"), harmless("caf\xe9")
    ('a\\x1b[2J \\u202eb\\xff', 'café')
    >>> harmless("0123456789", most=7)
    '012...9'
    """
    text = (NOT_PLAIN_IN_LINES if lines else NOT_PLAIN).sub(_shown, text)
    if most is None or len(text) <= most:
        return text
    end = max(most - 3, 0) // 3
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


def read_literal(text: str) -> Any:
    """Return what a literal of Python stands for: lists, dictionaries, texts and numbers.

    Raises: ValueError for anything else; nothing is called, however long or deep it is.

    >>> read_literal("[640, 640]")
    [640, 640]
    """
    try:
        return ast.literal_eval(text[:LONGEST_LITERAL])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{harmless(text, 60)}: is no literal of Python") from error


def _shown(found: re.Match[str]) -> str:
    letter = found[0]
    if letter.isprintable():
        return letter
    if letter.isspace():
        return " "
    if "\udc80" <= letter <= "\udcff":  # how Python holds such a byte of a file's name
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return codecs.encode(letter, "unicode_escape").decode()
