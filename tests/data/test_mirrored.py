"""Mirror images come behind the samples, each in the fold of its own."""

import numpy as np
import pytest

from onnxprune import memory
from onnxprune.data import Inputs, with_mirrored
from onnxprune.data.mirrored import ENOUGH


@pytest.mark.parametrize("count", range(1, 8))
def test_an_image_and_its_mirror_image_are_in_one_fold(count: int) -> None:
    x = np.random.default_rng(count).random((count, 3, 4, 5))
    found = with_mirrored(x, 3)
    assert (found[:count] == x).all()
    assert len(found) == 2 * count - count % 3
    for place in range(count, len(found)):
        own = np.flatnonzero((x == found[place, :, :, ::-1]).all((1, 2, 3)))
        assert own.size == 1
        assert own % 3 == place % 3


def test_columns_are_mirrored_wherever_channels_are() -> None:
    x = np.random.default_rng(0).random((6, 1, 4, 5))
    first, last = with_mirrored(x, 3), with_mirrored(np.moveaxis(x, 1, -1), 3)
    assert (np.moveaxis(last, -1, 1) == first).all()


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 4, 5), (6, 3, 9), (ENOUGH, 3, 4, 5)])
def test_other_samples_and_many_images_stay_alone(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape)
    assert with_mirrored(x, 3) is x


def test_samples_of_several_inputs_stay_alone() -> None:
    x = Inputs({"a": np.zeros((6, 3, 4, 5))})
    assert with_mirrored(x, 3) is x


def test_images_that_workers_would_read_from_files_stay_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.zeros((6, 3, 4, 5))
    monkeypatch.setattr(memory, "LITTLE", x.nbytes)
    assert len(with_mirrored(x, 3)) == 12
    monkeypatch.setattr(memory, "LITTLE", x.nbytes - 1)
    assert with_mirrored(x, 3) is x
