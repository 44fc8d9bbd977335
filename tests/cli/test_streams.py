"""Streams that go away or know few characters cost no result; signals end a command in one line."""

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune import cli
from onnxprune.cli import signals
from onnxprune.cli.commands import main
from onnxprune.cli.streams import lasting
from tests.support.small_net import Small

FREE = ("--control", "one-shot", "--criterion", "magnitude", "--threads", "1", "--rate", "0.3")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(onnxprune.__file__).parents[1]))
    return tmp_path


class Gone(io.BytesIO):
    """Bytes that nobody takes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


def stream(raw: io.BytesIO, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, encoding)


@pytest.mark.parametrize(
    ("number", "lost"), [(errno.ENOSPC, "No space left on device"), (errno.EPIPE, "")]
)
def test_what_a_stream_cannot_take_is_dropped(
    number: int, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream(Gone(number)))
    with lasting() as streams:
        sys.stdout.write("one\n")
        sys.stdout.flush()
        sys.stdout.write("another\n")
        sys.stdout.flush()
    assert streams.lost == lost


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "-1 x - +- ? ..."), ("cp1252", "-1 × – +- ? …")]
)
def test_characters_degrade(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", stream(raw, encoding))
    with lasting() as streams:
        sys.stdout.write("\u22121 \u00d7 \u2013 \u250c\u2500 \udcff \u2026")
    assert raw.getvalue().decode(encoding) == shown
    assert not streams.lost


def test_the_streams_are_what_they_were() -> None:
    before = sys.stdout, sys.stderr
    with lasting():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


PRUNE = "prune small.onnx -o out.onnx " + shlex.join(FREE)


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        (f"{PRUNE} >&- 2>&-", 0, ""),
        (f"{PRUNE} >/dev/full", 0, "warning: the tables could not be printed (No space"),
        (f"{PRUNE} 2>&1 >/dev/null | head -0", 0, ""),
        ("inspect small.onnx --json >/dev/full", 1, "error: stdout: cannot be written (No space"),
    ],
)
def test_a_stream_that_goes_away_costs_no_model(
    how: str, code: int, says: str, small: Small, folder: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (folder / "small.onnx").write_bytes(small.path.read_bytes())
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m onnxprune {how}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "out.onnx").is_file() == ("prune" in how)


def test_a_signal_saves_the_best_so_far(small: Small, folder: Path) -> None:
    """The command is stopped behind its second step, which waits to be."""
    (folder / "mine.py").write_text(
        "import pathlib, time\n"
        "from onnxprune.search.controllers import iterative\n"
        "def slow(nets, state):\n"
        "    if state.dead.any():\n"
        "        pathlib.Path('ready').touch()\n"
        "        time.sleep(60)\n"
        "    return iterative(nets, state)\n"
    )
    words = [
        *("prune", str(small.path), "-o", "out.onnx", "--control", "mine:slow", "--threads", "1"),
        *("--criterion", "magnitude", "--rate", "0.6", "--run-dir", "run", "--set", "step=0.2"),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{folder}"},
    )
    end = time.monotonic() + 60
    while not Path("ready").exists() and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate()
    last = said.splitlines()[-1]
    assert running.returncode == 128 + signal.SIGTERM, said
    assert last.startswith("error: stopped by SIGTERM; the best model so far, ")
    assert last.endswith(f"continue with: onnxprune {shlex.join(words)} --resume")
    assert onnxprune.find_groups(onnxprune.Graph.load("out.onnx"))


def test_a_signal_while_the_result_is_written_does_not_lose_it(
    small: Small, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no run directory to go on from."""
    real, came = onnxprune.Result.save, list[int]()

    def save(result: onnxprune.Result, path: str) -> Path:
        if not came:
            came.append(1)
            signal.raise_signal(signal.SIGTERM)
        return real(result, path)

    monkeypatch.setattr(onnxprune.Result, "save", save)
    done = CliRunner().invoke(main, ["prune", str(small.path), "-o", "out.onnx", *FREE])
    assert done.exit_code == 128 + signal.SIGTERM
    assert "the best model so far, " in done.stderr.splitlines()[-1]
    assert onnxprune.find_groups(onnxprune.Graph.load("out.onnx"))


BOTH = ("--markdown", "out.md", "--page", "out.html")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("curve", "--method", "one-shot/random", "-o", "curves"), "report.write_curve_plot"),
        (("compare", *BOTH), "cli.comparing._write_page"),
    ],
    ids=["plots", "page"],
)
def test_a_part_of_what_was_asked_for_is_not_all_of_it(
    small: Small,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    place: str,
) -> None:
    """A signal while the rest is written does not end in "written before"."""

    def stop(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(f"onnxprune.{place}", stop)
    command, *more = words
    also = ("--test", small.data) if command == "curve" else (small.path, "--trust-baseline")
    asked = (command, small.path, *also, "--data", small.data, "--threads", 1, *more)
    done = CliRunner().invoke(main, [*map(str, asked)])
    assert done.exit_code == 128 + signal.SIGTERM, done.output
    assert "written before" not in done.stderr


def test_a_signal_before_anything_began_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("onnxprune.cli.commands.main", stopped)
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_signals_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.heeded():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_python_drops_is_heard_later() -> None:
    with signals.heeded():
        signals.check()
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as stop:
            assert signals.exit_code(stop) == 143
            assert signals.named(stop) == "stopped by SIGTERM"
        with pytest.raises(signals.Terminated):
            signals.check()
    assert signals.exit_code(KeyboardInterrupt()) == 130
