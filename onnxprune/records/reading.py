"""Reading records: whatever a file holds, it becomes JSON of its schema or one line that says why.

A record may have been edited by hand, cut off, or be another file altogether. It is read whole, as
UTF-8, if it is a file of a reasonable size; numbers are finite, no name is twice in an object, and
each value is of the type and in the range that its schema gives. What a schema does not name stays
as it is, so that a record of a later version can be read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from onnxprune.errors import OnnxPruneError

Kind = Literal[
    "config", "step", "state", "report", "about", "evidence", "latency", "deployed", "coco"
]
"""The records, by the name of their schema; a journal holds a step, and a state, in each line."""
Failed = Callable[[str], OnnxPruneError]
"""Makes the error of a line that says what is wrong."""

LARGEST = 1 << 27
"""Bytes of a record, and of a line of a journal."""

SAID = re.compile(r"(?P<what>.*?)(?: - at `(?P<place>.*)`)?")
WORDS = {
    r"Expected `(?P<one>[^`]*)`(?P<range>.*), got `(?P<found>[^`]*)`": (
        " is {found}; expected {one}{range}"
    ),
    r"Expected `(?P<one>[^`]*)`(?P<range>.*)": ": expected {one}{range}",
    r"Object missing required field `(?P<name>.*)`": " has no '{name}'",
    r"Object contains unknown field `(?P<name>.*)`": " has a '{name}', which nothing reads",
}
"""What msgspec says, and how we say it."""
NAMED = {
    **{"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"},
    **{"array": "a list", "object": "an object", "null": "null"},
}
"""JSON's types, as people say them."""


def read_bytes(path: Path, failed: Failed, largest: int = LARGEST) -> bytes:
    """Return what a file holds. A pipe is not waited for, and what is too large is not read.

    Raises: what `failed` makes, where it cannot be read, is no file or too large.
    Units: largest, bytes.
    """
    with _readable(path, failed):
        size = path.stat().st_size
        if size > largest:
            raise failed(f"{path}: has {size:,} bytes; expected {largest:,} at most")
        return path.read_bytes()


def file_digest(path: Path, failed: Failed) -> str:
    """Return the SHA-256 of a file of any size, of which little is held at a time.

    Raises: what `failed` makes, where it cannot be read or is no file.
    """
    with _readable(path, failed), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Path, failed: Failed) -> Iterator[None]:
    """Say in a line why a file cannot be read; a pipe is not waited for."""
    try:
        if path.exists() and not path.is_file():
            raise failed(f"{path}: is no file")
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise failed(f"{path}: cannot be read ({why})") from error


def read_text(path: Path, failed: Failed, largest: int = LARGEST) -> str:
    """Return what a file holds as text.

    Raises: as `read_bytes`, and where it is not UTF-8.
    Units: largest, bytes.
    """
    return as_text(read_bytes(path, failed, largest), str(path), failed)


def as_text(raw: bytes, where: str, failed: Failed) -> str:
    """Return what bytes hold as text; `where` begins the line of an error.

    Raises: what `failed` makes of a line where they are not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise failed(f"{where}: cannot be read (no text in UTF-8: {error})") from error


def read_large(path: Path, kind: Kind, failed: Failed) -> Any:
    """Return what a large JSON file holds, as an object of its schema; nothing else is kept of it.

    Raises: as `read_record`.
    """
    import msgspec

    from onnxprune.records.known import SCHEMAS

    content = read_bytes(path, failed, largest=8 * LARGEST)
    try:
        return msgspec.json.decode(content, type=SCHEMAS[kind])
    except msgspec.ValidationError as error:
        raise failed(f"{path}: {_said(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise failed(f"{path}: cannot be read as JSON ({error})") from error


def read_record(path: Path, kind: Kind, failed: Failed) -> dict[str, Any]:
    """Return what a record holds.

    Raises: what `failed` makes of a line that names the file, the field and what is expected.
    """
    return parse_record(read_text(path, failed), kind, str(path), failed)


def parse_record(text: str, kind: Kind, where: str, failed: Failed) -> dict[str, Any]:
    """Return what the text of a record holds; `where` begins the line of an error.

    Raises: as `read_record`.
    """
    import msgspec

    from onnxprune.records.known import SCHEMAS

    try:
        content = parse_json(text)
    except ValueError as error:
        raise failed(f"{where}: cannot be read as JSON ({error})") from error
    try:
        msgspec.convert(content, SCHEMAS[kind])
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:
        raise failed(f"{where}: {_said(str(error))}") from error
    return dict(content)


def parse_json(text: str) -> Any:
    """Return what a JSON text holds: finite numbers, and objects in which no name is twice.

    Raises: ValueError for anything else, however deep it is nested.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no name may be twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' is there twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


def _said(message: str) -> str:
    """A message of msgspec's as ours: the field first, then what it is, then what is expected."""
    found = SAID.fullmatch(message)
    what, place = (found["what"], found["place"]) if found else (message, None)
    field = (place or "$").removeprefix("$").removeprefix(".")
    for pattern, words in WORDS.items():
        if match := re.fullmatch(pattern, what):
            said = {name: _named(text or "") for name, text in match.groupdict().items()}
            return f"{field}{words.format_map(said)}".lstrip(": ")
    return f"{field}: {what}" if field else what


def _named(kinds: str) -> str:
    return " or ".join(NAMED.get(kind, kind) for kind in kinds.split(" | "))
