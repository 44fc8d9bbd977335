"""Every command ends the same way: results on stdout, one line for a failure, a known status."""

import contextlib
import io
import json
import logging
import os
import re
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import onnx
import pytest
from click.testing import CliRunner
from rich.console import Console

import onnxprune
from onnxprune.cli import program, pruning
from onnxprune.cli.commands import main
from onnxprune.cli.program import Screen
from onnxprune.errors import NOTICE, SurgeryError
from onnxprune.progress import heard_by, track
from tests.support.small_net import Small

FREE = ("--control", "one-shot", "--criterion", "magnitude", "--threads", "1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def call(*arguments: object) -> Any:
    """Run a command that must succeed."""
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_quiet_prints_nothing(small: Small) -> None:
    prune = ("prune", small.path, "-o", "a.onnx", *FREE, "--rate", "0.4", "--run-dir", "run")
    work = ("--data", small.data, "--threads", "1")
    for command in (
        prune,
        ("inspect", small.path, "--svg", "net.svg"),
        ("compare", small.path, "a.onnx", *work),
        ("apply", small.path, "run/plan.json", "-o", "b.onnx"),
        ("report", "run"),
        ("score", small.path, "-o", "s.npz", "--criterion", "magnitude"),
        (
            "curve",
            small.path,
            *work,
            "--test",
            small.data,
            "-o",
            "c",
            "--method",
            "one-shot/random",
        ),
    ):
        assert call(*command, "-q").output == ""
    written = ("a.onnx", "net.svg", "b.onnx", "run/report.html", "s.npz", "c/curve.svg")
    assert all(Path(name).is_file() for name in written)


def test_quiet_prints_errors_and_json(small: Small) -> None:
    assert json.loads(call("inspect", small.path, "--json", "-q").stdout)["filters"] == 14
    failed = CliRunner().invoke(main, ["inspect", "missing.onnx", "-q"])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: missing.onnx")


def test_verbose_says_more(small: Small) -> None:
    ask = ("--rate", "0.8", "--compensate", "none")
    arguments = ("prune", small.path, "-o", "a.onnx", "--data", small.data, *ask)
    plain = CliRunner().invoke(main, list(map(str, arguments)))
    verbose = CliRunner().invoke(main, [*map(str, arguments), "-v"])
    assert "costs too much" in verbose.stderr
    assert "costs too much" not in plain.stderr


@pytest.mark.parametrize("command", main.commands)
def test_every_command_has_help_with_an_example_that_parses(command: str) -> None:
    text = call(command, "--help").stdout
    assert "Example:" in text
    for line in text.split("Example:")[1].replace("\\\n", " ").strip().splitlines():
        words = shlex.split(line)
        assert words[:2] == ["onnxprune", command]
        with main.commands[command].make_context(command, words[2:], obj=Screen([])):
            pass
    undocumented = [
        p.name
        for p in main.commands[command].params
        if p.param_type_name == "option" and not getattr(p, "help", None)
    ]
    assert undocumented == []


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "Commands:" in result.stderr
    assert "error:" not in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version").stdout == f"onnxprune, version {onnxprune.__version__}\n"


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def crash(*_: Any, **__: Any) -> None:
    raise ValueError("the first line\nand a second")


def test_an_interrupted_run_says_how_to_go_on(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["prune", str(small.path), "-o", "a b.onnx", *FREE, "--rate", "0.4"]
    arguments += ["--run-dir", "run"]
    with monkeypatch.context() as patched:
        patched.setattr("onnxprune.run.make_report", interrupt)
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 130
    line = result.stderr.splitlines()[-1]
    removed = len(json.loads(Path("run/journal.jsonl").read_text().splitlines()[-1])["dead"])
    assert line == (
        f"error: interrupted; the best model so far, {removed} filters less, is a b.onnx; continue "
        f"with: onnxprune {shlex.join(arguments)} --resume"
    )
    assert len(onnx.load("a b.onnx").graph.node)
    Path("a b.onnx").unlink()
    again = CliRunner().invoke(main, shlex.split(line.split("continue with: ")[1])[1:])
    assert again.exit_code == 0, again.output
    assert Path("a b.onnx").is_file()


@pytest.mark.parametrize("command", ["prune", "inspect"])
def test_an_interrupted_command_ends_with_one_line(
    small: Small, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("onnxprune.search.assemble.find_groups", interrupt)
    monkeypatch.setattr("onnxprune.report.inspection.find_groups", interrupt)
    extra = ("-o", "a.onnx", *FREE, "--rate", "0.4") if command == "prune" else ()
    result = CliRunner().invoke(main, [command, str(small.path), *extra])
    assert result.exit_code == 130
    assert [
        line.startswith("error: interrupted") for line in result.stderr.split("\n") if line
    ] == [True]


def test_our_mistakes_are_one_line_and_with_vv_a_traceback(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.report.inspection.find_groups", crash)
    result = CliRunner().invoke(main, ["inspect", str(small.path)])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: internal error: ValueError: the first line and a second; "
        "run again with -vv and report what it shows\n"
    )
    detailed = CliRunner().invoke(main, ["inspect", str(small.path), "-vv"])
    assert "Traceback" in detailed.stderr
    assert "in crash" in detailed.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory; lower --batch-size"),
        (OSError(28, "No space left on device", "a.onnx"), "a.onnx: No space left on device"),
        (onnxprune.OnnxPruneError("net: wrong;\n mend it"), "net: wrong; mend it"),
        (SurgeryError("node: odd"), "internal error: node: odd; this is our mistake"),
        (click.ClickException("no such thing"), "no such thing"),
    ],
)
def test_what_the_machine_lacks_is_said(
    small: Small, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("onnxprune.report.inspection.find_groups", fail)
    result = CliRunner().invoke(main, ["inspect", str(small.path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {says}")
    assert result.stderr.count("\n") == 1


def test_it_runs_as_a_module_and_into_a_closed_pipe(small: Small) -> None:
    command = [sys.executable, "-m", "onnxprune", "inspect", str(small.path)]
    env = {**os.environ, "PYTHONPATH": str(Path(onnxprune.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert "14 filters" in done.stdout
    piped = subprocess.run(
        f"{shlex.join(command)} | true", shell=True, capture_output=True, text=True, env=env
    )
    assert "Traceback" not in piped.stderr


def test_a_terminal_shows_a_live_line(small: Small) -> None:
    pty = pytest.importorskip("pty")
    main_end, terminal = pty.openpty()
    command = [sys.executable, "-m", "onnxprune", "prune", str(small.path), "-o", "a.onnx"]
    env = {**os.environ, "PYTHONPATH": str(Path(onnxprune.__file__).parents[1]), "TERM": "xterm"}
    running = subprocess.Popen(
        [*command, *FREE, "--rate", "0.4"], stdout=subprocess.PIPE, stderr=terminal, env=env
    )
    os.close(terminal)
    shown = read_to_the_end(main_end)
    assert running.stdout is not None
    printed = running.stdout.read()
    running.stdout.close()
    assert running.wait() == 0, shown
    assert "\x1b[" in shown
    assert "pruned model: a.onnx" in shown
    assert b"\x1b" not in printed


def read_to_the_end(terminal: int) -> str:
    """What a program writes to a terminal, which holds a few thousand bytes at once."""
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as end, contextlib.suppress(OSError):
        while part := end.read(4096):  # OSError on Linux where the other side is closed
            parts.append(part)
    return b"".join(parts).decode()


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["onnxprune", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("onnxprune", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("onnxprune, version")


def terminal(**options: Any) -> Screen:
    screen = Screen()
    screen.err = Console(file=io.StringIO(), force_terminal=True, width=100, **options)
    return screen


def shown(screen: Screen) -> str:
    assert isinstance(screen.err.file, io.StringIO)
    return screen.err.file.getvalue()


def test_a_live_line_follows_the_steps() -> None:
    screen = terminal()
    with screen.progress("looking") as progress:
        progress.step("[half] done", 0.5)
        screen.say("beside")
    assert "[half] done" in shown(screen)
    assert "beside" in shown(screen)


def test_the_time_that_is_left_is_shown_where_the_way_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal()
    with screen.progress("looking") as progress:
        now = time.monotonic()
        for steps in range(1, 4):
            monkeypatch.setattr(time, "monotonic", lambda n=steps: now + 40 * n)
            progress.step(f"step {steps}", steps / 6)
        (task,) = progress._live.tasks
        assert task.fields["left"] == "2:00 left"
        monkeypatch.setattr(time, "monotonic", lambda: now + 165)
        monkeypatch.setattr(program, "AWHILE", -1.0)
        list(track("measuring", range(2), 2))
        assert task.fields["left"] == "1:15 left"


def test_the_time_that_is_left_is_said_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log as well, where it is a minute or more."""
    screen = Screen()
    with screen.progress("looking") as progress:
        progress.expect(600.0)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now)
        progress.step("begun", 0.0)
        monkeypatch.setattr(time, "monotonic", lambda: now + 100)
        progress.step("half", 0.5)
        monkeypatch.setattr(time, "monotonic", lambda: now + 140)
        progress.step("nearly", 0.95)
        progress.step("nobody knows")
    said = ["begun, about 10 min left", "half, about 2 min left", "nearly", "nobody knows"]
    assert capsys.readouterr().err.splitlines() == said


def test_each_runtime_of_a_deployment_is_a_way_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the one before took says nothing of the next."""
    screen = Screen()
    with screen.progress("deploying") as progress:
        for at, share in ((0, 0.5), (600, 1.0), (700, None), (800, 0.25), (900, 0.5)):
            monkeypatch.setattr(time, "monotonic", lambda at=at: float(at))
            progress.step("on" if share is None else f"{share:.0%}", share)
    said = ["50%", "100%", "on", "25%", "50%, about 3 min left"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_search_says_how_long_it_takes_once_the_model_was_measured(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "WHOLE", 1e9)
    said = call("prune", small.path, "-o", "a.onnx", "--data", small.data, "--rate", "0.5").stderr
    first = next(line for line in said.splitlines() if "0.0 % removed" in line)
    assert re.search(r", about \d{4,} min left$", first)


def test_a_second_line_shows_what_a_step_is_busy_with(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal()
    with screen.progress("looking") as progress:
        list(track("quickly", range(2), 2))
        assert "quickly" not in shown(screen)
        monkeypatch.setattr(program, "AWHILE", -1.0)
        for number in track("measuring", range(3), 3):
            _, within = progress._live.tasks
            assert (within.description, within.total, within.completed) == ("measuring", 3, number)
        assert len(progress._live.tasks) == 1


def test_a_log_says_how_far_it_is_with_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After half a minute, a whole one, two minutes and so on, with the time that is left."""
    screen = Screen()
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with screen.progress("deploying"):
        for number in track("calibrating", range(20), 20):
            monkeypatch.setattr(time, "monotonic", lambda at=8.0 * (number + 1): at)
    said = ["4 of 20, about 2 min left", "8 of 20, about 2 min left", "16 of 20"]
    assert capsys.readouterr().err.splitlines() == [f"calibrating: {line}" for line in said]


def test_who_listens_already_hears_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """As the JSON lines of a log do."""
    heard: list[tuple[str, int, int]] = []
    with heard_by(lambda *said: heard.append(said)), Screen().progress("deploying"):
        list(track("calibrating", "a", 1))
    assert heard == [("calibrating", 0, 1), ("calibrating", 1, 1)]
    assert capsys.readouterr().err == ""


def test_a_log_says_what_it_waits_for_only_if_it_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen()
    with screen.progress("quickly"):
        pass
    monkeypatch.setattr(program, "PATIENCE", 0.01)
    with screen.progress("converting"):
        time.sleep(0.2)
    with screen.progress("never said") as progress:
        progress.step("a step")
        time.sleep(0.1)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "converting ..."
    assert "a step" in said
    assert "quickly ..." not in said


def test_what_is_noted_of_two_data_sets_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """As the head of a detector, which samples to test and to calibrate with have; no warning."""
    Screen().set_volume(0)
    logger = logging.getLogger("onnxprune.search")
    for line in ("head", "head", "other"):
        logger.log(NOTICE, "%s", line)
        logger.warning("%s", line)
    said = capsys.readouterr().err.splitlines()
    assert said == ["head", "warning: head", "warning: head", "other", "warning: other"]


def test_nothing_moves_where_quiet_is_asked_for() -> None:
    screen = terminal()
    screen.set_volume(-1)
    with screen.progress("looking") as progress:
        progress.step("half done", 0.5)
    assert shown(screen) == ""
    screen.set_volume(0)
