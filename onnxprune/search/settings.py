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
from onnxprune.search.controllers import CONTROLLERS
from onnxprune.search.picker import Limits
from onnxprune.search.target import Floor, Target

AUTO = "auto"
"""Least squares where there are samples, none where there are not."""

NAMED = ("criterion", "metric")
"""Options that take a function of one's own, which is kept by its name."""


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
        check_name("control", self.control, CONTROLLERS)
        find_criterion(self.criterion)
        check_name("compensate", self.compensate, (AUTO, *METHODS))
        find_metric(self.metric)
        check_operators(self.allow_inexact)

    @classmethod
    def of(cls, **options: Any) -> Settings:
        """Return settings from flat options: the fields of Settings, Target, Floor and Limits.

        Raises: UnknownName for an option that none of them has.
        """
        parts: dict[str, dict[str, Any]] = {"target": {}, "floor": {}, "limits": {}}
        kinds = {"target": Target, "floor": Floor, "limits": Limits}
        own: dict[str, Any] = {}
        for name, given in options.items():
            value = name_of(given) if name in NAMED and callable(given) else given
            part = next((p for p, kind in kinds.items() if name in _names(kind)), None)
            if part is not None:
                parts[part][name] = value
            elif name in _names(cls):
                own[name] = value
            else:
                known = [*_names(cls), *(n for kind in kinds.values() for n in _names(kind))]
                check_name("option", name, known)
        for part, kind in kinds.items():
            own.setdefault(part, kind(**parts[part]))
        return cls(**own)

    def with_floor(self, floor: Floor) -> Settings:
        """Return the same settings with another floor."""
        return replace(self, floor=floor)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Settings:
        """Read settings back."""
        parts = {
            "target": Target(**content["target"]),
            "floor": Floor(**content["floor"]),
            "limits": Limits(**content["limits"]),
        }
        allowed = tuple(content.get("allow_inexact", ()))
        return cls(**{**content, **parts, "allow_inexact": allowed})


def _names(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)]
