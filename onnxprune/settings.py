"""Settings: everything that decides what a run does, as a value that goes through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from onnxprune.compensate import METHODS
from onnxprune.criteria import CRITERIA
from onnxprune.errors import UnknownName
from onnxprune.plan import Floor, Limits, Target
from onnxprune.search import CONTROLLERS

AUTO = "auto"
"""Least squares where there are samples, none where there are not."""


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do.

    Units: batch_size and per_class (at most so many samples of each class) in samples; threads 0
    leaves the number to the runtime.
    """

    control: str = "accuracy-aware"
    criterion: str = "lrp"
    compensate: str = AUTO
    target: Target = field(default_factory=Target)
    floor: Floor = field(default_factory=Floor)
    limits: Limits = field(default_factory=Limits)
    preprocess: str = "auto"
    per_class: int | None = None
    batch_size: int = 32
    device: str = "auto"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse names that do not exist."""
        check_name("control", self.control, CONTROLLERS)
        check_name("criterion", self.criterion, CRITERIA)
        check_name("compensate", self.compensate, (AUTO, *METHODS))

    @classmethod
    def of(cls, **options: Any) -> Settings:
        """Return settings from flat options: the fields of Settings, Target, Floor and Limits.

        Raises: UnknownName for an option that none of them has.
        """
        parts: dict[str, dict[str, Any]] = {"target": {}, "floor": {}, "limits": {}}
        kinds = {"target": Target, "floor": Floor, "limits": Limits}
        own: dict[str, Any] = {}
        for name, value in options.items():
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
        return cls(**{**content, **parts})


def check_name(kind: str, name: str, known: Any) -> None:
    """Refuse a name that is none of the known ones.

    Raises: UnknownName listing them.
    """
    if name not in known:
        raise UnknownName(f"{kind} '{name}': unknown; expected one of {', '.join(known)}")


def _names(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)]
