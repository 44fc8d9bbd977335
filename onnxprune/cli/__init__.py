"""The command line: parse, call, print. It computes nothing.

Imports whatever it calls, when it calls it.

* `commands`: one function for each command; `options`: their options; `types`: their values
* `program`: output, progress, errors, exit codes; `help`: help texts; `tables`: results as tables
"""

from onnxprune.cli.commands import main

__all__ = ["main"]
