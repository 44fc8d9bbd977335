"""Settings: everything that decides what a run does, as a value that goes through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import Any, TypeVar

from onnxprune.channels import ALLOW_INEXACT, ALSO
from onnxprune.checks import (
    BATCH_SIZE,
    DEVICE,
    SEED,
    THREADS,
    Checked,
    Choice,
    Flag,
    Names,
    Number,
    Object,
    Text,
    asked,
)
from onnxprune.compensate import METHODS
from onnxprune.data import KINDS, MEMORY, PER_CLASS, PREPROCESS
from onnxprune.detection import AUTO as HEAD_AUTO
from onnxprune.detection import HEAD_NAMES, check_head
from onnxprune.errors import UnknownName, check_name
from onnxprune.evaluation import AUTO as METRIC_AUTO
from onnxprune.evaluation import METRIC_NAMES, find_metric
from onnxprune.graph import INPUT_SHAPES
from onnxprune.plugins import name_of
from onnxprune.relevance import CRITERION_NAMES, find_criterion
from onnxprune.runtimes import OWN, RUNTIMES, find_runtime
from onnxprune.search.control import Control
from onnxprune.search.controllers import CONTROLLER_NAMES, find_controller
from onnxprune.search.limits import Limits
from onnxprune.search.objective import AIMS
from onnxprune.search.target import Floor, Target

AUTO = "auto"
"""Least squares where there are samples, none where there are not."""


def _check_runtime(name: str) -> None:
    try:
        find_runtime(name)
    except UnknownName as error:
        raise UnknownName(f"latency_on: {error}") from error


HOME = "onnxruntime"
"""Where accuracy is measured, and latency unless another runtime is asked for."""

Part = TypeVar("Part")

PARTS: Mapping[str, type[Any]] = {
    "target": Target,
    "floor": Floor,
    "limits": Limits,
    "tuning": Control,
}
"""The fields of `Settings` whose own fields are options, too."""


@dataclass(frozen=True)
class Settings(Checked):
    """What a run is asked to do.

    Units: batch_size, latency_batch (what a latency is measured on) and per_class (at most so many
    of each class) in samples; memory (for the activations of a walk; None, a quarter of what is
    free) in MB of 2**20 bytes; threads 0 leaves the number to the runtime.
    Raises: InvalidType, InvalidValue or UnknownName for a value that its rule refuses.
    """

    control: str = asked(
        Text(
            name_of=name_of,
            also=find_controller,
            known=CONTROLLER_NAMES,
            metavar="NAME",
            help="one-shot: all in one step; iterative: in equal steps; accuracy-aware: in steps "
            "that adapt to the accuracy; dpx: conventional, in steps that adapt to it; or your own "
            "module:function.",
        ),
        "accuracy-aware",
    )
    criterion: str = asked(
        Text(
            name_of=name_of,
            also=find_criterion,
            metavar="NAME",
            known=CRITERION_NAMES,
            help=f"What ranks the filters: {', '.join(CRITERION_NAMES)}; see docs/method.md.",
        ),
        "lrp",
    )
    compensate: str = asked(
        Choice(
            of=(AUTO, *METHODS),
            help="How the layers after removed filters are corrected, once that helps; auto is "
            "least-squares with samples, else none.",
        ),
        AUTO,
    )
    unlabelled: str | None = asked(
        Text(
            of="a folder",
            path=True,
            optional=True,
            metavar="DIR",
            help="More images, without labels, for least squares to fit on.",
        ),
        None,
    )
    metric: str = asked(
        Text(
            name_of=name_of,
            also=find_metric,
            metavar="NAME",
            known=METRIC_NAMES,
            help=f"What is measured of each class: {', '.join(METRIC_NAMES)}. auto is top-1 with "
            "labels, map with boxes; without, fidelity: agreement with the unpruned model.",
        ),
        METRIC_AUTO,
    )
    head: str = asked(
        Text(
            also=check_head,
            known=HEAD_NAMES,
            metavar="NAME",
            help="How boxes are read off the outputs of a detector, by default recognised: "
            f"{', '.join(HEAD_NAMES)}.",
        ),
        HEAD_AUTO,
    )
    outputs: tuple[str, ...] = asked(
        Names(
            of="outputs, as NAME or NAME=KIND",
            commas=True,
            metavar="NAME[=KIND],...",
            help="The outputs that are judged, or tensors inside the model; KIND says what one "
            f"holds: {', '.join(KINDS)}. By default the first for labels, else all.",
        ),
        (),
    )
    target: Target = asked(Object(kind=Target), Target())
    aim: str | None = asked(
        Choice(
            of=AIMS,
            optional=True,
            help="What filters are compared by, beside the damage they do: what their removal "
            "saves of this. latency is measured here, estimated-latency told by the graph alone. "
            "By default what the target names, or estimated-latency.",
        ),
        None,
    )
    floor: Floor = asked(Object(kind=Floor), Floor())
    limits: Limits = asked(Object(kind=Limits), Limits())
    tuning: Control = asked(Object(kind=Control), Control())
    allow_inexact: tuple[str, ...] = asked(ALLOW_INEXACT, ())
    also: tuple[str, ...] = asked(ALSO, ())
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = asked(INPUT_SHAPES, ())
    preprocess: str = asked(PREPROCESS, "auto")
    per_class: int | None = asked(PER_CLASS, None)
    trust_baseline: bool = asked(
        Flag(
            help="Go on where the unpruned model does not clearly beat guessing on the samples.",
        ),
        False,
    )
    batch_size: int = asked(BATCH_SIZE, 32)
    memory: int | None = asked(MEMORY, None)
    latency_batch: int = asked(
        Number(
            whole=True,
            least=1,
            most=4096,
            metavar="N",
            help="Batch size at which latency is measured.",
        ),
        1,
    )
    latency_on: str = asked(
        Text(
            also=_check_runtime,
            known=(*RUNTIMES, OWN),
            metavar="RUNTIME",
            help=f"Where latency is measured: {', '.join(RUNTIMES)}; or your own runtime, file.py.",
        ),
        HOME,
    )
    device: str = asked(DEVICE, "auto")
    threads: int = asked(THREADS, 0)
    seed: int = asked(SEED, 0)

    @classmethod
    def of(cls, **options: Any) -> Settings:
        """Return settings from flat options, as `changed` takes them.

        Raises: what `changed` raises.
        """
        return cls().changed(**options)

    def changed(self, **options: Any) -> Settings:
        """Return the settings with some of the fields of Settings or of a part changed.

        Parts are target, floor, limits and tuning.
        Raises: UnknownOption for an option that none of them has; what Settings raises.
        """
        own: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            check_name("option", name, (*OPTIONS, *PARTS))
            part = next((part for part, kind in PARTS.items() if name in _names(kind)), None)
            (own if part is None else parts.setdefault(part, {}))[name] = value
        changed = replace(self, **own)
        whole = {part: replace(getattr(changed, part), **more) for part, more in parts.items()}
        return replace(changed, **whole)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Settings:
        """Read settings back; what is not there is as by default.

        Raises: UnknownOption for a name that is none of theirs; what Settings raises.
        """
        read = dict(Object(kind=Mapping)("settings", content))
        for part, kind in PARTS.items():
            if part in read:
                read[part] = _read(kind, Object(kind=Mapping)(part, read[part]))
        return _read(cls, read)


def merged(settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    """Return the settings that a call is given, with its options changed.

    Raises: InvalidType for settings that are none; what `Settings.changed` raises.
    """
    base: Settings = Settings() if settings is None else SETTINGS("settings", settings)
    return base.changed(**options)


def _read(kind: type[Part], content: Mapping[str, Any]) -> Part:
    for name in content:
        check_name("option", str(name), _names(kind))
    return kind(**content)


def _names(kind: type[Any]) -> list[str]:
    return [one.name for one in fields(kind)]


SETTINGS = Object(kind=Settings, how="or options by their names, as in rate=0.5")

_all: tuple[type[Any], ...] = (Settings, *PARTS.values())

OPTIONS: Mapping[str, Field[Any]] = {
    one.name: one for kind in _all for one in fields(kind) if one.name not in PARTS
}
"""Every option by its name: a field with its rule in `metadata["rule"]`, and its default."""
