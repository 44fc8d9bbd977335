"""A comparison as a table in GitHub's Markdown, for the page of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from onnxprune.evaluation import FIDELITY
from onnxprune.report.figures import percent, points, rows, ruined, slower
from onnxprune.text import harmless

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&]|(?<=https):(?=//)|(?<=http):(?=//)|(?<=www)\.)", re.I)
"""What GitHub would read as markup, or as a link, in the name of a class."""
MENTION = re.compile(r"@(?=\w)")
"""What would call somebody."""


def markdown(comparison: Mapping[str, Any], reasons: Sequence[str] | None = None) -> str:
    """Return a table of the figures, and one of the classes that can be opened.

    `reasons` say why a condition fails the comparison; None where there is no condition.
    """
    return "\n".join(_blocks(comparison, reasons))


def _blocks(comparison: Mapping[str, Any], reasons: Sequence[str] | None) -> Iterator[str]:
    if reasons is not None:
        said = "; ".join(f"`{reason}`" for reason in reasons)
        yield f"**Failed:** {said}\n" if reasons else "**Passed**\n"
    for said in filter(None, [ruined(comparison), slower(comparison)]):
        yield f"{escape(said)}\n"
    metric = comparison.get("metric", "top-1")
    lines = [
        (one.label, one.before, one.after, one.change)
        for one in rows(comparison["before"], comparison["after"], metric)
    ]
    if comparison.get("agreement") is not None and metric != FIDELITY:
        lines.append(("Same class given", "", "", percent(comparison["agreement"])))
    yield from _table("", lines)
    yield f"\n{comparison['samples']:,} samples\n"
    yield f"<details><summary>{'Parts' if metric == FIDELITY else 'Classes'}</summary>\n"
    yield from _table("part of the outputs" if metric == FIDELITY else "class", classes(comparison))
    yield "\n</details>\n"


def classes(comparison: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the name, the scores and the change of each class that both models were judged by."""
    before, after = (comparison[side]["accuracy"]["per_class"] for side in ("before", "after"))
    return [
        (name, percent(one), percent(after[name]), points(one, after[name]))
        for name, one in before.items()
        if one is not None and after[name] is not None
    ]


def escape(text: str) -> str:
    r"""Return a text that Markdown shows as it is.

    >>> print(escape("a|b_c <i>"))
    a\|b\_c \<i\>
    """
    marked = SPECIAL.sub(r"\\\1", " ".join(harmless(text).split()))
    return MENTION.sub("@<!-- -->", marked)


def _table(first: str, lines: Iterable[Sequence[str]]) -> Iterator[str]:
    for line in ((first, "before", "after", "change"), None, *lines):
        cells = (" --- ", *[" ---: "] * 3) if line is None else [f" {escape(one)} " for one in line]
        yield f"|{'|'.join(cells)}|"
