"""Target: how far a search goes. Floor: what must hold on the way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.checks import Checked, Number, asked
from onnxprune.surgery import Costs


def _share(help: str, *, least: float | None = None, above: float | None = None) -> Number:
    return Number(
        least=least, above=above, most=1, share=True, optional=True, metavar="SHARE", help=help
    )


def _figure(what: str) -> Number:
    return Number(
        above=0,
        share=True,
        optional=True,
        metavar="SHARE|COUNT",
        help=f"Stop at this share of the {what} (up to 1), or at this many (above 1).",
    )


LAST = 0.01
"""The share that steps are counted down to, where all may go."""


@dataclass(frozen=True)
class Target(Checked):
    """What to reach: removal stops as soon as every figure is met; None is not asked for.

    Units: rate, share of the removable filters, or of the included ones, removed; params, macs and
    size (bytes of the file), share of the original that may be kept (up to 1) or an absolute figure
    (above 1); latency_ms, milliseconds of one batch on onnxruntime, or on `latency_on`.
    """

    rate: float | None = asked(
        _share(
            "Stop when this share of the removable filters is gone, such as 0.5 or 50%; with "
            "--include, of those.",
            above=0,
        ),
        None,
    )
    params: float | None = asked(_figure("parameters"), None)
    macs: float | None = asked(_figure("multiply-adds"), None)
    size: float | None = asked(_figure("file's bytes"), None)
    latency_ms: float | None = asked(
        Number(
            above=0,
            optional=True,
            metavar="MS",
            help="Stop at this latency, measured with --threads, --latency-batch and --latency-on.",
        ),
        None,
    )

    def __bool__(self) -> bool:
        return bool(self.asked)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the figures asked for."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is not None)

    def far_from(self, costs: Costs, dead: BoolArray) -> bool:
        """Return whether params or macs are more than twice what is asked for without `dead`.

        Shapes: dead `[channels]`.
        """
        return any(have > 2 * goal for goal, have, _ in self._counted(costs, dead))

    def met(self, costs: Costs, dead: BoolArray, counted: BoolArray | None = None) -> bool:
        """Return whether removing the `dead` channels reaches the rate, params and macs asked for.

        The rate is a share of the `counted` channels. Shapes: dead, counted `[channels]`.
        """
        rate = share_removed(costs.groups, dead, counted)
        if self.rate is not None and rate < self.rate - 1e-9:
            return False
        return all(have <= goal for goal, have, _ in self._counted(costs, dead))

    def way(self, costs: Costs, dead: BoolArray, counted: BoolArray | None = None) -> float | None:
        """Return which share of the steps to the target is done, None where nobody can know.

        Steps take a share of what is left, so that they count by its logarithm.
        Shapes: dead, counted `[channels]`.
        """
        pairs = [(goal / full, have / full) for goal, have, full in self._counted(costs, dead)]
        if self.rate is not None:
            pairs.append((1 - self.rate, 1 - share_removed(costs.groups, dead, counted)))
        shares = [
            min(math.log(max(have, LAST)) / math.log(max(goal, LAST)), 1.0)
            for goal, have in pairs
            if goal < 1
        ]
        return min(shares, default=None)

    def _counted(self, costs: Costs, dead: BoolArray) -> list[tuple[float, int, int]]:
        """What is asked for, left, and was there, of params and macs where they are asked for."""
        now, full = costs.of(dead), costs.of()
        wanted = ((self.params, now.params, full.params), (self.macs, now.macs, full.macs))
        return [
            (goal * whole if goal <= 1 else goal, have, whole)
            for goal, have, whole in wanted
            if goal is not None
        ]


@dataclass(frozen=True)
class Floor(Checked):
    """What must hold. Units: harmonic mean of the class accuracies; confidence, a probability."""

    min_accuracy: float | None = asked(
        _share("Keep the harmonic mean of the class accuracies above this.", least=0), None
    )
    max_drop: float | None = asked(
        _share(
            "Lose at most this much of the harmonic mean; 0.01 if neither target nor floor is "
            "given.",
            least=0,
        ),
        None,
    )

    confidence: float = asked(
        Number(
            least=0,
            most=0.999,
            share=True,
            metavar="SHARE",
            help="How sure the floor has to be on images that nobody has seen; 0 asks the "
            "reference samples alone.",
        ),
        0.9,
    )

    def __bool__(self) -> bool:
        return self.min_accuracy is not None or self.max_drop is not None

    def is_void(self, unpruned: float) -> bool:
        """Return whether a harmonic mean that is lost whole would be no more than is allowed."""
        drop = 0.0 if self.max_drop is None else self.max_drop
        return bool(self) and unpruned <= drop < 1

    def level(self, unpruned: float) -> float:
        """Return the lowest harmonic mean allowed."""
        levels = [] if self.min_accuracy is None else [self.min_accuracy]
        if self.max_drop is not None:
            levels.append(unpruned - self.max_drop)
        return max(levels, default=0.0)

    def decisive(self, unpruned: float) -> tuple[str, ...]:
        """Return the names of what decides the lowest harmonic mean allowed."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        del given["confidence"]
        level = self.level(unpruned)
        return tuple(n for n, v in given.items() if Floor(**{n: v}).level(unpruned) == level)


def share_removed(
    groups: ChannelGroups, dead: BoolArray, counted: BoolArray | None = None
) -> float:
    """Return the pruning rate: removed filters over the removable ones, or the `counted` of them.

    Shapes: dead, counted `[channels]`.
    """
    counted = groups.removable if counted is None else counted
    whole = int(groups.filter_count[counted].sum())
    return float(groups.filter_count[dead & counted].sum()) / max(whole, 1)
