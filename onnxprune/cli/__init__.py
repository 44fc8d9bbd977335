"""The command line: parse, call, print. It computes nothing.

Imports whatever it calls, when it calls it.

* `commands`: one function for each command; `options`: what they may be given
* `program`: how every command ends, what it prints where; `tables`: results as tables
"""

from onnxprune.cli.commands import main

__all__ = ["main"]
