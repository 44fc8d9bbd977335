"""The command line: parse, call, print. It computes nothing.

Imports whatever it calls, when it calls it.

* `commands`: all commands; they stand in `pruning`, `comparing`, `converting` and `demo`
* `group`: the program; `options`: what commands take; `types`: the values of options
* `program`: output, progress, errors, exit codes; `help`: help texts; `tables`: results as tables
"""

from onnxprune.cli.commands import main

__all__ = ["main"]
