"""What a deployment is asked for, as a value whose fields are options of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.checks import Checked, Names, Number, Pairs, Text, asked
from onnxprune.deploy.outputs import TOLERANCE
from onnxprune.runtimes import LIMIT, OWN, RUNTIMES, find_runtime


def _check(names: tuple[str, ...]) -> None:
    for name in names:
        find_runtime(name)


@dataclass(frozen=True, kw_only=True)
class Request(Checked):
    """Which runtimes, how exact, how long, and where.

    Units: time_limit, s for each call of a runtime; tolerance, of an output's error relative to
    what its channel holds.
    Raises: InvalidType, InvalidValue or UnknownName for a value that its rule refuses.
    """

    to: tuple[str, ...] = asked(
        Names(
            of="runtimes",
            commas=True,
            also=_check,
            metavar="NAME,...",
            help=f"The runtimes: {', '.join(RUNTIMES)}, or {OWN} for one of your own.",
        ),
        ("onnxruntime",),
    )
    tolerance: float = asked(
        Number(
            above=0,
            metavar="X",
            help="The largest error of an output, relative to what its channel holds.",
        ),
        TOLERANCE,
    )
    time_limit: float = asked(
        Number(above=0, metavar="SECONDS", help="How long a runtime may take for one call."),
        LIMIT,
    )
    python: tuple[tuple[str, str], ...] = asked(
        Pairs(
            of=Text(of="the path of a Python"),
            between="=",
            what="a runtime and the path of a Python",
            example="litert=env/bin/python",
            metavar="NAME=PATH",
            help="The Python that a runtime is installed in, as litert=env/bin/python; repeatable.",
        ),
        (),
    )
