"""The types of option values: what a rule takes, and names that the shell can complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from onnxprune.checks import Choice, Rule
from onnxprune.errors import OnnxPruneError
from onnxprune.text import harmless


class Given(click.ParamType):  # type: ignore[type-arg]
    """What the rule of an option takes, read from a text. `Settings` asks the rest of the rule."""

    name = "value"

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or refuse it in the words of its rule."""
        name = param.opts[-1] if param is not None else self.name
        try:
            return self.rule.take(name, self.rule.read(value) if isinstance(value, str) else value)
        except OnnxPruneError as error:
            raise click.UsageError(str(error), ctx) from error

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        """Return what stands for the value in the help."""
        if isinstance(self.rule, Choice):
            return f"[{'|'.join(self.rule.of)}]"
        return self.rule.metavar

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the choices that begin so."""
        return _items(self.rule.of if isinstance(self.rule, Choice) else (), incomplete)


class Shape(Given):
    """The shape of the only input, or that of one of several behind its name and a colon."""

    def __init__(self, rule: Rule, named: Rule) -> None:
        super().__init__(rule)
        self.named = Given(named)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the sizes, or a pair of a name and sizes in a tuple."""
        if isinstance(value, str) and ":" in value:
            return self.named.convert(value, param, ctx)
        return super().convert(value, param, ctx)


PLACEHOLDER = "module:function"
"""What a registry lists for the functions of users."""


class Name(StringParamType):
    """A name that the shell completes from a registry; it takes others, for users' functions."""

    name = "name"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(name for name in known if name != PLACEHOLDER)

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
        return _items(
            ("/".join([*given, name]) for name in known if name != PLACEHOLDER), incomplete
        )


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
        names = [one for one in (called.title, *called.names) if one == harmless(one)]
        yield from [one for one in names if one.startswith(incomplete)][:1]


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
