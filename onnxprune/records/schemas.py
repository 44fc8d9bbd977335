"""What each record of a run directory holds, as far as anything here reads it.

A field with a default may be missing: a run of an earlier version did not write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Place = Annotated[int, Meta(ge=-1, le=2**31)]
"""The number of a channel; -1 is none."""
Channels = Annotated[int, Meta(ge=0, le=2**24)]
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
Time = Annotated[float, Meta(ge=0, le=1e15)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(gt=0, le=1e15)]
Digest = Annotated[str, Meta(max_length=200)]

ROUNDING = 1e-6
"""By which share of it a sum of scores may exceed the number of samples."""

Scalar = None | bool | int | Real | str
Listed = list[Scalar | list[Scalar | list[Scalar]]]
Setting = Scalar | Listed | dict[str, Scalar | Listed]
"""A setting, or those of a part: never nested deeper than a list of named sizes."""


class Counts(Struct, forbid_unknown_fields=True):
    """An accuracy as it is counted: `evaluation.Accuracy`, a number for each class."""

    correct: list[Real]
    total: list[Time]
    probability: list[Real]
    seen: list[Time] | None = None
    weight: list[Weight] | None = None

    def __post_init__(self) -> None:
        for held in (self.total, self.probability, self.seen, self.weight):
            check_same(
                len(self.correct), () if held is None else (len(held),), "numbers of a class"
            )
        if any(
            right > of + ROUNDING * of for right, of in zip(self.correct, self.total, strict=True)
        ):
            raise ValueError("more are correct than there are")


class Tried(Struct, kw_only=True):
    """A net that was taken back."""

    rate: Share
    params: Count
    macs: Count | None
    accuracy: Counts | None
    dead: list[Place] = []
    corrected: bool = False
    evaluations: Count | None = None
    seconds: Time | None = None


class Step(Tried, kw_only=True):
    """A line of the journal, as a page shows it."""

    filters: Count
    tried: list[Tried] = []
    channels: Channels = 2**24

    def __post_init__(self) -> None:
        check_channels(self.dead, self.channels)


class Way(Struct):
    """Where a search that does without some samples is."""

    dead: list[Place]
    accuracy: Counts
    corrected: bool
    since: list[Place]
    followed: Time
    took: Count
    better: Count
    won: Count
    rests: Count


class State(Step, kw_only=True):
    """A line of the journal, as a search goes on from it."""

    channels: Channels
    dead: list[Place]
    size: Time
    stopped: str
    corrected: bool
    limit: Real
    barred: list[Place]
    since: list[Place]
    followed: Time
    took: Count
    better: Count
    won: Count
    rests: Count
    halved: Count
    evaluations: Count
    seconds: Time
    apart: list[Way]

    def __post_init__(self) -> None:
        check_channels(self.dead, self.channels)
        for one in self.apart:
            check_channels((*one.dead, *one.since), self.channels)


class FloorAsked(Struct):
    """What accuracy must hold."""

    max_drop: Real | None = None
    min_accuracy: Real | None = None
    confidence: Real = 0.0


class LimitsAsked(Struct):
    """What may go, as far as a page says so."""

    include: list[str] = []
    round_to: int | str | None = None


class SettingsAsked(Struct):
    """The settings that a page asks for by name."""

    metric: str = "auto"
    floor: FloorAsked = field(default_factory=FloorAsked)
    limits: LimitsAsked = field(default_factory=LimitsAsked)
    allow_inexact: list[str] = []
    also: list[str] = []
    input_shapes: list[tuple[str, list[Count]]] = []


class Config(Struct):
    """`config.json`: what a run was asked, and of what."""

    settings: dict[str, Setting]
    model_sha256: Digest | None = None
    data_sha256: Digest | None = None
    unlabelled_sha256: Digest | None = None
    computed: dict[str, str | int | None] = {}

    def __post_init__(self) -> None:
        from msgspec import convert

        convert(self.settings, SettingsAsked)


class Latency(Struct):
    """`latency.json`: what elements of tensors cost. Units: ms."""

    times: dict[str, Time]
    constant: Time
    error: Time


class Deployed(Struct):
    """A file that `deploy` wrote."""

    files: list[str] = []
    python: str | None = None


class Deployment(Struct):
    """The record of `deploy`, as far as it is read again."""

    rows: list[Deployed] = []
    source: str | None = None


class CocoImage(Struct):
    """An image of COCO's annotations."""

    id: int | str
    file_name: str


class CocoObject(Struct):
    """An object in an image: x, y, width and height in pixels."""

    image_id: int | str
    category_id: int | str
    bbox: tuple[Real, Real, Real, Real]
    iscrowd: Annotated[int, Meta(ge=0, le=1)] = 0


class CocoCategory(Struct):
    """A class."""

    id: int
    name: str


class Coco(Struct):
    """COCO's annotations of a data set, as far as boxes need them."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


def check_channels(dead: Iterable[int], channels: int) -> None:
    """Refuse channels that are not there.

    Raises: ValueError.
    """
    if any(not 0 <= one < channels for one in dead):
        raise ValueError(f"dead names a channel beyond the {channels} there are")


def check_same(count: int, others: Iterable[int], what: str) -> None:
    if any(other != count for other in others):
        raise ValueError(f"{what} are not as many")
