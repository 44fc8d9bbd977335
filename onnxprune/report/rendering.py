"""Pages from templates, with all that they need in them."""

from __future__ import annotations

import json
from functools import cache, partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.report.figures import amount, clock, count, duration, milliseconds, percent, points
from onnxprune.text import harmless

if TYPE_CHECKING:
    from jinja2 import Environment

SAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What would end a script, or a line of one, within JSON."""


def as_json(content: Any) -> str:
    """Return JSON that may stand within a script of a page."""
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    for letter, escaped in SAFE.items():
        text = text.replace(letter, escaped)
    return text


def _finite(content: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(one) for one in content] if isinstance(content, (list, tuple)) else content


def render(template: str, **values: Any) -> str:
    """Return a page: a template of the folder `templates`, filled in; every value is escaped."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("onnxprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters |= {
        "percent": percent,
        "duration": duration,
        "count": count,
        "amount": amount,
        "points": partial(points, 0.0),
    }
    environment.globals |= {"amount": amount, "clock": clock, "milliseconds": milliseconds}
    environment.globals["asset"] = _asset
    return environment


def _shown(value: Any) -> Any:
    """A value as a page shows it; what is markup already stays, and lines of a text do."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return harmless(value, lines=True)


def _asset(name: str) -> str:
    """Return a file of the templates' folder, to stand in the page as it is."""
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")
