"""Standard output and error that never cost a result: they may go away, or know few characters."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

PLAIN = {
    **dict.fromkeys("\u2212\u2013\u2014\u2500\u2501\u2550\u2574\u2576\u2578\u257a", "-"),
    **dict.fromkeys("\u2502\u2503\u2551", "|"),
    **dict.fromkeys("\u250c\u2510\u2514\u2518\u251c\u2524\u252c\u2534\u253c\u2565\u256a", "+"),
    **dict.fromkeys("\u2018\u2019\u201c\u201d", "'"),
    **{"\u00d7": "x", "\u2026": "...", "\u2022": "*", "\u2192": "->", "\u00b1": "+-"},
}
"""What stands for a character that a terminal does not know; `?` stands for others."""

ERRORS = "onnxprune.plain"
"""The name of what Python's codecs ask about such characters."""

CLOSED = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)
"""The reader has gone: it has what it wanted."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in text), error.end


codecs.register_error(ERRORS, _plain)


class _Lasting(io.RawIOBase):
    """The bytes of a stream that may go away: what it cannot take is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: Exception | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.stream.isatty()
        return False

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                self.stream.buffer.write(data)
                self.stream.buffer.flush()
            except (OSError, ValueError) as error:
                self.lost = error
                self._forget()
        return len(data)

    def _forget(self) -> None:
        """Let what is left in the stream's own buffer go nowhere: Python writes it when it ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@dataclass(frozen=True)
class Streams:
    """What became of the streams of a command."""

    out: _Lasting
    err: _Lasting

    @property
    def lost(self) -> str:
        """Why results could not be printed; empty where they were, or nobody reads them."""
        error = self.out.lost
        if error is None or getattr(error, "errno", None) in CLOSED:
            return ""
        return str(getattr(error, "strerror", None) or error)


@contextlib.contextmanager
def lasting() -> Iterator[Streams]:
    """Replace the standard streams, until the block ends, by ones that nothing stops."""
    _open_closed()
    before = sys.stdout, sys.stderr
    (out, sys.stdout), (err, sys.stderr) = map(_text, before)
    texts = sys.stdout, sys.stderr
    try:
        yield Streams(out, err)
    finally:
        sys.stdout, sys.stderr = before
        for text in texts:
            with contextlib.suppress(OSError, ValueError):
                text.flush()


def _text(stream: TextIO) -> tuple[_Lasting, TextIO]:
    raw = _Lasting(stream)
    if not hasattr(stream, "buffer"):  # a notebook's own stream
        return raw, stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    buffer = io.BufferedWriter(raw)
    return raw, io.TextIOWrapper(buffer, stream.encoding, ERRORS, line_buffering=True)


def _open_closed() -> None:
    """Open what is closed of the three streams: else the next file gets its text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
            if number:
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))
