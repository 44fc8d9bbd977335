"""Settings: everything that decides what a run does, as a value that goes through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from onnxprune.compensate import METHODS
from onnxprune.errors import check_name
from onnxprune.evaluation import find_metric
from onnxprune.ops import check_operators
from onnxprune.plugins import name_of
from onnxprune.relevance import find_criterion
from onnxprune.search.control import Control
from onnxprune.search.controllers import find_controller
from onnxprune.search.picker import Limits
from onnxprune.search.target import Floor, Target

AUTO = "auto"
"""Least squares where there are samples, none where there are not."""

NAMED = ("control", "criterion", "metric")
"""Options that take a function of one's own, which is kept by its name."""

PARTS = {"target": Target, "floor": Floor, "limits": Limits, "tuning": Control}
"""The fields of Settings that have fields of their own."""


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do.

    Units: batch_size, latency_batch (what a latency is measured on) and per_class (at most so many
    of each class) in samples; memory (for the activations of a walk; None, a quarter of what is
    free) in MB of 2**20 bytes; threads 0 leaves the number to the runtime.
    """

    control: str = "accuracy-aware"
    criterion: str = "lrp"
    compensate: str = AUTO
    unlabelled: str | None = None
    metric: str = "top-1"
    target: Target = field(default_factory=Target)
    floor: Floor = field(default_factory=Floor)
    limits: Limits = field(default_factory=Limits)
    tuning: Control = field(default_factory=Control)
    allow_inexact: tuple[str, ...] = ()
    preprocess: str = "auto"
    per_class: int | None = None
    batch_size: int = 32
    memory: int | None = None
    latency_batch: int = 1
    device: str = "auto"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse names that do not exist."""
        find_controller(self.control)
        find_criterion(self.criterion)
        check_name("compensate", self.compensate, (AUTO, *METHODS))
        find_metric(self.metric)
        check_operators(self.allow_inexact)

    @classmethod
    def of(cls, **options: Any) -> Settings:
        """Return settings from flat options, as `changed` takes them."""
        return cls().changed(**options)

    def changed(self, **options: Any) -> Settings:
        """Return the settings with some of the fields of Settings or of a part changed.

        Parts are target, floor, limits and tuning.
        Raises: UnknownName for an option that none of them has.
        """
        parts: dict[str, dict[str, Any]] = {name: {} for name in PARTS}
        own: dict[str, Any] = {}
        for name, given in options.items():
            value = name_of(given) if name in NAMED and callable(given) else given
            part = next((part for part, kind in PARTS.items() if name in _names(kind)), None)
            if part is None:
                own[name] = value
            else:
                parts[part][name] = value
        for name in own:
            known = [*_names(Settings), *(n for kind in PARTS.values() for n in _names(kind))]
            check_name("option", name, known)
        whole = replace(self, **own)
        given_parts = {part: given for part, given in parts.items() if given}
        return replace(
            whole, **{p: replace(getattr(whole, p), **given) for p, given in given_parts.items()}
        )

    def with_floor(self, floor: Floor) -> Settings:
        """Return the same settings with another floor."""
        return replace(self, floor=floor)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Settings:
        """Read settings back."""
        parts = {name: kind(**content[name]) for name, kind in PARTS.items()}
        allowed = tuple(content.get("allow_inexact", ()))
        return cls(**{**content, **parts, "allow_inexact": allowed})


def _names(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)]
