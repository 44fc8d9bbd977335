"""What is common to all commands: output, progress, errors, interruption and exit codes.

Results go to stdout. Everything else goes to stderr: a live line on a terminal, plain lines in a
log. An error is one line that starts with `error:`; `-vv` adds the traceback. Streams may go away
and signals come in between: what a command has reached is not lost by it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, NoReturn

import click

from onnxprune.cli.help import ORDER, Command
from onnxprune.cli.logs import logged
from onnxprune.cli.signals import exit_code, heeded, named
from onnxprune.cli.streams import Streams, lasting
from onnxprune.errors import LONGEST, NOTICE, OnnxPruneError, SurgeryError
from onnxprune.progress import TAKEN_BACK, Outlook, heard_by, is_heard
from onnxprune.text import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NAME = "onnxprune"
FAILED, MISUSED = 1, 2
"""Exit codes."""

LEVELS = {-1: logging.ERROR, 0: NOTICE, 1: logging.INFO}
PATIENCE = 2.0
"""Seconds after which a log says what it waits for."""
MINUTE = 60
AWHILE = 0.5
"""Seconds after which a second line shows what a step is busy with."""
LONG = 30.0
"""Seconds after which a log says how far it is with that, and again after twice as long."""
WIDTH = 160
"""Columns of a table in a file or a pipe."""


class Screen:
    """The output of a command."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.arguments = list(arguments)
        self.volume = 0
        self.kept = False
        """Whether the result is in a file."""

    @cached_property
    def out(self) -> Console:
        """The console of results."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """The console of everything else."""
        return _console(stderr=True)

    def set_volume(self, volume: int) -> None:
        """Print errors only (-1), warnings and notices (0), steps too (1), or everything (2)."""
        self.volume = volume
        level = LEVELS.get(volume, logging.DEBUG)
        for name in (NAME, "py.warnings"):
            logger = logging.getLogger(name)
            logger.handlers = [h for h in logger.handlers if not isinstance(h, _ToScreen)]
            logger.addHandler(_ToScreen(self))
            logger.setLevel(level)
        in_log = volume == 0 and not sys.stderr.isatty()
        logging.getLogger(TAKEN_BACK).setLevel(logging.INFO if in_log else logging.NOTSET)
        logging.getLogger("py.warnings").disabled = volume < 1
        logging.getLogger("matplotlib").setLevel(max(level, logging.ERROR))

    def print(self, *what: object) -> None:
        """Print results, unless errors alone are wanted."""
        for one in what if self.volume >= 0 else ():
            self.out.print(one, soft_wrap=isinstance(one, str))

    def say(self, line: str) -> None:
        """Report progress, unless errors alone are wanted."""
        if self.volume >= 0:
            self.err.print(line, soft_wrap=True)

    def wrote(self, line: str) -> None:
        """Report a result that is in a file."""
        self.kept = True
        self.say(line)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show the progress of a long computation."""
        if self.volume < 0:
            yield Progress(self)
            return
        if not self.err.is_terminal:
            with self._said_late(title) as said:
                plain = Progress(self, begin=said.cancel)
                with nullcontext() if is_heard() else heard_by(plain.log):
                    yield plain
            return
        from rich import progress

        columns = (
            progress.SpinnerColumn(),
            progress.BarColumn(20),
            progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}", markup=False),
        )
        with progress.Progress(
            *columns, console=self.err, transient=True, speed_estimate_period=3600
        ) as live:
            shown = Progress(self, live, live.add_task(harmless(title), total=None, left=""))
            with heard_by(shown.hear):
                yield shown

    @contextmanager
    def _said_late(self, title: str) -> Iterator[Timer]:
        """Print what a log waits for, if it waits."""
        timer = Timer(PATIENCE, self.say, (f"{title} ...",))
        timer.daemon = True
        timer.start()
        try:
            yield timer
        finally:
            timer.cancel()

    @contextmanager
    def resumable(
        self, run_dir: str | Path | None, save: Callable[[KeyboardInterrupt], str]
    ) -> Iterator[None]:
        """When a signal asks to end, save what there is, and say so and how to go on."""
        try:
            yield
        except KeyboardInterrupt as stop:
            try:
                saved = save(stop)
            except OnnxPruneError as error:
                saved = f"the best model so far could not be saved ({_describe(error)})"
            given = [word for word in self.arguments if word != "--resume"]
            how = f"continue with: {shlex.join([NAME, *given, '--resume'])}"
            if run_dir is None:
                how = "only a run with --run-dir DIR can be resumed"
            fail("; ".join(filter(None, (named(stop), saved, how))), exit_code(stop))


