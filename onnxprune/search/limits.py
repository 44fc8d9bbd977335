"""Limits: what is spared, and what single layers lose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.checks import Checked, Names, Number, Pairs, asked
from onnxprune.errors import InvalidValue

PATTERNS = "patterns of names"
AUTO = "auto"


@dataclass(frozen=True)
class Limits(Checked):
    """What is spared.

    At least `min_channels` on every axis stay, at most `max_layer_rate` of a group goes, and only
    from groups with a convolution that matches `include` and none that matches `exclude`: shell
    patterns of the names that `onnxprune.graph.Called` has. A layer that a pattern of `layer_rate`
    matches loses that share of its filters, no more, and goes before all others. Widths end at
    multiples of `round_to`, as `onnxprune.search.rounding` says; auto is what the runtime computes
    at once, and any width where no such block can go.
    """

    min_channels: int = asked(
        Number(
            whole=True,
            least=1,
            metavar="N",
            help="Leave at least this many channels in every layer.",
        ),
        1,
    )
    max_layer_rate: float = asked(
        Number(
            least=0,
            most=1,
            share=True,
            metavar="SHARE",
            help="Remove at most this share of any layer.",
        ),
        1.0,
    )
    layer_rate: Sequence[tuple[str, float]] = asked(
        Pairs(
            of=Number(least=0, most=1, share=True),
            between="=",
            what="a pattern of names and a share",
            example="layer3=0.3",
            metavar="PATTERN=SHARE",
            help="Remove this share of each layer whose name, or a module around it, matches, such "
            "as layer3=0.3; with neither target nor floor, nothing else goes; repeatable.",
        ),
        (),
    )
    include: Sequence[str] = asked(
        Names(
            of=PATTERNS,
            metavar="PATTERN",
            help="Prune only convolutions whose name, or a module around them, matches, such as "
            "layer3 or 'layer3.*'; --rate is then a share of these; repeatable.",
        ),
        (),
    )
    exclude: Sequence[str] = asked(
        Names(
            of=PATTERNS,
            metavar="PATTERN",
            help="Spare convolutions whose name, or a module around them, matches; --rate is a "
            "share of all the same; repeatable.",
        ),
        (),
    )
    round_to: int | str = asked(
        Number(
            whole=True,
            least=1,
            words=(AUTO,),
            metavar="N|auto",
            help="Leave widths at multiples of N, which runtimes compute faster; auto is what the "
            "device computes at once, 1 leaves any width.",
        ),
        AUTO,
    )

    def allowed(self, groups: ChannelGroups) -> BoolArray:
        """Return which channels may be chosen. Shapes: `[channels]`.

        Raises: UnknownName for a pattern that no convolution matches.
        """
        return self.counted(groups) & ~_of(groups, "exclude", self.exclude)

    def counted(self, groups: ChannelGroups) -> BoolArray:
        """Return of which channels a rate is a share: what is included and may go at all.

        What is excluded counts: it is spared, and the others lose more. Shapes: `[channels]`.
        Raises: UnknownName for a pattern that no convolution matches.
        """
        if not self.include:
            return groups.removable.copy()
        return groups.removable & _of(groups, "include", self.include)

    def shares(self, groups: ChannelGroups) -> dict[int, float]:
        """Return the share of its channels that a group loses, for those that have one.

        Raises: UnknownName for a pattern that no convolution matches; InvalidValue where patterns
        ask for two shares of one group.
        """
        found: dict[int, tuple[str, float]] = {}
        for pattern, share in self.layer_rate:
            for group in np.unique(groups.group[_of(groups, "layer-rate", [pattern])]).tolist():
                other, before = found.setdefault(group, (pattern, share))
                if before != share:
                    tied = ", ".join(f"'{groups.title(f.node)}'" for f in groups.filters_of(group))
                    raise InvalidValue(
                        f"layer-rate: '{other}={before:g}' and '{pattern}={share:g}' both match "
                        f"{tied}, whose filters go together; give these one share"
                    )
        return {group: share for group, (_, share) in found.items()}


def _of(groups: ChannelGroups, what: str, patterns: Sequence[str]) -> BoolArray:
    """Return the channels of the groups with a convolution that matches. Shapes: `[channels]`."""
    found = groups.find(what, patterns)
    own = [
        group
        for group in range(len(groups.names))
        if any(filters.node in found for filters in groups.filters_of(group))
    ]
    return np.isin(groups.group, own)
