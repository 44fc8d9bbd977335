"""The command line: parse, call, print. It computes nothing.

Imports whatever it calls, when it calls it.

* `commands`: all commands; they stand in `pruning`, `comparing`, `converting` and `demo`
* `group`: the program; `options`: what commands take; `types`: the values of options
* `program`: output, progress, errors, exit codes; `help`: help texts; `tables`: results as tables
"""

import gc
import sys
from collections.abc import Sequence

from onnxprune.cli.signals import exit_code, heeded, named

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, with the arguments of this process unless some are given."""
    try:
        with heeded():
            gc.disable()  # nothing of what is imported goes, and looking costs a tenth of the start
            from onnxprune.cli.commands import main as program

            gc.enable()
            program(arguments)
    except KeyboardInterrupt as stop:  # before the program could say more
        sys.stderr.write(f"error: {named(stop)}\n")
        sys.exit(exit_code(stop))
