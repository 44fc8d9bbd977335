"""A preset has a name, or says what it does."""

import numpy as np
import pytest

from onnxprune.data import PREPROCESS, PRESETS, find_preset, name_preset
from onnxprune.errors import InvalidValue

PIXELS = np.array([[[0, 128, 255], [7, 200, 31]]], np.uint8)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_has_a_name_is_called_by_it(name: str) -> None:
    preset = PRESETS[name]
    wide = {"mean": preset.mean * (3 // len(preset.mean)), "std": preset.std * 3}
    called = name_preset(wide["mean"], wide["std"][:3], divisor=preset.divisor, bgr=preset.bgr)
    assert called == name


@pytest.mark.parametrize(
    ("mean", "std", "divisor", "bgr", "text"),
    [
        ((0.5, 0.4, 0.3), (0.25, 0.2, 0.1), 255.0, False, "mean=0.5,0.4,0.3:std=0.25,0.2,0.1"),
        ((0.1,), (0.2,), 255.0, True, "mean=0.1:std=0.2:bgr"),
        ((10.0,), (2.0,), 1.0, False, "mean=10:std=2:divisor=1"),
        ((0.1307,), (0.3081,), 255.0, False, "mean=0.1307:std=0.3081"),
    ],
)
def test_another_one_is_described(
    mean: tuple[float, ...], std: tuple[float, ...], divisor: float, bgr: bool, text: str
) -> None:
    assert name_preset(mean, std, divisor=divisor, bgr=bgr) == text
    pixels = PIXELS[..., ::-1] if bgr else PIXELS
    expected = (pixels / divisor - np.array(mean)) / np.array(std)
    preset = find_preset(text)
    np.testing.assert_allclose(preset(PIXELS), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(preset.undone(preset(PIXELS)), PIXELS, rtol=1e-4, atol=1e-3)
    assert PREPROCESS("preprocess", text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("mean=a", "mean=", "mean=0.5:std=0", "std=-1", "mean=nan", "luck=3", "mean"),
        *("mean=1,2:std=1,2,3", "divisor=1,2", "mean=0.5:", "bgr=1:mean=0", "mean=0.5;std=2"),
    ],
)
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"expected one of unit, .*as in mean=0\.5"):
        find_preset(text)
