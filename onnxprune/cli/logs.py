"""`--log-json`: all that goes to stderr, and what happens inside, as one JSON object a line.

Each has `time` (UTC), `elapsed` (s) and `event`:

    start     command and versions
    log       level and text of a line that people would see
    progress  what is being done, how much of it is done, and the total
    phase     the phase that ended, and its seconds
    step      an accepted step: its figures, accuracy, evaluations and seconds so far
    end       the exit code
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from onnxprune.progress import heard_by, told_to

FLAG = "--log-json"
OFTEN = 0.5
"""Seconds between two lines on the same progress."""
LEVELS = ("error", "warning")


class JsonLines(io.TextIOBase):
    """A stream that writes each line as the `text` of a JSON object."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._started, self._heard = stream, time.monotonic(), ("", 0.0)
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """JSON is written in ASCII."""
        return "utf-8"

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that end in a text; what is left waits for its end."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            level = next((one for one in LEVELS if line.startswith(f"{one}: ")), "info")
            self.event("log", {"level": level, "text": line.removeprefix(f"{level}: ")})
        return len(text)

    def flush(self) -> None:
        """Write what was written."""
        self._stream.flush()

    def event(self, event: str, known: dict[str, Any]) -> None:
        """Write what is known of an event."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        elapsed = round(time.monotonic() - self._started, 3)
        line = {"time": now, "elapsed": elapsed, "event": event, **known}
        self._stream.write(json.dumps(line, default=str) + "\n")
        self._stream.flush()

    def hear(self, what: str, done: int, total: int) -> None:
        """Write how much is done, but not too often."""
        now = time.monotonic()
        last, since = self._heard
        if what != last or done == total or now - since >= OFTEN:
            self._heard = (what, now)
            self.event("progress", {"what": what, "done": done, "total": total})


@contextmanager
def logged(arguments: Sequence[str]) -> Iterator[None]:
    """Turn stderr into JSON lines until the block ends, where that is asked for."""
    if FLAG not in arguments:
        yield
        return
    from onnxprune.search import versions

    plain, lines = sys.stderr, JsonLines(sys.stderr)
    sys.stderr = lines
    lines.event("start", {"command": ["onnxprune", *arguments], "versions": dict(versions())})
    code: Any = None
    try:
        with heard_by(lines.hear), told_to(lines.event):
            yield
    except SystemExit as error:
        code = error.code
        raise
    finally:
        lines.write("\n")
        lines.event("end", {"exit_code": 0 if code is None else code})
        sys.stderr = plain
