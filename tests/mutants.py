"""Plant one fault after another in a copy of the sources, and see the tests fall.

    python3 tasks.py mutants                  all of them; exit status 1 if one survives
    python3 tasks.py mutants --only 'search'  those whose file or name matches
    python3 tasks.py mutants --changed main   those of files that changed since a revision
    python3 tasks.py mutants --shard 2/5      the second fifth
    python3 tasks.py mutants --part           what CI runs: two minutes of what changed, or of all

A **mutant** is a piece of a source file, what stands in its place, and a sentence that says what is
wrong then. `tests/mutants.toml` lists them, with the tests that must notice. A piece that is not in
its file exactly once is an error, and so are tests that fail on the sources as they are: a mutant
must stay what it was. A test that hangs has noticed. What survives asks for a test.
"""

from __future__ import annotations

import argparse
import compileall
import multiprocessing
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("onnxprune", "converters", "samples", "tests", "docs", "pyproject.toml")
BESIDE = ("converters", "samples")
"""Packages within onnxprune that lie beside it: installed, they are found where they came from."""

KILLED, SURVIVED, HUNG, BROKEN, SKIPPED = "killed", "survived", "hung", "broken", "no time"
PASSED, FAILED = 100, 101
"""Exit statuses of a process that ran tests; whatever ends otherwise has not run them."""
PATIENCE, LEAST_PATIENCE = 5.0, 60.0
"""A mutant's tests may take this many times as long as without it, and at least so many seconds."""
WARM = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
WARM.set_forkserver_preload(
    ["onnx.reference", "onnxruntime", "pytest", "scipy.sparse.csgraph", "torch"]
)
"""Where tests run: a fork of a process that has imported, once, what takes longest."""
PART_SECONDS = 110.0


