"""What one input does to one part of the program, judged in this process.

An input ends well in a **result** or in one clear **refusal**: an error of ours, one printable
line, not too long. Anything else is a **finding**: another exception, a line that is none, an error
that says it is our own mistake, memory that is not there, and whatever the input made the program
do to the machine: write outside the output folder, start a process, import, unpickle or execute.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from onnxprune.errors import InvalidOp, OnnxPruneError, OutOfMemory, SurgeryError
from tests.fuzz.mutators import mutate_bytes

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 2000
"""Characters of an error's line."""

OWN_MISTAKES = (InvalidOp, OutOfMemory, SurgeryError)
"""Errors of ours that no input may end in."""

RESULT, REFUSED = "result", "refused"


def lay_file(suffix: str) -> Callable[[bytes, Path], Path]:
    """Return what lays an input into a folder as one file."""

    def lay(data: bytes, folder: Path) -> Path:
        path = folder / f"input{suffix}"
        path.write_bytes(data)
        return path

    return lay


@dataclass(frozen=True)
class Kind:
    """A kind of input, and the part of the program that reads it.

    `seeds()` are good inputs, the same ones in every process; `mutate(rng, data)` changes one.
    `lay(data, folder)` writes an input into an empty folder and returns the path that is given to
    `run(path, out)`, which reads it, and writes nowhere but into the empty folder `out`.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[Path, Path], object]
    lay: Callable[[bytes, Path], Path] = field(default_factory=lambda: lay_file(""))
    mutate: Callable[[random.Random, bytes], bytes] = mutate_bytes

    def make(self, seed: int, index: int) -> bytes:
        """Return input number `index`: the same one in every process."""
        rng = random.Random(f"{self.name}:{seed}:{index}")
        data = rng.choice(self.seeds())
        for _ in range(1 + min(int(rng.expovariate(0.7)), 8)):
            data = self.mutate(rng, data)
        return data


class Outcome(NamedTuple):
    """What an input ended in: `RESULT`, `REFUSED`, or what is wrong; where, and in which words."""

    ended: str
    site: str = ""
    text: str = ""

    @property
    def good(self) -> bool:
        """Whether the input ended well."""
        return self.ended in (RESULT, REFUSED)


class Refused(Exception):
    """A refusal that a command printed."""


def command(*arguments: str) -> str:
    """Run a command line in this process and return what it printed.

    Raises: Refused with its line; AssertionError where it ends in anything else than 0 or one line.
    """
    from click.testing import CliRunner

    from onnxprune.cli.commands import main

    ended = CliRunner().invoke(main, list(arguments))
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    if ended.exit_code == 0:
        return ended.stdout
    if ended.exit_code not in (1, 2) or len(errors) != 1 or "internal error" in errors[0]:
        raise AssertionError(f"exit {ended.exit_code}: {ended.stderr[-300:]}")
    raise Refused(errors[0])


def judge(kind: Kind, data: bytes, folder: Path) -> Outcome:
    """Let the program read one input, in fresh folders below `folder`, and judge how it ends."""
    places = [folder / name for name in ("given", "out", "here")]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    given, out, here = places
    path = kind.lay(data, given)
    os.chdir(here)
    with WATCH.over(out):
        outcome = _run(kind, path, out)
    if WATCH.seen:
        return Outcome("hurt", *WATCH.seen[0])
    left = sorted(here.rglob("*"))
    return Outcome("hurt", "working folder", left[0].name) if left else outcome


def _run(kind: Kind, path: Path, out: Path) -> Outcome:
    try:
        kind.run(path, out)
    except Refused as error:
        return _judge_line(error, REFUSED)
    except OnnxPruneError as error:
        mistake = isinstance(error, OWN_MISTAKES)
        return _judge_line(error, type(error).__name__ if mistake else REFUSED)
    except BaseException as error:  # whatever it is, it is a finding
        return Outcome(type(error).__name__, site(error), _excerpt(error))
    return Outcome(RESULT)


def _judge_line(error: Exception, ended: str) -> Outcome:
    text = str(error)
    if not text.strip():
        ended = "empty message"
    elif not text.isprintable():
        ended = "message of several lines or control characters"
    elif len(text) > LONGEST:
        ended = "long message"
    if ended == REFUSED:
        return Outcome(REFUSED)
    return Outcome(ended, site(error), _excerpt(error))


def _excerpt(error: BaseException) -> str:
    text = str(error)
    return repr(text if len(text) <= 400 else f"{text[:300]} ... {text[-80:]}")


def site(error: BaseException) -> str:
    """Return where an exception comes from: the last line of our own, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT / "onnxprune")]
    chosen = [*own[-1:], *frames[-1:]]
    named = [f"{_short(f.filename)}:{f.lineno}:{f.name}" for f in chosen]
    return " ".join(dict.fromkeys(named))


