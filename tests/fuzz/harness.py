"""Fuzzing: inputs that a seeded generator makes of good ones, each read in a watched process.

    python -m tests.fuzz.harness models --count 20000 --folder /tmp/fuzz   go on where it stopped
    python -m tests.fuzz.harness all --corpus --count 40                   what CI runs
    python -m tests.fuzz.harness models --replay FILE ...                  read these files again
    python -m tests.fuzz.harness models --shrink --folder /tmp/fuzz        make the findings smaller
    python -m tests.fuzz.harness models --atheris -max_total_time=600      guided by coverage

A module of this folder that has `KINDS` adds kinds of input. Input number i of a kind and a seed is
the same in every process. A worker reads many inputs, each within `SECONDS` of CPU time and `MORE`
bytes of memory above what it begins with; where an input ends it, another one takes its place.
`cases.txt` in the folder has a line for each input, `findings/` the smallest input of each finding
and what it ended in. The exit status is 1 where an input ended badly. See docs/robustness.md.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.fuzz.judging import Kind, Outcome, judge

SECONDS = 10.0
"""CPU time of one input."""
PATIENCE = 60.0
"""Seconds of one input, whatever else the machine does."""
MORE = 1 << 30
"""Bytes of address space of one input."""
LIFE = 2000
"""Inputs of one worker."""
TRIES = 300
"""Inputs that are tried to make one finding smaller."""

FORK = multiprocessing.get_context("fork")


@dataclass
class Workers:
    """One worker at a time, which judges inputs; `folder` is where it may write.

    Units: seconds of CPU time, and bytes of memory, of one input.
    """

    kind: Kind
    folder: Path
    seconds: float = SECONDS
    more: int = MORE
    _process: multiprocessing.process.BaseProcess | None = None
    _pipe: Connection | None = None
    _read: int = 0

    def judge(self, data: bytes) -> Outcome:
        """Return what an input ends in, in a worker that outlives it or not."""
        if self._process is None or self._read >= LIFE:
            self._begin()
        assert self._pipe is not None
        assert self._process is not None
        self._read += 1
        try:
            self._pipe.send_bytes(data)
            outcome = self._wait()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            outcome = Outcome(f"crash {name}", self._trace())
            self.end()
        return outcome

    def _wait(self) -> Outcome:
        assert self._pipe is not None
        assert self._process is not None
        since, process = time.monotonic(), psutil.Process(self._process.pid)
        begun = _cpu(process)
        while not self._pipe.poll(min(self.seconds, 0.5)):
            if _cpu(process) - begun > self.seconds or time.monotonic() - since > PATIENCE:
                os.kill(process.pid, signal.SIGUSR1)  # says where it is
                time.sleep(0.3)
                outcome = Outcome("hang", self._trace())
                self.end()
                return outcome
        return Outcome(*self._pipe.recv())

    def _begin(self) -> None:
        self.end()
        self.kind.seeds()  # once, for all workers
        self.folder.mkdir(parents=True, exist_ok=True)
        here, there = FORK.Pipe()
        self._process = FORK.Process(
            target=_work, args=(self.kind, self.folder, self.more, there, here)
        )
        self._process.start()
        there.close()
        self._pipe, self._read = here, 0
        here.recv()  # it has read a good input and is ready

    def end(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _trace(self) -> str:
        """Where the worker was when it was asked, or fell: the innermost line, and ours."""
        path = self.folder / "trace"
        text = path.read_text(errors="replace") if path.exists() else ""
        begun = max(text.find("Current thread"), text.find("Stack (most recent"))
        current = re.split(r"(?m)^$", text[begun:])[0]
        found = re.findall(r'File "(.*?)", line (\d+) in (.+)', current)
        own = [one for one in found if "/onnxprune/" in one[0].replace("\\", "/")]
        lines = [f"{'/'.join(Path(f).parts[-2:])}:{n}:{name}" for f, n, name in own[:1] + found[:1]]
        return " ".join(dict.fromkeys(lines))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _work(kind: Kind, folder: Path, more: int, pipe: Connection, other: Connection) -> None:
    """Judge what comes through the pipe, in a process of its own."""
    other.close()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    trace = (folder / "trace").open("w")
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGUSR1, trace, all_threads=False)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what ONNX's own code prints
        os.dup2(quiet, stream)
    judge(kind, kind.seeds()[0], folder)  # loads what is loaded once
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send(tuple(judge(kind, data, folder)))


@dataclass
class Findings:
    """The smallest input of each finding, in a folder, and how often it was met."""

    folder: Path
    met: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, data: bytes, outcome: Outcome) -> None:
        """Keep an input if it is the smallest of its finding."""
        name = name_of(outcome)
        self.met[name] += 1
        path = self.folder / f"{kind.name}.{name}"
        if not path.exists() or path.stat().st_size > len(data):
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            said = f"{outcome.ended}\n{outcome.site}\n{outcome.text}\n"
            path.with_name(f"{path.name}.txt").write_text(said, encoding="utf-8")


def name_of(outcome: Outcome) -> str:
    """Return the name of a finding: inputs that end alike, in the same place, share it."""
    where = outcome.ended if not outcome.site else f"{outcome.ended}_{outcome.site}"
    return re.sub(r"[^\w.]+", "_", where)[:120].strip("_")


def run(
    kind: Kind, folder: Path, *, count: int, seed: int = 0, seconds: float = float("inf")
) -> tuple[Counter[str], Findings]:
    """Judge inputs of a kind up to number `count`, from where `folder` says that it stopped.

    Returns how many inputs ended in what, those of earlier calls included, and the findings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workers, findings = Workers(kind, folder / "worker"), Findings(folder / "findings")
    ended, begun = Counter[str](), time.monotonic()
    with (folder / "cases.txt").open("a+", encoding="utf-8") as cases:
        cases.seek(0)
        done = 0
        for line in cases:
            done, name = int(line.split(" ", 1)[0]) + 1, line.split(" ", 1)[1].strip()
            ended[name] += 1
        try:
            for index in range(done, count):
                if time.monotonic() - begun > seconds:
                    break
                data = kind.make(seed, index)
                outcome = workers.judge(data)
                if not outcome.good:
                    findings.add(kind, data, outcome)
                name = outcome.ended if outcome.good else name_of(outcome)
                ended[name] += 1
                cases.write(f"{index} {name}\n")
                cases.flush()
        finally:
            workers.end()
    return ended, findings


