"""Label maps are resized as Pillow does, and count as a loop over pixels would."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxprune.data.label_maps import IGNORED, class_axis, class_shares, counted, fit_labels, resize
from onnxprune.ops._torch import torch

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sizes, sizes)
def test_a_resized_map_takes_the_nearest_pixel(old: tuple[int, int], new: tuple[int, int]) -> None:
    labels = np.arange(old[0] * old[1]).reshape(old)
    for row, line in enumerate(resize(labels, new).tolist()):
        for column, label in enumerate(line):
            for place, there, many, few in zip(
                (row, column), divmod(label, old[1]), new, old, strict=True
            ):
                distance = Fraction(2 * place + 1, 2 * many) - Fraction(2 * there + 1, 2 * few)
                assert abs(distance) <= Fraction(1, 2 * few)


@given(sizes, st.sampled_from([2, 3, 5]), st.booleans())
def test_maps_are_resized_as_pillow_does(size: tuple[int, int], factor: int, grow: bool) -> None:
    other = (size[0] * factor, size[1] * factor)
    old, new = (size, other) if grow else (other, size)
    labels = np.random.default_rng(0).integers(0, 256, old)
    image = Image.fromarray(labels.astype(np.uint8))
    expected = np.asarray(image.resize(new[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize(labels, new), expected)
    np.testing.assert_array_equal(resize(torch.from_numpy(labels), new).numpy(), expected)


def test_maps_of_the_right_size_are_not_copied() -> None:
    labels = np.zeros((2, 3, 4), np.int64)
    assert resize(labels, (3, 4)) is labels
    assert fit_labels(labels, (2, 5, 3, 4)) is labels


@pytest.mark.parametrize(
    ("output", "maps", "axis"),
    [
        ((2, 5, 8, 8), (2, 8, 8), 1),
        ((2, 8, 8, 5), (2, 8, 8), 3),
        ((2, 4, 6, 5), (2, 8, 12), 3),
        ((2, 8, 8, 8), (2, 8, 8), 1),
        ((2, 5, 7, 7), (2, 8, 9), 1),
        ((2, 5), (2,), 1),
    ],
)
def test_the_axis_of_classes_is_the_one_that_is_not_of_the_maps(
    output: tuple[int, ...], maps: tuple[int, ...], axis: int
) -> None:
    assert class_axis(output, maps) == axis
    labels = np.zeros(maps, np.int64)
    if len(maps) == 3:
        size = output[1:3] if axis == 3 else output[2:]
        assert fit_labels(labels, output).shape == (2, *size)
    else:
        assert fit_labels(labels, output) is labels


@given(st.integers(0, 2**32 - 1))
def test_shares_are_those_of_a_loop(seed: int) -> None:
    maps = np.random.default_rng(seed).choice([0, 1, 3, IGNORED], (4, 2, 3))
    shares = class_shares(maps, 5)
    for one, row in zip(maps, shares, strict=True):
        held = set(one.ravel().tolist()) - {IGNORED}
        assert row.tolist() == [(k in held) / max(len(held), 1) for k in range(5)]
    assert counted(maps).tolist() == [k for k in maps.ravel().tolist() if k != IGNORED]


def test_a_sample_is_all_of_its_class() -> None:
    labels = np.array([2, IGNORED, 0])
    assert (class_shares(labels, 256) == np.eye(256)[labels]).all()
    assert counted(labels) is labels
