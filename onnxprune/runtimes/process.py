"""A runtime in a process of its own, so that its crash, its noise and its hanging stay there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy.typing as npt

from onnxprune.errors import MissingPackage, RuntimeFailed
from onnxprune.files import BESIDE, temporary
from onnxprune.runtimes.child import receive, send
from onnxprune.runtimes.registry import Runtime

LIMIT = 1800.0
"""Seconds that one call may take."""


QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
GROUP = 0 if hasattr(os, "killpg") else None
"""A group of its own, to be ended as a whole; in a session of its own, Linux would schedule it by
another share of the machine than what it is timed against."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Place:
    """Where a runtime runs: CPU threads, 0 for all cores; a Python; how long a call may take.

    Units: limit, s.
    """

    threads: int = 0
    python: str = sys.executable
    limit: float = LIMIT

    @property
    def cores(self) -> int:
        """How many threads are meant."""
        return self.threads or os.cpu_count() or 1


class Child:
    """A process of one runtime, which ends with the `with` statement that it is opened in."""

    def __init__(self, runtime: Runtime, place: Place) -> None:
        self.runtime, self.place = runtime, place
        self.versions: dict[str, str] = {}
        self._late = False
        self._hidden = list[str]()  # folders beside their places, which say nothing to a user

    def __enter__(self) -> Child:
        self._held = ExitStack()
        folder = self._held.enter_context(temporary())
        self._log = folder / "log.txt"
        program = str(Path(__file__).with_name("child.py"))
        count = dict.fromkeys(THREADS, str(self.place.cores))
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [self.place.python, "-c", _start(program), str(self.runtime.module)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=folder,
                    env={**os.environ, **QUIET, **count, **self.runtime.environment},
                    process_group=GROUP,
                )
            except OSError as error:
                self._held.close()
                raise MissingPackage(
                    f"{self.runtime.name}: {self.place.python} does not start ({error.strerror}); "
                    "give the path of a Python"
                ) from error
        try:
            self._check_packages()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, and those that it started."""
        self._kill()
        for pipe in self._pipes:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        self._process.wait()
        self._held.close()

    def call(
        self, name: str, arrays: Mapping[str, npt.NDArray[Any]] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Call a method of `child.Worker` and return its answer and its arrays.

        Shapes: arrays, as the method takes and gives them.
        Raises: RuntimeFailed where it fails, crashes or takes longer than it may.
        """
        requests, answers = self._pipes
        self._hide(value for value in arguments.values() if isinstance(value, str))
        timer = threading.Timer(self.place.limit, self._give_up)
        timer.start()
        try:
            send(requests, {"call": name, **arguments}, arrays)
            received = receive(answers)
        except BrokenPipeError:
            received = None
        finally:
            timer.cancel()
        if received is None:
            raise RuntimeFailed(f"{self._ended()}{self.last_line()}")
        message, found = received
        if "error" in message:
            raise RuntimeFailed(self._shown(message["error"]))
        if "printed" in message:
            raise RuntimeFailed(f"{message['printed']}{self.last_line()}")
        return message, found

    @property
    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout  # type: ignore[return-value]

    def _give_up(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is not None:
            return
        if hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _ended(self) -> str:
        """How the process came to its end."""
        code = self._process.wait()
        if self._late:
            return f"took longer than {self.place.limit:g} s"
        if code < 0:
            return f"crashed ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    def last_line(self) -> str:
        """What it printed last, which may say why."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"; it said last: {self._shown(lines[-1])[:200]}" if lines else ""

    def _hide(self, paths: Iterable[str]) -> None:
        parts = (part for path in map(Path, paths) for part in (path, *path.parents))
        self._hidden += [str(part) for part in parts if part.name.startswith(BESIDE)]

    def _shown(self, text: str) -> str:
        """A message that names files as the user knows them."""
        for folder in self._hidden:
            text = text.replace(f"{folder}{os.sep}", "")
        return text

    def _check_packages(self) -> None:
        answer, _ = self.call("versions")
        if missing := answer["missing"]:
            extra = self.runtime.extra
            how = f'pip install "onnxprune[{extra}]"' if extra else f"install {' '.join(missing)}"
            raise MissingPackage(f"not installed; {how}")
        self.versions = answer["versions"]


def _start(program: str) -> str:
    """Code that runs a file without its folder on the path: modules there are named as runtimes."""
    return (
        f"import runpy, sys; sys.argv[0] = {program!r}; sys.path[:] = sys.path[1:]; "
        f"runpy.run_path({program!r}, None, '__main__')"
    )