def replay(
    kind: Kind, folder: Path, inputs: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, Outcome]]:
    """Judge given inputs, each by its name."""
    workers = Workers(kind, folder / "worker")
    try:
        for name, data in inputs:
            yield name, workers.judge(data)
    finally:
        workers.end()


def shrink(kind: Kind, folder: Path) -> None:
    """Make the input of each finding smaller, as long as it stays that finding."""
    workers = Workers(kind, folder / "worker")
    for path in sorted((folder / "findings").glob(f"{kind.name}.*")):
        if path.suffix == ".txt":
            continue
        wanted, data, tries = path.name.removeprefix(f"{kind.name}."), path.read_bytes(), 0
        size = max(len(data) // 2, 1)
        while size and tries < TRIES:
            start = 0
            while start < len(data) and tries < TRIES:
                less, tries = data[:start] + data[start + size :], tries + 1
                if name_of(workers.judge(less)) == wanted:
                    data = less
                else:
                    start += size
            size //= 2
        path.write_bytes(data)
    workers.end()


def guided(kind: Kind, folder: Path, arguments: Sequence[str]) -> None:
    """Let atheris choose inputs by the lines of ours that they reach; findings go on being kept.

    An input that hangs, crashes or takes too much memory ends the process, and lies in `folder`.
    """
    import atheris

    findings, work = Findings(folder / "findings"), folder / "worker"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(kind.seeds()):
        (corpus / f"seed-{k}").write_bytes(data)

    def one(data: bytes) -> None:
        outcome = judge(kind, data, work)
        if not outcome.good:
            findings.add(kind, data, outcome)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        import random

        return kind.mutate(random.Random(seed), data)[:most]

    limits = [f"-timeout={PATIENCE:.0f}", "-rss_limit_mb=4096", "-max_len=65536"]
    places = [f"-artifact_prefix={folder.resolve()}/", str(corpus.resolve())]
    command = [sys.argv[0], *limits, *arguments, *places]
    atheris.Setup(command, one, custom_mutator=mutate)
    atheris.Fuzz()


def kinds() -> dict[str, Kind]:
    """Return all kinds of input by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("harness", "judging", "mutators"):
            module = importlib.import_module(f"tests.fuzz.{path.stem}")
            found |= {kind.name: kind for kind in getattr(module, "KINDS", ())}
    return found


def corpus(kind: Kind) -> Iterator[tuple[str, bytes]]:
    """Yield the saved inputs of a kind: all that once ended badly."""
    folder = Path(__file__).parent / "corpus" / kind.name
    for path in sorted(folder.glob("*")):
        yield path.name, path.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("kind", help="a kind of input, several with commas, or all")
    parser.add_argument("--count", type=int, default=1 << 40, help="up to this input")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to go on and to keep findings")
    parser.add_argument("--replay", nargs="+", type=Path, default=[], help="files to read alone")
    parser.add_argument("--corpus", action="store_true", help="the saved inputs first")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--atheris", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    if rest and not given.atheris:
        parser.error(f"unknown: {' '.join(rest)}")
    if given.atheris:
        import atheris

        with atheris.instrument_imports(include=["onnxprune"]):
            known = kinds()
    else:
        known = kinds()
    names = list(known) if given.kind == "all" else given.kind.split(",")
    with TemporaryDirectory(prefix="fuzz-") as temporary:
        bad = 0
        for name in names:
            folder = (given.folder or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            bad += _one(known[name], folder.resolve(), given, rest)
    return int(bad > 0)


def _one(kind: Kind, folder: Path, given: argparse.Namespace, rest: Sequence[str]) -> int:
    """Do what was asked for with one kind; return how many inputs ended badly."""
    if given.atheris:
        guided(kind, folder, rest)
        return 0
    if given.shrink:
        shrink(kind, folder)
        return 0
    bad = 0
    named = [(path.name, path.read_bytes()) for path in given.replay]
    for name, outcome in replay(kind, folder, named or (corpus(kind) if given.corpus else ())):
        if named or not outcome.good:
            print(f"{kind.name} {name}: {' | '.join(filter(None, outcome))}")
        bad += not outcome.good
    if named:
        return bad
    begun = time.monotonic()
    ended, findings = run(kind, folder, count=given.count, seed=given.seed, seconds=given.seconds)
    bad += sum(findings.met.values())
    spent = time.monotonic() - begun
    summary = {"kind": kind.name, "seed": given.seed, "inputs": sum(ended.values())}
    summary |= {"seconds": round(spent, 1), **dict(ended.most_common())}
    print(json.dumps(summary))
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return bad


if __name__ == "__main__":
    sys.exit(main())
