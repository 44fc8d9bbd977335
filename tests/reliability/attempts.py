"""A command in a process of its own, forked from a warm one, which may be killed at any moment."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.calls import TEMPORARY, Call, Calls

PATIENCE = 120.0
"""Seconds after which a command hangs."""

SPLIT = 500
"""Bytes. Models with more weights have a second file, where a subject asks for that."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (less than 0: the signal), stderr, calls and seconds."""

    code: int
    err: str
    calls: tuple[Call, ...]
    seconds: float


def attempt(
    folder: Path,
    arguments: tuple[str, ...],
    *,
    calls: Calls | None = None,
    kill_after: float | None = None,
    by: int = signal.SIGKILL,
    split: bool = False,
) -> Ended:
    """Run a command in a folder; send it a signal after so many seconds.

    Other signals than SIGKILL wait until the command heeds them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    calls = calls or Calls(folder)
    with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as told:
        began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        child = os.fork()
        if child == 0:
            _be_the_command(folder, arguments, calls, split, err.fileno(), told.fileno())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        status = _wait(child, kill_after, by)
        seconds = time.monotonic() - began
        err.seek(0)
        told.seek(0)
        text, made = err.read().decode("utf-8", "replace"), json.loads(told.read() or b"[]")
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, text, tuple(Call(*one) for one in made), seconds)


def _wait(child: int, kill_after: float | None, by: int) -> int:
    """Wait for a child, and end it in time."""
    handle = os.pidfd_open(child)
    try:
        if kill_after is not None and not select.select([handle], [], [], kill_after)[0]:
            os.kill(child, by)
        if not select.select([handle], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitpid(child, 0)[1]


def _be_the_command(
    folder: Path, arguments: tuple[str, ...], calls: Calls, split: bool, err: int, told: int
) -> None:
    code: Any = 70
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder / TEMPORARY), None
        import onnxprune.cli
        from onnxprune.graph import sessions, storage

        onnxprune.cli.heeded = lambda heeded=onnxprune.cli.heeded: _asked(heeded)
        if split:
            storage.MESSAGE_LIMIT = sessions.MAPPED = SPLIT
        calls.install()
        onnxprune.cli.main(list(arguments))
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        os.write(2, f"ESCAPED {type(error).__name__}: {error}\n".encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(os.dup(told), "w") as file:
            json.dump(calls.made, file)
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


ASKING = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a command to end."""


@contextmanager
def _asked(heeded: Any) -> Iterator[None]:
    """Let signals come as soon as a command heeds them, and as long as it does."""
    with heeded():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)


WARM = (
    *("onnxprune.cli.commands", "onnxprune.run", "onnxprune.comparison", "onnxprune.modules"),
    *("onnxprune.deploy", "onnxprune.report", "onnxruntime", "torch", "matplotlib.pyplot"),
    *("rich.progress", "rich.table", "scipy.sparse.csgraph", "onnx.reference", "jinja2", "psutil"),
    *("onnxprune.relevance.mirror", "onnx.shape_inference", "importlib.metadata"),
    *("torch.fx.experimental.symbolic_shapes", "torch.onnx", "faster_coco_eval"),
)


def warm() -> None:
    """Import what commands import, so that no fork pays for it. Nothing is computed here."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in WARM:
        importlib.import_module(name)
    from onnxprune.report import rendering

    made = rendering._environment()
    for name in made.list_templates(extensions=["html"]):
        made.get_template(name)
    rendering._environment = lambda: made
