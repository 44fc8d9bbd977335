"""Records and data end in a result or in one line, and nothing in them is ever run."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz import records
from tests.fuzz.judging import REFUSED, RESULT, judge

BY_NAME = {kind.name: kind for kind in records.KINDS}


class Runs:
    """What a pickle of calls a function when it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return Path.touch, (Path("hurt"),)  # type: ignore[return-value]


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def pickled() -> bytes:
    buffer = io.BytesIO()
    held = np.empty(1, object)
    held[0] = Runs()
    np.save(buffer, held, allow_pickle=True)
    return buffer.getvalue()


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
EVIL = "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }"
BOMB = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (40000000,), }", bytes(40_000_000))

ARRAYS = {
    "a pickle": pickled(),
    "a size beyond all": npy(HUGE, bytes(64)),
    "a call": npy(EVIL, bytes(64)),
    "no literal": npy("{'descr': '<f4', \\", bytes(64)),
    "open": npy("{'descr': '''<f4", bytes(64)),
    "deep": npy("(" * 9000, bytes(64)),
    "a wide type": npy("{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }"),
}
HOSTILE = {
    "archives": {
        **{name: npz(x=held, y=held) for name, held in ARRAYS.items()},
        "a bomb": npz(x=BOMB),
    },
    "scores": {
        **{name: npz(values=held, criterion=held, classes=held) for name, held in ARRAYS.items()},
        "a bomb": npz(values=BOMB, criterion=BOMB, classes=BOMB),
    },
    "annotations": {
        "a tag that calls": b"ynames: !!python/object/apply:os.system ['touch hurt']\nval: x\n",
        "aliases": b"ya: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n",
        "entities": b'v<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><a>&b;</a>',
        "a class beyond all": b"t1e300 0.5 0.5 0.1 0.1\n",
        "deep": b"c" + b"[" * 100_000,
    },
    "images": {
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n",
    },
    "plans": {
        "a number beyond all": b'{"format": 1, "removed": {"a": [1e999]}}',
        "a list for a name": b'{"format": 1, "removed": [["a", [0]]]}',
        "deep": b'{"format": 1, "removed": ' + b"[" * 100_000,
    },
    "options": {
        "a working folder": b"metric\0photos:load",
        "deep": b"set\0harmful=" + b"[" * 5000,
        "digits": b"set\0harmful=" + b"9" * 5000,
        "power": b"fail-if\0harmonic_drop > 9**9**9",
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, held in HOSTILE.items() for name in held]
)
def test_what_would_hurt_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    outcome = judge(BY_NAME[kind], HOSTILE[kind][name], tmp_path)
    assert outcome.ended == REFUSED, outcome


@pytest.mark.parametrize("kind", BY_NAME)
def test_good_inputs_have_results(kind: str, tmp_path: Path) -> None:
    ended = [judge(BY_NAME[kind], data, tmp_path) for data in BY_NAME[kind].seeds()]
    assert all(one.good for one in ended), ended
    assert ended[0].ended == RESULT


@pytest.mark.parametrize("letter", ["c", "r", "a", "e"])
def test_a_record_without_any_of_its_fields_is_one_line(letter: str, tmp_path: Path) -> None:
    seed = next(one for one in records.runs() if one[:1] == letter.encode())
    held = json.loads(seed[1:])
    for name in held:
        less = json.dumps({key: value for key, value in held.items() if key != name})
        outcome = judge(BY_NAME["runs"], letter.encode() + less.encode(), tmp_path)
        assert outcome.good, (name, outcome)


@pytest.mark.parametrize("value", [None, "x", -(10**30), 10**30, [1], {"a": 1}])
def test_a_journal_with_any_of_its_fields_changed_is_one_line(value: Any, tmp_path: Path) -> None:
    """Those of the searches beside it as well; None is a field that is missing."""
    seed = next(one for one in records.runs() if one[:1] == b"j")
    *before, last = seed[1:].splitlines()
    assert json.loads(last)["apart"]
    for name, place in ((n, p) for p in ("", "apart") for n in held_at(json.loads(last), p)):
        line = json.loads(last)
        held_at(line, place)[name] = value
        if value is None:
            del held_at(line, place)[name]
        data = b"\n".join((b"j" + before[0], *before[1:], json.dumps(line).encode(), b""))
        outcome = judge(BY_NAME["runs"], data, tmp_path)
        assert outcome.good, (place, name, outcome)


def held_at(line: dict[str, Any], place: str) -> dict[str, Any]:
    return line[place][0] if place else line
