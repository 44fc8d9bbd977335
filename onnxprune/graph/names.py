"""What people call a convolution: its node, its module in torch, its weight.

Exporters number the nodes (`node_Conv_764`, `Conv_12`), but leave a trace of the names that their
users know: torch writes the path of the module into the metadata of the node, spells it in the
node's name (`/layer1/layer1.0/conv1/Conv`), or keeps the name of the parameter
(`layer1.0.conv1.weight`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from heapq import nlargest

from onnxprune.ops import Node
from onnxprune.text import read_literal

SCOPES = "pkg.torch.onnx.name_scopes"
"""The metadata of a node that lists the modules it is in, from the outermost on, and its own name.

Source: torch.onnx, exporter of torch 2.5 and later."""

NUMBERED = re.compile(r"(node_)?_?(conv\w*?|gemm|matmul|einsum|linear)?(_?\d+)*", re.IGNORECASE)
"""Names of nodes that exporters count up, which say nothing."""

NEAR = 5
"""Names that an error lists."""


@dataclass(frozen=True)
class Called:
    """What a convolution is called: `title` is shown, all `names` are found by a pattern."""

    title: str
    names: tuple[str, ...]

    def matches(self, pattern: str) -> bool:
        """Say whether one of its names, or the path of a module around it, fits a shell pattern.

        >>> conv = Called("layer1.0", ("node_Conv_7", "layer1.0", "layer1.0.weight"))
        >>> [conv.matches(p) for p in ("layer1", "layer1.*", "node_Conv_?", "layer")]
        [True, True, True, False]
        """
        around = (_around(name) for name in self.names)
        return any(fnmatchcase(n, pattern) for names in (self.names, *around) for n in names)


def call(convolutions: Iterable[tuple[Node, str]]) -> dict[str, Called]:
    """Return what convolutions are called, by the names of their nodes; no two titles are equal.

    Each is a node with the name of its weight.
    """
    found = {node.name: _call(node, weight) for node, weight in convolutions}
    times = Counter(called.title for called in found.values())
    for node, called in found.items():
        if times[called.title] > 1 and called.title != node:
            title = f"{called.title} ({node})"
            found[node] = replace(called, title=title, names=(*called.names, title))
    return found


def nearest(pattern: str, convolutions: Iterable[Called]) -> list[str]:
    """Return the titles of a few convolutions whose names are most like a pattern."""
    word = pattern.strip("*?./")

    def likeness(one: Called) -> float:
        names = (one.title, *one.names)
        return max(SequenceMatcher(None, word, name).ratio() for name in names)

    return [one.title for one in nlargest(NEAR, convolutions, key=likeness)]


def _call(node: Node, weight: str) -> Called:
    module, owner = _module(node), weight.removesuffix(".weight")
    numbered = module or NUMBERED.fullmatch(node.name)
    title = owner if numbered and owner != weight else module or node.name
    names = (node.name, _dotted(node.name), module, owner, weight)
    return Called(title, tuple(dict.fromkeys(filter(None, names))))


def _module(node: Node) -> str:
    """The path of the module that torch's metadata names, empty where there is none."""
    for entry in node.proto.metadata_props:
        if entry.key == SCOPES:
            try:
                *_, module, _ = read_literal(entry.value)
            except (ValueError, TypeError):
                return ""
            return str(module)
    return ""


def _dotted(name: str) -> str:
    """Write a node's path with dots; scopes may repeat the name of the one around them.

    >>> _dotted("/layer1/layer1.0/downsample/downsample.0/Conv")
    'layer1.0.downsample.0.Conv'
    """
    parts: list[str] = []
    for part in filter(None, name.split("/")):
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _around(name: str) -> list[str]:
    """The paths of the modules around a dotted name, from the outermost on."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]
