"""All commands; each parses its options, calls a function and prints the result."""

from onnxprune.cli import comparing, converting, demo, deploying, pruning, reproducing, returning
from onnxprune.cli.group import main

__all__ = [
    "comparing",
    "converting",
    "demo",
    "deploying",
    "main",
    "pruning",
    "reproducing",
    "returning",
]