def _short(filename: str) -> str:
    return "/".join(Path(filename).parts[-2:])


class Watch:
    """What the program does to the machine while an input is read, by Python's audit events.

    Code, modules and libraries may come from where Python and this project are installed, and
    nothing but the output folder and the folder for temporary files may be written to.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._writable: tuple[str, ...] | None = None
        self._hooked = False
        # The project lies in site-packages, too, where an environment links to another one's.
        named = (*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, ROOT, *sys.path)
        roots = {str(Path(name).resolve()) for name in map(str, named) if name}
        self._roots = (*roots, "<frozen", "/usr/lib", "/lib")

    @contextmanager
    def over(self, out: Path) -> Iterator[None]:
        """Watch what happens inside the block; `seen` says what was not allowed."""
        if not self._hooked:
            sys.addaudithook(self._hear)
            self._hooked = True
        self.seen = []
        temporary = (f"{tempfile.gettempdir()}/{name}" for name in TEMPORARY)
        self._writable = (str(out.resolve()), os.devnull, *temporary)
        try:
            yield
        finally:
            self._writable = None

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._writable is None:
            return
        if event in FORBIDDEN:
            self._note(event, args)
        elif event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes) and flags & WRITES:
                self._written(event, path)
        elif event in CHANGES:
            for path in args[: CHANGES[event]]:
                self._written(event, path)
        elif event == "import" and args[1] and not self._known(args[1]):
            self._note(event, args[:2])
        elif event == "exec" and args[0] is not None:
            self._executed(getattr(args[0], "co_filename", "?"))
        elif event == "ctypes.dlopen" and os.sep in str(args[0]) and not self._known(args[0]):
            self._note(event, args)

    def _executed(self, filename: str) -> None:
        """Note code that is not of an installed file, nor made by a library (as dataclasses do)."""
        caller = sys._getframe(2).f_code.co_filename
        ours = Path(caller).is_relative_to(ROOT) and "site-packages" not in caller
        made = filename.startswith("<") and self._known(caller) and not ours
        if not made and not (self._known(filename) and not filename.startswith("<string")):
            self._note("exec", (filename, caller))

    def _known(self, path: object) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
        return text.startswith(self._roots) or os.path.realpath(text).startswith(self._roots)

    def _written(self, event: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        absolute = os.path.realpath(os.fsdecode(path))
        assert self._writable is not None
        if not absolute.startswith(self._writable) and "__pycache__" not in absolute:
            self._note(event, (absolute,))

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        said = re.sub(r"\s+", " ", ", ".join(map(repr, args)))[:300]
        self.seen.append((event, said))


TEMPORARY = ("onnxprune-", "torchinductor_")
"""How folders for temporary files are called: ours, and torch's."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    **dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
    **dict.fromkeys(("shutil.rmtree",), 1),
}
"""Audit events that change files, and how many of their arguments are paths."""

FORBIDDEN = {
    *("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("os.system", "os.startfile", "pty.spawn", "socket.connect", "socket.bind"),
    *("pickle.find_class", "webbrowser.open"),
}
WATCH = Watch()
