"""Cases of a campaign: a command is stopped or fails somewhere; nothing may be lost or hurt by it.

What must hold, whatever happened:

* under the name of each output stands what was there before, or all that the command writes;
* an error is one line, and exit code 1; success means that all outputs are right;
* a signal that asks to end is answered in one line, with a whole model where a step was reached;
* the same command, given again, ends in the same plan and the same bytes as one left alone, and
  nothing lies about that was written on the way.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

import onnxprune
from tests.reliability.attempts import ASKING, Ended, attempt
from tests.reliability.calls import TEMPORARY, Calls, acts, disordered
from tests.reliability.subject import OLD, Subject, lay_out
from tests.support.runs import journal

LEFT, UNSWEPT = ".onnxprune-", "left behind"
"""How names of unfinished files begin; what is said of files that nobody needs."""


@dataclass(frozen=True)
class Case:
    """What is done to a subject: nothing else is needed to repeat it."""

    subject: Subject
    kind: str
    number: int
    act: str | int = ""
    on: bool = False

    @property
    def key(self) -> str:
        """How a record names it."""
        on = ", on" if self.on else ""
        return f"{self.subject.name} | {self.kind} | {self.number} | {self.act}{on}"


class Bench:
    """A folder where cases of a subject are tried, and what the command does if left alone."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        self.folder, self.subject = folder, subject

    @cached_property
    def base(self) -> Path:
        """What the command reads, and what stands under the names of its outputs."""
        base = lay_out(self.folder / "base")
        (base / TEMPORARY).mkdir()
        for words in self.subject.first:
            done = attempt(base, words)
            assert done.code == 0, done.err
        for name in self.subject.outputs if self.subject.replaces else ():
            (base / name).parent.mkdir(exist_ok=True)
            (base / name).write_bytes(OLD)
        if self.subject.split:  # an earlier model of two files
            name = self.subject.outputs[0]
            plan = base / "first.json"
            plan.write_text('{"format": 1, "removed": {"one": [1]}}')
            (base / name).unlink()
            done = attempt(base, ("apply", "model.onnx", "first.json", "-o", name), split=True)
            assert done.code == 0, done.err
        return base

    @cached_property
    def alone(self) -> tuple[Ended, Path]:
        """How the command ends if nothing happens, and where."""
        place = self.copy("alone")
        ended = self.run(place)
        assert ended.code == 0, ended.err
        return ended, place

    def copy(self, name: str) -> Path:
        """Lay the command's folder out anew."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.base, place)
        return place

    def run(
        self,
        place: Path,
        calls: Calls | None = None,
        after: float | None = None,
        by: int = signal.SIGKILL,
    ) -> Ended:
        """Try the command once."""
        given = self.subject
        return attempt(
            place, given.arguments, calls=calls, kill_after=after, by=by, split=given.split
        )

    def found(self, place: Path, name: str) -> bytes:
        """What stands under a name: the bytes, of a model of two files those of both."""
        path = place / name
        if not path.exists():
            return b"nothing"
        raw = path.read_bytes()
        if self.subject.split and path.suffix == ".onnx":
            try:
                return raw + onnx.load(str(path)).SerializeToString(deterministic=True)
            except Exception as error:
                return f"a model without its weights: {error}".encode()
        return raw

    def hurt(self, place: Path) -> Iterator[str]:
        """Say which outputs are neither as before nor all of the new."""
        _, alone = self.alone
        for name in self.subject.outputs:
            found, old = self.found(place, name), self.found(self.base, name)
            if found == old:
                continue
            if name in self.subject.exact:
                if found != self.found(alone, name):
                    yield f"{name}: neither old nor new"
            elif not _whole(place / name):
                yield f"{name}: not whole"

    def wrong(self, place: Path) -> Iterator[str]:
        """Say what is not as in a run left alone."""
        _, alone = self.alone
        for name in self.subject.exact:
            if self.found(place, name) != self.found(alone, name):
                yield f"{name}: not as in a run left alone"
        for name in self.subject.outputs:
            if not _whole(place / name):
                yield f"{name}: not whole"
        if self.subject.resumes and _steps(place) != _steps(alone):
            yield "journal: not as in a run left alone"
        yield from _unswept(place)
        data = {one.name for one in place.rglob("*.data")}
        if data != {one.name for one in alone.rglob("*.data")}:
            yield f"{', '.join(sorted(data))}: {UNSWEPT}"


def _steps(place: Path) -> list[object]:
    """The steps of a journal; a resumed run may have evaluated more nets."""
    return [
        {key: value for key, value in line.items() if key != "evaluations"}
        for line in journal(place / "run")
    ]


def _unswept(place: Path) -> Iterator[str]:
    """Say which unfinished files lie about."""
    for one in place.rglob(f"{LEFT}*"):
        if one.relative_to(place).parts[0] != TEMPORARY:
            yield f"{one}: {UNSWEPT}"


def _whole(path: Path) -> bool:
    """Say whether a file is all of what its kind must be."""
    raw = path.read_bytes() if path.exists() else b""
    if path.suffix == ".onnx":
        return raw not in (OLD, b"") and bool(onnx.load(str(path)).graph.node)
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return bool(json.loads(raw))
        return False
    if path.suffix in (".pt", ".npz"):
        return zipfile.is_zipfile(path)
    ends = {".svg": b"</svg>", ".md": b"", ".html": b"</html>", ".png": b"IEND\xaeB`\x82"}
    return raw != OLD and raw.rstrip().endswith(ends[path.suffix])


def kills(bench: Bench, seed: int, uniform: int) -> Iterator[Case]:
    """Yield kills at moments drawn uniformly, and before, in and after every writing call."""
    ended, _ = bench.alone
    for number in range(uniform):
        yield Case(bench.subject, "uniform", number, seed)
    for number, (name, *_) in enumerate(ended.calls):
        for act in acts(name, kills=True):
            yield Case(bench.subject, "aimed", number, act)


def faults(bench: Bench) -> Iterator[Case]:
    """Yield every writing call with every answer it may give, once, and from there on."""
    ended, _ = bench.alone
    for number, (name, *_) in enumerate(ended.calls):
        for act in acts(name, kills=False):
            yield Case(bench.subject, "fault", number, act)
            if isinstance(act, int) and name in ("write", "fsync", "open", "replace"):
                yield Case(bench.subject, "fault", number, act, on=True)


def signals(bench: Bench, seed: int, uniform: int) -> Iterator[Case]:
    """Yield signals that ask to end, at moments drawn uniformly."""
    for number in range(uniform):
        for one in ASKING:
            yield Case(bench.subject, one.name, number, seed)


def orders(bench: Bench) -> Iterator[Case]:
    """Yield the command left alone, whose writing is looked at."""
    yield Case(bench.subject, "order", 0)


def run(case: Case, bench: Bench) -> tuple[int, list[str]]:
    """Try a case; return how often the command was killed, and what went wrong."""
    if case.kind == "order":
        return 0, disordered(bench.alone[0].calls)
    if case.kind == "fault":
        return 0, _failed(case, bench)
    return (_killed if case.kind in ("uniform", "aimed") else _asked)(case, bench)


def _killed(case: Case, bench: Bench) -> tuple[int, list[str]]:
    """Kill the command, one to three times, then let it end."""
    place, wrong, count = bench.copy("case"), list[str](), 0
    chance = random.Random(f"{case.key}")
    seconds = bench.alone[0].seconds
    for turn in range(chance.randint(1, 3)):
        if case.kind == "aimed" and turn == 0:
            ended = bench.run(place, Calls(place, case.number, case.act))
        else:
            ended = bench.run(place, after=chance.uniform(0, seconds))
        if ended.code == 0:
            break
        if ended.code != -9:
            wrong.append(f"attempt {turn}: {ended.code}, {ended.err[-300:]}")
        count += 1
        wrong += bench.hurt(place)
    ended = bench.run(place)
    if ended.code:
        wrong.append(f"resumed: {ended.code}, {ended.err[-300:]}")
    return count, wrong + list(bench.wrong(place))


def _failed(case: Case, bench: Bench) -> list[str]:
    """Let a call fail, then let the command run again."""
    place = bench.copy("case")
    ended = bench.run(place, Calls(place, case.number, case.act, on=case.on))
    wrong = list(bench.hurt(place))
    last = ended.err.strip().splitlines()[-1:] or [""]
    if ended.code == 0:
        wrong += [one for one in bench.wrong(place) if not one.endswith(UNSWEPT)]
    elif ended.code != 1 or not last[0].startswith("error: ") or "internal error" in last[0]:
        wrong.append(f"ended with {ended.code}: {ended.err[-600:]}")
    again = bench.run(place)
    if again.code:
        wrong.append(f"again: {again.code}, {again.err[-300:]}")
    return wrong + list(bench.wrong(place))


def _asked(case: Case, bench: Bench) -> tuple[int, list[str]]:
    """Ask the command to end, then give it again."""
    place, by = bench.copy("case"), signal.Signals[case.kind]
    moment = random.Random(case.key).uniform(0, bench.alone[0].seconds)
    ended = bench.run(place, after=moment, by=by)
    if ended.code == 0:
        return 0, list(bench.wrong(place))
    wrong, lines = list(_unswept(place)), ended.err.strip().splitlines()
    if ended.code != 128 + by or [one for one in lines if "rror:" in one] != lines[-1:]:
        wrong.append(f"asked at {moment:.3f} s: {ended.code}, {ended.err[-600:]}")
    if "was written before" in ended.err:
        wrong += bench.wrong(place)
    elif bench.subject.resumes:
        wrong += _reached(bench, place, lines[-1] if lines else "")
    else:
        wrong += bench.hurt(place)
    ended = bench.run(place)
    if ended.code:
        wrong.append(f"again: {ended.code}, {ended.err[-300:]}")
    return 1, wrong + list(bench.wrong(place))


def _reached(bench: Bench, place: Path, said: str) -> Iterator[str]:
    """Say what is wrong with the best model so far, and what is said of it."""
    begun = (place / "run" / "config.json").exists()
    if begun and "continue with: onnxprune prune " not in said:
        yield f"does not say how to go on: {said}"
    model, plan = (place / name for name in bench.subject.outputs)
    if "the best model so far, " not in said:
        yield from bench.hurt(place)
    elif not _whole(model) or _shapes(onnx.load(str(model))) != _shapes(_applied(place, plan)):
        yield f"{model}: not what its plan says, after: {said}"


def _applied(place: Path, plan: Path) -> onnx.ModelProto:
    return onnxprune.apply(place / "model.onnx", plan)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {one.name: list(one.dims) for one in model.graph.initializer}
