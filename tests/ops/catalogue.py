"""Writes docs/operators.md: every described operator, from the table itself and from the cases.

Where a description decides by the node, it is asked about every node of the cases of its operator.
`python tasks.py docs` runs this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import onnx

from onnxprune.graph.graph import Graph
from onnxprune.ops import OPS, Aligns, Axes, Fills, Holds, How, Moves, Op, Pins, Relevance, Shapes
from onnxprune.ops.pattern import parse
from onnxprune.ops.unknown import DOMAINS, REASONS
from tests.ops.cases import CASES

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "operators.md"
SHOWN = 3
"""Patterns shown of one operator; more are counted."""

KINDS: dict[type, str] = {
    Moves: "moves",
    Aligns: "aligns",
    Shapes: "reads shapes",
    Holds: "holds a constant",
    Fills: "fills",
}

INTRO = """\
# Operators

<!-- Written by `python tasks.py docs`; a test holds it to the operator table. -->

What onnxprune knows of ONNX. Any other operator keeps the channels that it reads, and
`onnxprune inspect` says why ([the reasons](#not-described)); so does one of these in a version that
is not listed. To add one, see [how to add an operator](how-to/add-an-operator.md).

**Versions** are those in which ONNX changed the operator; each holds until the next one.

**Channels** cross an operator in one of these ways:

* *moves*: every output element is a copy of an input element, so the operator itself is run on
  channel labels;
* *aligns*: operands broadcast against each other, equal positions are equal channels;
* a pattern: equal letter, equal channel. Lower case may shrink, CAPITALS never, `*` stands for the
  other axes, `(G o)` is an axis of G times o positions;
* *reads shapes*, *holds a constant*, *fills* (with one value): no channel crosses;
* *stays*: channels that arrive may not go, for the reason given.

Where the way depends on the node, those that occur in the tests are listed.

**Relevance** (LRP) crosses by *copy* (along the gradient), *linear* (the rule distributes it),
*pass* (unchanged), *share* (by contribution), *gate* (all to the signal, nothing to the factor),
*real* (as the operator of real numbers that stands for this one, where scales are known) or not at
all (*none*: [LRP refuses the operator by name](#refused-by-lrp)).
"""

REFUSED = """\
## Refused by LRP

Relevance is not defined across the operators below. If one of them stands between a convolution and
the logits, the criterion `lrp` ends with an error that names the node; other criteria take it. A
final Softmax, LogSoftmax or Sigmoid is no obstacle, because relevance starts before it. A
comparison is none either: a condition that only chooses between values has no relevance.

| family | operators |
|---|---|"""

NOT_DESCRIBED = """\
## Not described

Every other operator of ONNX keeps the channels that it reads, for a reason that `inspect` shows:
"feeds If 'x', which runs a graph of its own".

| operators | reason |
|---|---|"""


def page() -> str:
    """Return the document."""
    seen = _observed()
    families: dict[str, list[str]] = {}
    for (domain, name), described in OPS.items():
        own = [op for op in described if op.forward.__module__.startswith("onnxprune.ops.")]
        if own:
            row = _row(f"{domain}.{name}" if domain else name, own, seen)
            families.setdefault(own[0].forward.__module__, []).append(row)
    parts = [INTRO]
    for module, rows in sorted(families.items()):
        title = (sys.modules[module].__doc__ or "").splitlines()[0].rstrip(".")
        head = ["| operator | versions | channels | relevance | notes |", "|---|---|---|---|---|"]
        parts.append("\n".join([f"## {title}\n", *head, *sorted(rows)]) + "\n")
    return "\n".join([*parts, _refused(), _reasons()])


def _refused() -> str:
    """The operators that carry values and that relevance cannot cross, by family."""
    families: dict[str, list[str]] = {}
    for (domain, name), described in sorted(OPS.items()):
        title = _title(described[0].forward.__module__)
        if title and any(_is_refused(op) for op in described):
            entry = f"{domain}.{name}" if domain else name
            by = [op.relevance for op in described if not isinstance(op.relevance, Relevance)]
            only = [value for value, kind in by[0].items() if kind is Relevance.NONE] if by else []
            entry += f" with reduction {' or '.join(only)}" if only else ""
            families.setdefault(title, []).append(entry)
    rows = [f"| {title} | {', '.join(names)} |" for title, names in sorted(families.items())]
    return "\n".join([REFUSED, *rows]) + "\n"


def _is_refused(op: Op) -> bool:
    """Return True if an operator gives values, not shapes or conditions, and no relevance."""
    if Relevance.NONE not in op.ways_of_relevance or isinstance(op.how, Shapes | Holds | Fills):
        return False
    if not onnx.defs.has(op.name, op.domain):
        return True
    first = onnx.defs.get_schema(op.name, domain=op.domain).outputs[0]
    return set(first.types) != {"tensor(bool)"}


def _title(module: str) -> str:
    """The first words of the docstring of a family; nothing for users' own operators."""
    if not module.startswith("onnxprune.ops."):
        return ""
    return (sys.modules[module].__doc__ or "").splitlines()[0].partition(":")[0].rstrip(".")


def _reasons() -> str:
    rows = [f"| {', '.join(names.split())} | {why} |" for why, names in REASONS.items()]
    rows += [f"| all of the domain {domain} | {why} |" for domain, why in DOMAINS.items()]
    return "\n".join([NOT_DESCRIBED, *rows]) + "\n"


def _observed() -> dict[int, list[How]]:
    """How channels cross the nodes of the cases, by the identity of the description."""
    found: dict[int, list[How]] = {}
    for case in CASES:
        types = [(node.domain, node.op_type) for node in case.nodes]
        if not any(callable(op.how) for kind in types for op in OPS.get(kind, ())):
            continue
        graph = Graph(case.model)
        for node in graph.nodes:
            how = graph.how(node)
            if how is not None and callable(node.op.how):
                found.setdefault(id(node.op), []).append(how)
    return found


def _row(name: str, described: list[Op], seen: dict[int, list[How]]) -> str:
    hows: list[How] = []
    for op in described:
        hows += seen.get(id(op), []) if callable(op.how) else [op.how]
    ways = list(dict.fromkeys(way for how in hows if (way := _way(how))))
    more = [f"and {len(ways) - SHOWN} more"] if len(ways) > SHOWN else []
    notes = [note for op in described for note in _flags(op)]
    notes += [note for how in hows for note in _notes(how)]
    cells = (
        name,
        ", ".join(str(version) for version in sorted(v for op in described for v in op.since)),
        "; ".join([*ways[:SHOWN], *more]) or "stays",
        ", ".join(
            dict.fromkeys(kind.name.lower() for op in described for kind in op.ways_of_relevance)
        ),
        "; ".join(dict.fromkeys(notes)),
    )
    return "| " + " | ".join(cells) + " |"


def _way(how: How) -> str:
    return f"`{how.pattern}`" if isinstance(how, Axes) else KINDS.get(type(how), "")


def _flags(op: Op) -> Iterator[str]:
    if op.filters:
        yield "its output channels are filters"
    if op.columns_along is not None:
        yield "filters, where it is a convolution of one pixel; units, with `--also dense`"
    if op.restate is not None:
        yield "restates counts"


def _notes(how: How) -> Iterator[str]:
    if isinstance(how, Pins):
        yield f"stays: {how.why}"
    elif isinstance(how, Axes):
        if any(axis.fixed and axis.names for axis in parse(how.pattern)[0][0].axes[1:]):
            yield f"CAPITALS: {how.why}"
        if how.inner:
            yield "inner widths with `--also dense`"
        if how.loose:
            yield "prunable with `--allow-inexact`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
