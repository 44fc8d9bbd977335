"""The child process in which a runtime converts and runs a model.

It is started by its path, perhaps with another Python, so it imports the standard library and NumPy
only. A message is a line of JSON, which lists arrays, and their bytes after it. What the runtime
prints goes to a log.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
Message = dict[str, Any]


def send(channel: BinaryIO, message: Message, arrays: Arrays | None = None) -> None:
    """Write a message and its arrays."""
    held = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    listed = [[name, one.dtype.str, list(np.shape(one))] for name, one in held.items()]
    channel.write(json.dumps({**message, "arrays": listed}).encode() + b"\n")
    for array in held.values():
        channel.write(array.tobytes())
    channel.flush()


def receive(channel: BinaryIO) -> tuple[Message, dict[str, npt.NDArray[Any]]] | None:
    """Read a message and its arrays, None where the other side is gone."""
    line = channel.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    arrays = {}
    for name, kind, shape in message.pop("arrays"):
        dtype = np.dtype(kind)
        wanted = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = channel.read(wanted)
        if len(raw) < wanted:
            return None
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return message, arrays


class Worker:
    """What a parent may ask for; each method answers with a message and arrays."""

    def __init__(self, runtime: Mapping[str, Any]) -> None:
        self.runtime = runtime
        self.session: Any = None
        self.feeds: Arrays = {}

    def versions(self, _: Arrays) -> tuple[Message, Arrays]:
        """Return the versions of the runtime's packages, and those that are missing."""
        wanted = self.runtime["PACKAGES"]
        missing = [name for name in wanted if importlib.util.find_spec(name) is None]
        held = importlib.metadata.packages_distributions()
        names = sorted({one for name in wanted for one in held.get(name, ())})
        found = {name: importlib.metadata.version(name) for name in names}
        return {"versions": found, "missing": missing}, {}

    def convert(self, _: Arrays, model: str, folder: str) -> tuple[Message, Arrays]:
        """Convert a model into files of a folder, and return the path of the main one."""
        return {"file": str(self.runtime["convert"](Path(model), Path(folder)))}, {}

    def load(self, _: Arrays, file: str, threads: int) -> tuple[Message, Arrays]:
        """Load a converted model, and return what it takes and gives."""
        self.session = self.runtime["load"](Path(file), threads)
        inputs = [[name, np.dtype(kind).str, shape] for name, kind, shape in self.session.inputs]
        return {"inputs": inputs, "outputs": list(self.session.outputs)}, {}

    def run(self, feeds: Arrays) -> tuple[Message, Arrays]:
        """Run it, and return the outputs and how long that took."""
        self.feeds = feeds or self.feeds
        start = time.perf_counter()
        outputs = self.session.run(self.feeds)
        return {"seconds": time.perf_counter() - start}, outputs

    def clock(self, feeds: Arrays) -> tuple[Message, Arrays]:
        """Run it on these inputs, or on the last ones again, and return how long that took."""
        return self.run(feeds)[0], {}


def serve(worker: Worker, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the parent is gone."""
    while (received := receive(requests)) is not None:
        message, arrays = received
        method: Callable[..., tuple[Message, Arrays]] = getattr(worker, message.pop("call"))
        try:
            answer, found = method(arrays, **message)
        except subprocess.CalledProcessError as error:
            name = Path(error.cmd[0]).name
            answer, found = {"printed": f"{name} ended with exit code {error.returncode}"}, {}
        except SystemExit as error:
            answer, found = {"printed": f"gave up with exit code {error.code}"}, {}
        except BaseException as error:  # whatever it is, the parent says it in one line
            answer, found = {"error": f"{type(error).__name__}: {_said(error)}".rstrip(": ")}, {}
        send(answers, answer, found)


def _said(error: BaseException) -> str:
    """The line of a message that says what is wrong: the first, or an error that it quotes."""
    first, *rest = str(error).strip().splitlines() or [""]
    quoted = (line.strip() for line in rest if re.match(r"\s*\w+Error: ", line))
    return next(quoted, first)


def main(module: str) -> None:
    """Serve the runtime of a module; its own prints must not reach the parent's channel."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with contextlib.suppress(BrokenPipeError):
        serve(Worker(runpy.run_path(module)), requests, answers)


if __name__ == "__main__":
    main(sys.argv[1])
