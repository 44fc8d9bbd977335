"""What exporters print and warn about, kept off the screen and in the log."""

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from onnxprune.files import temporary

logger = logging.getLogger(__name__)

STDOUT = 1
"""The file descriptor that compiled code prints to."""
MOST = 200
"""Lines of what compiled code printed that the log gets."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn what exporters print and warn about into DEBUG lines of the log."""
    printed = io.StringIO()
    caught: list[warnings.WarningMessage] = []
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            _compiled_into(printed),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        for warning in caught:
            logger.debug("%s: %s", warning.category.__name__, warning.message)
        for text in printed.getvalue().splitlines():
            logger.debug("%s", text)


@contextlib.contextmanager
def _compiled_into(printed: io.StringIO) -> Iterator[None]:
    """Take what compiled code prints, such as the whole graph by torch where an export fails."""
    _flush()
    try:
        before = os.dup(STDOUT)
    except OSError:  # there is no stdout
        yield
        return
    with temporary() as folder:
        path = folder / "printed.txt"
        with path.open("wb") as file:
            os.dup2(file.fileno(), STDOUT)
            try:
                yield
            finally:
                _flush()
                os.dup2(before, STDOUT)
                os.close(before)
        with path.open(encoding="utf-8", errors="replace") as lines:
            printed.writelines(line for _, line in zip(range(MOST), lines, strict=False))


def _flush() -> None:
    """Write what Python and C still hold back for stdout to where it was meant to go."""
    with contextlib.suppress(OSError, ValueError):
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # Windows names no C library so
        ctypes.CDLL(None).fflush(None)
