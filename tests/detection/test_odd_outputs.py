"""Outputs that no head reads are refused in one line, whatever their axes are."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest

from onnxprune.detection import HEADS, Detector, find_detector
from onnxprune.errors import DataError

SHAPES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "none": {},
    "a number": {"a": ()},
    "one axis": {"a": (1,)},
    "rows of no level": {"y": (1, 100, 33)},
    "open rows": {"y": (1, None, 33)},
    "no rows": {"a": (1, 0, 4), "b": (1, 0, 3)},
    "one level": {"a": (1, 64, 1), "b": (1, 64, 32)},
    "maps of no stride": {"a": (1, 1, 5, 7), "b": (1, 2, 5, 7)},
    "open maps": {"hm": (None, 1, None, None), "wh": (None, 2, None, None)},
    "maps of no class": {"hm": (1, 0, 8, 8), "wh": (1, 2, 8, 8)},
    "five axes": {"a": (1, 2, 3, 4, 5)},
}


@pytest.mark.parametrize("head", ["auto", *HEADS])
@pytest.mark.parametrize("name", SHAPES)
def test_a_head_that_is_named_reads_outputs_or_refuses_them(head: str, name: str) -> None:
    for size in ((64, 64), (1, 1), (3, 5)):
        for classes in (0, 1, 3):
            with suppress(DataError):
                find_detector(SHAPES[name], size, classes, head=head)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", SHAPES)
def test_outputs_of_other_axes_than_declared_are_refused(head: str, name: str) -> None:
    shapes = {one: [size or 3 for size in shape] for one, shape in SHAPES[name].items()}
    outputs = {one: np.ones(shape, np.float32) for one, shape in shapes.items()}
    detector = Detector(head, (64, 64), 1)
    for ask in (detector, detector.units, detector.shows):
        with suppress(DataError):
            ask(outputs)


def test_nothing_is_made_of_a_size_that_is_only_declared() -> None:
    tracemalloc.start()
    for head in HEADS:
        with suppress(DataError):
            find_detector({"y": (1, 10**9, 85)}, (64, 64), 80, head=head, anchors=(1.0,) * 18)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_the_line_names_head_and_axes() -> None:
    detector = Detector("nanodet", (64, 64), 1)
    said = r"^head 'nanodet': does not read y \[2, 9, 33\] of 1 classes; name another with --head, "
    with pytest.raises(DataError, match=said):
        detector({"y": np.zeros((2, 9, 33), np.float32)})