class Mistake(Exception):
    """The list, or what was asked for, is wrong."""


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` becomes `new` in `file`, and one of `tests` must fail."""

    file: str
    name: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def plant(self, root: Path) -> str:
        """Return the text of the file with the fault."""
        text = (root / self.file).read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise Mistake(f"{self}: {self.old!r} is there {found} times, expected once: update it")
        text = text.replace(self.old, self.new)
        try:
            compile(text, self.file, "exec")
        except SyntaxError as error:
            raise Mistake(f"{self}: {self.new!r} is not Python there: {error.msg}") from error
        return text


def load(path: Path) -> list[Mutant]:
    """Read the list: for each file its tests, and name, old, new of each mutant."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Mutant(file, one["name"], one["old"], one["new"], tuple(entry["tests"]))
        for file, entry in table.items()
        for one in entry["mutants"]
    ]


# Which


def shard(mutants: Sequence[Mutant], which: str) -> list[Mutant]:
    """Return part I of N, as `I/N` says; the N parts are all mutants, each once."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", which)
    if match is None or int(match[1]) > int(match[2]):
        raise Mistake(f"--shard {which!r}: expected I/N with I from 1 to N, such as 2/5")
    return list(mutants[int(match[1]) - 1 :: int(match[2])])


def touched(mutants: Sequence[Mutant], files: set[str]) -> list[Mutant]:
    """Return the mutants whose file, or one of whose tests, is among `files`."""
    return [one for one in mutants if not files.isdisjoint((one.file, *one.tests))]


def changed_since(base: str, root: Path) -> set[str] | None:
    """Return the files that differ from a revision, new ones included; None if git cannot say."""
    tracked = _git(root, "diff", "--name-only", "--relative", base)
    new = _git(root, "ls-files", "--others", "--exclude-standard")
    return None if tracked is None or new is None else {*tracked.splitlines(), *new.splitlines()}


def changed_here(root: Path) -> set[str]:
    """Return the files changed since the branch left main; on main, by its last commit.

    Nothing where there is no history to tell.
    """
    bases = [_git(root, "merge-base", "HEAD", name) for name in ("origin/main", "main")]
    head = _git(root, "rev-parse", "HEAD")
    for base in (*(base for base in bases if base != head), "HEAD~1"):
        found = changed_since(base, root) if base else None
        if found is not None:
            return found
    return set()


def part(mutants: Sequence[Mutant], files: set[str], root: Path) -> list[Mutant]:
    """Return the mutants that a change touches, or all.

    Where they begin depends on the sources alone: what is tried twice has one answer, and each
    change of the sources has another part of the list tried.
    """
    chosen = touched(mutants, files) or list(mutants)
    sources = [(root / file).read_bytes() for file in sorted({one.file for one in mutants})]
    begin = zlib.crc32(b"".join(sources)) % len(chosen)
    return chosen[begin:] + chosen[:begin]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


# Their tests


def _link(copy: Path, file: str) -> None:
    """Let a copy find the package beside onnxprune that a file is of in the copy itself."""
    name = Path(file).parts[0]
    if name in BESIDE:
        (copy / "onnxprune" / name).symlink_to(copy / name, target_is_directory=True)


def _unlink(copy: Path) -> None:
    for name in BESIDE:
        (copy / "onnxprune" / name).unlink(missing_ok=True)


@dataclass
class Laboratory:
    """Copies of the sources, one for each job, and what the tests say in them."""

    root: Path
    folder: Path
    jobs: int
    end: float = float("inf")
    _free: SimpleQueue[Path] = field(default_factory=SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _unchanged: dict[tuple[str, ...], Future[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.folder / "0"
        for name in COPIED:
            source = self.root / name
            if source.is_dir():
                shutil.copytree(source, first / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, first / name)
        # By hash: a fault that is planted within the same second and as long as before is seen.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        for name in ("onnxprune", *BESIDE):
            compileall.compile_dir(first / name, quiet=2, invalidation_mode=by_hash)
        for k in range(1, self.jobs):
            shutil.copytree(first, self.folder / str(k))
        for k in range(self.jobs):
            self._free.put(self.folder / str(k))

    def try_all(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str, float]]:
        """Yield what became of each mutant, in order, and after how many seconds."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            for mutant, (verdict, took) in zip(mutants, pool.map(self._try, mutants), strict=True):
                yield mutant, verdict, took
        finally:
            pool.shutdown(cancel_futures=True)

    def _try(self, mutant: Mutant) -> tuple[str, float]:
        start = time.monotonic()
        if start > self.end:
            return SKIPPED, 0.0
        with self._copy() as copy:
            usual = self._seconds_unchanged(copy, mutant.tests)
            start = time.monotonic()
            place = copy / mutant.file
            before = place.read_bytes()
            try:
                _link(copy, mutant.file)
                place.write_text(mutant.plant(copy), encoding="utf-8")
                code = self._run(copy, mutant.tests, max(PATIENCE * usual, LEAST_PATIENCE))
            finally:
                place.write_bytes(before)
                _unlink(copy)
        verdict = {None: HUNG, PASSED: SURVIVED, FAILED: KILLED}.get(code, BROKEN)
        return verdict, time.monotonic() - start

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def _seconds_unchanged(self, copy: Path, tests: tuple[str, ...]) -> float:
        """How long tests take on the unchanged sources, where they must pass; asked once."""
        with self._lock:
            mine = tests not in self._unchanged
            future = self._unchanged.setdefault(tests, Future())
        if mine:
            start = time.monotonic()
            code = self._run(copy, tests, None)
            if code == PASSED:
                future.set_result(time.monotonic() - start)
            else:
                error = Mistake(f"{' '.join(tests)}: do not pass without any fault ({code})")
                future.set_exception(error)
        return future.result()

    def _run(self, copy: Path, tests: tuple[str, ...], seconds: float | None) -> int | None:
        """Run tests in a copy; return how they ended, None if it took too long."""
        process = WARM.Process(target=run_tests, args=(str(copy), tests), daemon=True)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None
        return process.exitcode


def run_tests(copy: str, tests: Sequence[str]) -> None:
    """Run pytest on a copy, in a process of its own; exit with `PASSED` plus its status."""
    import pytest

    os.chdir(copy)
    sys.dont_write_bytecode = True
    sys.path[:] = [copy, *(place for place in sys.path if place not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("onnxprune", "tests")]:
        del sys.modules[name]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    quiet = (
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not slow and not campaign",
    )
    sys.exit(PASSED + pytest.main([*quiet, *tests]))


def hunt(root: Path, mutants: Sequence[Mutant], jobs: int, seconds: float = float("inf")) -> int:
    """Try mutants, say what became of each, and return the exit status."""
    for one in mutants:
        one.plant(root)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        laboratory = Laboratory(root, Path(folder), jobs, time.monotonic() + seconds)
        for one, verdict, took in laboratory.try_all(mutants):
            counts[verdict] += 1
            if verdict != SKIPPED:
                print(f"{verdict:8} {took:5.1f} s  {one}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none")
    if counts[BROKEN]:
        raise Mistake("tests could not be run with a fault in place: plant one that is met in them")
    return 1 if counts[SURVIVED] else 0


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="mutants", description="Plant faults, one after another, and see the tests fall."
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--only", metavar="PATTERN", help="those whose file or name it is found in")
    parser.add_argument("--changed", metavar="BASE", help="those of files changed since a revision")
    parser.add_argument("--shard", metavar="I/N", help="part I of N")
    parser.add_argument("--part", action="store_true", help="two minutes of what changed, or all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    asked = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        mutants = choose(asked, root)
        if asked.list:
            print("\n".join(map(str, mutants)))
            return 0
        return hunt(root, mutants, asked.jobs, PART_SECONDS if asked.part else float("inf"))
    except Mistake as mistake:
        print(f"mutants: {mistake}", file=sys.stderr)
        return 2


def choose(asked: argparse.Namespace, root: Path) -> list[Mutant]:
    """Return the mutants that were asked for."""
    mutants = load(root / "tests" / "mutants.toml")
    if asked.only:
        mutants = [one for one in mutants if re.search(asked.only, str(one))]
    if asked.changed:
        files = changed_since(asked.changed, root)
        if files is None:
            raise Mistake(f"--changed {asked.changed!r}: git knows no such revision here")
        mutants = touched(mutants, files)
    if asked.shard:
        mutants = shard(mutants, asked.shard)
    if asked.part and mutants:
        mutants = part(mutants, changed_here(root), root)
    return mutants


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
