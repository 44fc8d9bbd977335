"""Letterbox: an image is whole on the canvas, and a box goes where its pixels go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxprune.data.letterbox import FITS, GREY, Placement, fitted

SIDES = st.tuples(st.integers(20, 200), st.integers(20, 200))


@pytest.mark.parametrize("fit", FITS)
@given(image=SIDES, canvas=SIDES, corner=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)))
def test_a_box_goes_where_its_pixels_go(
    fit: str, image: tuple[int, int], canvas: tuple[int, int], corner: tuple[float, float]
) -> None:
    """A white box on black is drawn, fitted and found again."""
    low = np.array(corner) * image
    high = np.minimum(low + np.array(image) * 0.35 + 1, image)
    low, high = np.floor(low).astype(int), np.floor(high).astype(int)
    pixels = np.zeros((image[1], image[0]), np.uint8)
    pixels[low[1] : high[1], low[0] : high[0]] = 255
    shown = np.asarray(fitted(Image.fromarray(pixels), canvas, fit))
    assert shown.shape == canvas[::-1]
    rows, columns = np.nonzero(shown > 128)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    placed = Placement.of(image, canvas, fit).boxes(np.array([[*low, *high]]))
    np.testing.assert_allclose(placed[0], found, atol=1.5)  # edges are blurred


@given(image=SIDES, canvas=SIDES)
def test_the_image_is_whole_and_what_is_beside_it_is_grey(
    image: tuple[int, int], canvas: tuple[int, int]
) -> None:
    white = Image.new("RGB", image, (255, 255, 255))
    for fit in ("letterbox", "corner"):
        shown = np.asarray(fitted(white, canvas, fit))
        assert set(np.unique(shown)) <= {GREY, 255}
        place = Placement.of(image, canvas, fit)
        assert (shown == 255).all(-1).sum() == place.size[0] * place.size[1]
        assert place.size[0] == canvas[0] or place.size[1] == canvas[1]
        ratio = place.size[0] / image[0] / (place.size[1] / image[1])
        assert abs(np.log(ratio)) < 1.5 / min(place.size)


def test_the_middle_and_the_corner_are_told_apart() -> None:
    assert Placement.of((50, 100), (64, 64), "letterbox").offset == (16, 0)
    assert Placement.of((50, 100), (64, 64), "corner").offset == (0, 0)
    assert Placement.of((50, 100), (64, 64), "stretch").size == (64, 64)
