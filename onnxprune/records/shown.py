"""What the records of a run hold that a page is made of: report, about, evidence."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from onnxprune.records.schemas import (
    Channels,
    Count,
    Place,
    Real,
    Share,
    Time,
    check_same,
)

Pair = tuple[Time, Time]
Picture = Annotated[str, Meta(pattern=r"^data:image/png;base64,[A-Za-z0-9+/=]*\Z")]
Path = Annotated[str, Meta(pattern=r"^[MLC0-9. -]*\Z")]
Colour = Annotated[str, Meta(pattern=r"^#[0-9a-f]{6}\Z")]


class Scored(Struct):
    """An accuracy in the form of a report."""

    mean: Real
    harmonic: Real
    per_class: list[Real | None]
    shrunk_harmonic: Real = 0.0


class Side(Struct):
    """A model: what it costs and what it gets right."""

    params: Count
    macs: Count | None
    filters: Count
    accuracy: Scored | None
    units: Count | None = None
    size_bytes: Count | None = None
    latency_ms: Time | None = None


class Timing(Struct):
    """How latency was measured."""

    batch: Count
    threads: Count
    on: str = "onnxruntime"


class Width(Struct):
    """A layer before and after."""

    name: str
    filters: Count
    removed: Count
    title: str = ""

    def __post_init__(self) -> None:
        if self.removed > self.filters:
            raise ValueError(f"removed is {self.removed} of {self.filters} filters")


class Promised(Struct):
    """What a floor promises of images that nobody has seen."""

    expected: Real
    error: Real
    bound: Real
    confidence: Share
    allowed: Real
    samples: Count


class Report(Struct):
    """`report.json`: what a run came to."""

    before: Side
    after: Side
    rate: Share
    seconds: Time
    evaluations: Count
    stopped: str
    latency: Timing
    metric: str
    classes: list[str]
    samples: Count
    layers: list[Width]
    held_out: Scored | None
    inexact: list[str]
    stopped_by: list[str] = []
    generated: str = ""
    phases: dict[str, Time] = {}
    promise: Promised | None = None
    decisive: str = ""

    def __post_init__(self) -> None:
        scored = [side.accuracy for side in (self.before, self.after) if side.accuracy]
        counts = [len(one.per_class) for one in scored]
        check_same(counts[0] if counts else 0, counts, "per_class of before and after")
        if (self.before.units is None) != (self.after.units is None):
            raise ValueError("units are there for before or for after only")


class ModelFacts(Struct):
    """The model of a run."""

    name: str
    path: str | None
    inputs: dict[str, list[int | str | None]]
    opset: int
    producer: str


class Machine(Struct):
    """The machine of a run."""

    processor: str
    cores: int | None
    system: str


class Box(Struct):
    """A box of a drawing."""

    x: Real
    y: Real
    w: Real
    h: Real
    label: str
    name: str
    node: str
    layer: bool
    filters: int | str | None
    removable: int | None
    group: Count | None
    pins: bool
    facts: list[str]


class Reason(Struct):
    """Why channels of a group stay."""

    text: str
    channels: Count
    lift: str | None = None


class GroupDrawn(Struct):
    """A group of a drawing."""

    title: str
    channels: Count
    removable: Count
    colour: Colour | None
    reasons: list[Reason]


class LayerDrawn(Struct):
    """The channels of the filters of a layer, as runs: the first, and how many."""

    name: str
    title: str
    group: Count | None
    channels: list[tuple[Place, Channels]]


class Dense(Struct):
    """A dense layer whose units stay."""

    name: str
    params: Count


class Network(Struct):
    """The drawing of a network."""

    channels: Channels
    width: Real
    height: Real
    boxes: list[Box]
    lines: list[Path]
    groups: list[GroupDrawn]
    layers: list[LayerDrawn]
    dense: list[Dense] = []

    def __post_init__(self) -> None:
        used = {one.group for one in self.boxes} | {one.group for one in self.layers}
        if any(number is not None and number >= len(self.groups) for number in used):
            raise ValueError(f"a group is none of the {len(self.groups)} groups")
        for layer in self.layers:
            if any(first + count > self.channels for first, count in layer.channels):
                raise ValueError(f"channels of '{layer.name}' are none of the {self.channels}")


class About(Struct):
    """`about.json`: the model, machine, command and network of a run."""

    model: ModelFacts
    data: str | None
    command: str
    started: str
    versions: dict[str, str]
    machine: Machine
    network: Network | UnsetType = UNSET
    folder: str = "."
    unlabelled: str | None = None


class Spread(Struct):
    """How the scores of a layer's filters are spread between two ends, in equal steps."""

    low: Real
    high: Real
    kept: list[Count]
    gone: list[Count]

    def __post_init__(self) -> None:
        if len(self.kept) != len(self.gone):
            raise ValueError("kept and gone have as many steps")


class Costs(Struct):
    """What a layer costs, before and after, and how its filters were scored."""

    params: Pair | None = None
    macs: Pair | None = None
    ms: Pair | None = None
    scores: Spread | None = None


class Interval(Struct):
    """How sure a change is."""

    low: Real
    high: Real
    samples: Count
    method: str


class ClassChange(Struct):
    """How sure the change of a class is."""

    number: Count = field(name="class")
    samples: Count
    low: Real
    high: Real


class Move(Struct):
    """What changed into what."""

    label: int
    before: int
    after: int
    samples: Count


class Shown(Struct):
    """A sample with its pictures."""

    name: str
    picture: Picture
    maps: list[Picture]
    label: int | None = None
    before: int | None = None
    after: int | None = None
    changed: Share | None = None
    scores: tuple[Real, Real] | None = None

    def __post_init__(self) -> None:
        answers = self.label, self.before, self.after
        if self.changed is None and self.scores is None and None in answers:
            raise ValueError("it needs label, before and after, or changed, or scores")


class Evidence(Struct):
    """`evidence.json`: what a page shows of samples and layers."""

    layers: dict[str, Costs] = {}
    interval: Interval | None = None
    classes: list[ClassChange] = []
    names: list[str] = []
    labelled: bool = True
    moves: list[Move] = []
    changed: Count = 0
    samples: Count = 0
    shown: list[Shown] = []
    explained: Literal["answers", "scores", "boxes", "outputs"] = "answers"

    def __post_init__(self) -> None:
        if self.classes and self.interval is None:
            raise ValueError("classes have intervals, and there is none of them all")