class Progress:
    """The steps of a long computation: a live line on a terminal, else a plain line each.

    On a terminal, a second line shows what a step is busy with.
    """

    def __init__(
        self,
        screen: Screen,
        live: Any = None,
        task: Any = None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._screen, self._live, self._task, self._begin = screen, live, task, begin
        self._within: Any = None
        self._since = self._said = 0.0
        self._outlook = Outlook()

    def expect(self, seconds: float) -> None:
        """Say how long all may take, before the first step shows it. Units: seconds."""
        self._outlook.expected = seconds

    def step(self, line: str, share: float | None = None) -> None:
        """Show a step; `share` is the share of the work that is done, if known.

        A log says how long the rest takes where that is a minute or more. What follows a step
        without a share is a way of its own.
        """
        self._begin()
        if share is None:
            self._outlook = Outlook()
        left = None if share is None else self._outlook.reach(share, time.monotonic())
        if self._live is None:
            self._screen.say(line + _minutes(left))
            return
        total = None if share is None else 1.0
        self._live.update(
            self._task, description=harmless(line), completed=share or 0.0, total=total
        )
        self._say_left()

    def hear(self, what: str, done: int, total: int) -> None:
        """Show how much is done of what a step is busy with, once it has been so for a while."""
        now = time.monotonic()
        self._since = now if done == 0 else self._since
        if done == total:
            if self._within is not None:
                self._live.remove_task(self._within)
            self._within = None
        elif now - self._since > AWHILE:
            if self._within is None:
                self._within = self._live.add_task(what, total=total, left="")
            self._live.update(self._within, description=what, completed=done)
            shown = next(one for one in self._live.tasks if one.id == self._within)
            self._live.update(self._within, left=_left(shown.time_remaining))
            self._say_left()

    def log(self, what: str, done: int, total: int) -> None:
        """Say in a log how much is done of what a step is busy with, if that takes long."""
        now = time.monotonic()
        if done == 0:
            self._since, self._said = now, 0.0
        spent = now - self._since
        if 0 < done < total and spent >= max(LONG, 2 * self._said):
            self._said = spent
            self._screen.say(f"{what}: {done} of {total}{_minutes(spent * (total / done - 1))}")

    def _say_left(self) -> None:
        self._live.update(self._task, left=_left(self._outlook.left(time.monotonic())))


def _minutes(left: float | None) -> str:
    return f", about {left / MINUTE:.0f} min left" if left and left >= MINUTE else ""


def _left(seconds: float | None) -> str:
    whole = round(seconds or 0)
    return f"{whole // MINUTE}:{whole % MINUTE:02d} left" if whole else ""


class Program(click.Group):
    """The command line: turns whatever happens in a command into output and an exit code."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of use; those without a place in it come last."""
        placed = [name for name in ORDER.split() if name in self.commands]
        return placed + [name for name in self.commands if name not in placed]

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit: 0, 1 (error), 2 (usage), 128 and more (ended by a signal)."""
        with heeded(), lasting() as streams:
            self._run(streams, *args, **extra)

    def _run(self, streams: Streams, *args: Any, **extra: Any) -> None:
        given = extra.pop("args", None)
        given = given if given is not None else args[0] if args else None
        arguments = list(sys.argv[1:] if given is None else given)
        with logged(arguments):
            self._call(streams, arguments, **extra)

    def _call(self, streams: Streams, arguments: list[str], **extra: Any) -> NoReturn:
        screen = Screen(arguments)
        extra |= {"standalone_mode": False, "prog_name": NAME, "obj": screen}
        logging.captureWarnings(True)
        try:
            code = super().main(arguments, **extra)
        except click.exceptions.Abort as stop:
            kept = "; what it was asked for was written before" if screen.kept else ""
            fail(f"{named(stop)}{kept}", exit_code(stop))
        except click.UsageError as error:
            _misused(error)
        except click.ClickException as error:
            fail(error.format_message())
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
            fail("the program was ended (sys.exit) by what it called, so nothing was written")
        except Exception as error:  # whatever it is, it becomes one line
            if screen.volume > 1:
                click.echo(harmless(traceback.format_exc(), lines=True), err=True, nl=False)
            fail(_describe(error))
        finally:
            logging.captureWarnings(False)
        sys.stdout.flush()
        if streams.lost and not screen.kept:
            fail(f"stdout: cannot be written ({streams.lost}); print to another place")
        if streams.lost:
            screen.say(f"warning: the tables could not be printed ({streams.lost})")
        sys.exit(code if isinstance(code, int) else 0)


def fail(line: str, code: int = FAILED) -> NoReturn:
    """Print one line and exit."""
    click.echo(f"error: {' '.join(harmless(line, LONGEST).split())}", err=True)
    sys.exit(code)


def _misused(error: click.UsageError) -> NoReturn:
    if "\n" in error.message:  # no command was given: the message is the help
        click.echo(error.message, err=True)
        sys.exit(MISUSED)
    path = error.ctx.command_path if error.ctx is not None else NAME
    fail(f"{error.format_message().rstrip('.')}; see {path} --help", MISUSED)


def _describe(error: Exception) -> str:
    """Return one line: what is wrong, and what to do."""
    if isinstance(error, OnnxPruneError) and not isinstance(error, SurgeryError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; lower --batch-size or --per-class"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, SurgeryError):
        return f"internal error: {error}; this is our mistake: report it with the model"
    kind = type(error).__name__
    return f"internal error: {kind}: {error}; run again with -vv and report what it shows"


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Harmless(Console):
        """Shows a text, and a cell of a table, so that a terminal obeys nothing in it."""

        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(harmless(text), **how)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH
    # The stream as it is now: exporters are silenced by putting another in its place.
    return Harmless(file=stream, width=width, markup=False, emoji=False, highlight=False)


class _ToScreen(logging.Handler):
    """Prints log lines on the console of the progress, so that neither garbles the other.

    What is only noted is said once by a command, however many data sets it holds for.
    """

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen, self._noted = screen, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == NOTICE:
            if record.getMessage() in self._noted:
                return
            self._noted.add(record.getMessage())
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._screen.err.print(f"{level}{record.getMessage()}", soft_wrap=True)
