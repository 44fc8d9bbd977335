"""Plan: which filters go.

A plan names filters as the user sees them, by convolution and filter number, so that it can be
read, edited and replayed on the model without any analysis of ours in between.

>>> plan = Plan({"conv1": (0, 3)})
>>> Plan.from_json(plan.to_json()) == plan, len(plan)
(True, 2)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray
from onnxprune.channels import ALLOW_INEXACT, ALSO, ChannelGroups
from onnxprune.checks import Number, Object, is_plain, kind_of, shown
from onnxprune.errors import InvalidPlan, InvalidType, InvalidValue, check_name
from onnxprune.files import write_whole
from onnxprune.plugins import first_line
from onnxprune.records import parse_json, read_text

FORMAT = 1
EXPECTED = '{"format": 1, "removed": {node: [filter numbers]}}, as \'onnxprune prune\' writes it'
REQUESTS = ("allow_inexact", "also")
"""What a plan was made with, and needs again: lists that it holds where they are not empty."""
FILTER = Number(whole=True, least=0)


@dataclass(frozen=True)
class Plan:
    """The filters that go, by the name of their convolution node.

    `allow_inexact` are the operators that the plan was made to prune through inexactly, `also` says
    what it was made to remove beside filters of convolutions.
    Raises: InvalidPlan for what is not names with lists of filter numbers.
    """

    removed: Mapping[str, tuple[int, ...]]
    allow_inexact: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names and numbers, and keep them as tuples."""
        if not isinstance(self.removed, Mapping):
            raise InvalidPlan(f"plan: is {kind_of(self.removed)}; expected {EXPECTED}")
        removed = {_name(node): _numbers(node, given) for node, given in self.removed.items()}
        object.__setattr__(self, "removed", removed)
        try:
            allowed = ALLOW_INEXACT.take("allow_inexact", self.allow_inexact)
            also = ALSO("also", self.also)
        except (InvalidType, InvalidValue) as error:
            raise InvalidPlan(f"plan: {error}") from error
        object.__setattr__(self, "allow_inexact", allowed)
        object.__setattr__(self, "also", also)

    def __len__(self) -> int:
        return sum(len(filters) for filters in self.removed.values())

    @classmethod
    def of(cls, groups: ChannelGroups, dead: BoolArray, allow_inexact: Sequence[str] = ()) -> Plan:
        """Return the plan that removes the `dead` channels. Shapes: dead `[channels]`."""
        found = {f.node: np.flatnonzero(dead[f.channels]).tolist() for f in groups.filters}
        removed = {name: tuple(filters) for name, filters in found.items() if filters}
        return cls(removed, tuple(allow_inexact), groups.also)

    def dead(self, groups: ChannelGroups) -> BoolArray:
        """Return which channels of a graph the plan removes, tied filters included.

        Shapes: `[channels]`.
        Raises: InvalidPlan when the graph has no such convolution or filter.
        """
        flags = np.zeros(len(groups), np.bool_)
        channels = {f.node: f.channels for f in groups.filters}
        for node, filters in self.removed.items():
            if node not in channels:
                raise InvalidPlan(
                    f"plan: the model has no convolution '{node}'; it was made for another model"
                )
            size = channels[node].size
            wrong = [k for k in filters if k >= size]
            if wrong:
                raise InvalidPlan(
                    f"plan: convolution '{node}' has {size} filters, so there is no filter "
                    f"{wrong[0]}; it was made for another model"
                )
            flags[channels[node][list(filters)]] = True
        return flags

    def to_json(self) -> str:
        """Return the text that `plan.json` holds."""
        rows = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(list(filters))}"
            for name, filters in self.removed.items()
        )
        body = f"{{\n{rows}\n  }}" if rows else "{}"
        asked = {name: getattr(self, name) for name in REQUESTS}
        lines = [f'  "{name}": {json.dumps(list(of))},\n' for name, of in asked.items() if of]
        return f'{{\n  "format": {FORMAT},\n{"".join(lines)}  "removed": {body}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read a plan back.

        Raises: InvalidPlan when the text is not a plan.
        """
        try:
            content = Object(kind=dict)("plan", parse_json(text))
            found, removed = content["format"], content["removed"]
            for key in content:
                check_name("key", key, ("format", "removed", *REQUESTS))
        except (ValueError, KeyError, TypeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise InvalidPlan(f"{where}: not a plan ({why}); expected {EXPECTED}") from error
        if found != FORMAT or isinstance(found, bool):
            raise InvalidPlan(f"{where}: format {shown(found)}; expected {FORMAT}")
        try:
            return cls(removed, **{name: content.get(name, ()) for name in REQUESTS})
        except InvalidPlan as error:
            raise InvalidPlan(f"{where}{str(error).removeprefix('plan')}") from error

    def save(self, path: str | Path) -> Path:
        """Write the plan whole, or not at all."""
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a file.

        Raises: InvalidPlan when there is no such file or it is not a plan; InvalidType for what is
        no path.
        """
        if not isinstance(path, str | os.PathLike):
            raise InvalidType(f"plan: is {kind_of(path)}; expected a Plan or the path of one")
        path = Path(path)
        text = read_text(path, lambda line: InvalidPlan(f"{line}; give a plan.json"))
        return cls.from_json(text, str(path))


def _name(node: Any) -> str:
    if not isinstance(node, str):
        raise InvalidPlan(f"plan: {shown(node)} is {kind_of(node)}; expected {EXPECTED}")
    return node


def _numbers(node: str, given: Any) -> tuple[int, ...]:
    """The numbers of a convolution's filters, each of them once."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        value = f" {shown(given)}" if is_plain(given) else ""
        raise InvalidPlan(
            f"plan: filters of '{node}'{value}: is {kind_of(given)}; expected a list of numbers"
        )
    try:
        found = tuple(FILTER(f"plan: '{node}', filter", number) for number in given)
    except (InvalidType, InvalidValue) as error:
        raise InvalidPlan(str(error)) from error
    if len(set(found)) < len(found):
        twice = next(number for number in found if found.count(number) > 1)
        raise InvalidPlan(f"plan: '{node}', filter {twice}: is listed twice; expected it once")
    return found
