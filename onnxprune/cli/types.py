"""The types of option values: numbers, shares, and names that the shell can complete."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from onnxprune.errors import OnnxPruneError


class Number(click.FloatRange):
    """A number in a range. NaN is refused."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or refuse it."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is not a number", param, ctx)
        return found


OWN = "module:function"
"""How a registry lists the functions of users."""

PERCENT = Number(0, 100)


class Share(Number):
    """A number that may be written in percent: 0.5 or 50%."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or refuse it; 120% is not a share of anything."""
        text = str(value).strip()
        if text.endswith("%"):
            value = PERCENT.convert(text[:-1], param, ctx) / 100
        return super().convert(value, param, ctx)


class Name(StringParamType):
    """A name that the shell completes from a registry; it takes others, for users' functions."""

    name = "name"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(name for name in known if name != OWN)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the known names that begin so."""
        return _items(self.known, incomplete)


class Method(StringParamType):
    """CONTROL/CRITERION[/COMPENSATE]; the shell completes one part after the other."""

    name = "method"

    def __init__(self, *parts: Sequence[str]) -> None:
        self.parts = parts

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the known methods that begin so."""
        *given, _ = incomplete.split("/")
        known = self.parts[len(given)] if len(given) < len(self.parts) else ()
        return _items(("/".join([*given, name]) for name in known if name != OWN), incomplete)


class Convolution(StringParamType):
    """A pattern of convolutions; the shell completes the names that MODEL, given before, has."""

    name = "pattern"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return each convolution's title, or another name of it that begins so."""
        # An option that lacks its value, as here, leaves the arguments unassigned, in ctx.args.
        model = ctx.params.get("model") or next(iter(ctx.args), None)
        try:
            return _items(_convolutions(model, incomplete), incomplete) if model else []
        except (OnnxPruneError, OSError):
            return []  # the command itself says what is wrong with the model


def _convolutions(model: str, incomplete: str) -> Iterator[str]:
    from onnxprune.channels import find_groups
    from onnxprune.graph import Graph

    for called in find_groups(Graph.load(model)).called.values():
        names = (called.title, *called.names)
        yield next((name for name in names if name.startswith(incomplete)), called.title)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
