"""Plan: which filters go. Target, Floor and Limits: how far, at what price, and what is spared.

A plan names filters as the user sees them, by convolution and filter number, so that it can be
read, edited and replayed on the model without any analysis of ours in between.

>>> plan = Plan({"conv1": (0, 3)})
>>> Plan.from_json(plan.to_json()) == plan, len(plan)
(True, 2)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.errors import InvalidPlan
from onnxprune.files import write_whole

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """The filters that go, by the name of their convolution node.

    `allow_inexact` are the operators that the plan was made to prune through inexactly.
    """

    removed: Mapping[str, tuple[int, ...]]
    allow_inexact: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(filters) for filters in self.removed.values())

    @classmethod
    def of(cls, groups: ChannelGroups, dead: BoolArray, allow_inexact: Sequence[str] = ()) -> Plan:
        """Return the plan that removes the `dead` channels. Shapes: dead `[channels]`."""
        found = {f.node: np.flatnonzero(dead[f.channels]).tolist() for f in groups.filters}
        removed = {name: tuple(filters) for name, filters in found.items() if filters}
        return cls(removed, tuple(allow_inexact))

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
            wrong = [k for k in filters if not 0 <= k < size]
            if wrong:
                raise InvalidPlan(
                    f"plan: convolution '{node}' has {size} filters, so there is no filter "
                    f"{wrong[0]}; it was made for another model"
                )
            flags[channels[node][list(filters)]] = True
        return flags

    def to_json(self) -> str:
        """Return the text that `plan.json` holds."""
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(list(filters))}"
            for name, filters in self.removed.items()
        )
        body = f"{{\n{lines}\n  }}" if lines else "{}"
        allowed = json.dumps(list(self.allow_inexact))
        also = f'  "allow_inexact": {allowed},\n' if self.allow_inexact else ""
        return f'{{\n  "format": {FORMAT},\n{also}  "removed": {body}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read a plan back.

        Raises: InvalidPlan when the text is not a plan.
        """
        try:
            content = json.loads(text)
            removed = {str(k): tuple(int(i) for i in v) for k, v in content["removed"].items()}
            allowed = tuple(str(name) for name in content.get("allow_inexact", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidPlan(
                f'{where}: not a plan ({error}); expected {{"format": 1, "removed": {{node: '
                f"[filter numbers]}}}}, as 'onnxprune prune' writes it"
            ) from error
        if content.get("format") != FORMAT:
            raise InvalidPlan(f"{where}: format {content.get('format')}; expected {FORMAT}")
        return cls(removed, allowed)

    def save(self, path: str | Path) -> Path:
        """Write the plan whole, or not at all."""
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a file.

        Raises: InvalidPlan when there is no such file or it is not a plan.
        """
        path = Path(path)
        try:
            return cls.from_json(path.read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidPlan(f"{path}: cannot be read ({error}); give a plan.json") from error
