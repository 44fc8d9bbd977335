"""What to use where a criterion cannot be computed: others are tried on one sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from onnxprune.errors import OnnxPruneError, UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.relevance.mirror import Mirror

TRIED = ("lrp", "taylor", "activation", "magnitude", "random")
"""Criteria, the better ones first (docs/method.md)."""


def advise(error: UnsupportedOp, graph: Graph, asked: str, attempt: Callable[[str], Any]) -> None:
    """Raise the error anew, with the first other criterion that `attempt` can compute.

    Raises: UnsupportedOp, or the kind of it that the error is.
    """
    for name in TRIED:
        if name != asked and _works(partial(attempt, name)):
            runs = _works(lambda: Mirror(graph, device="cpu"))
            more = "" if runs else " and --compensate none"
            found = type(error)(f"{error}; or use --criterion {name}{more}")
            found.what, found.instead = str(error), (name, runs)
            raise found from error
    raise error


def _works(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OnnxPruneError:
        return False
    return True
