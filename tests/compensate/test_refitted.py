"""Layers are fitted again as numpy would."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.compensate import least_squares
from onnxprune.compensate.ridge import COLUMNS, INPUTS, OUTPUTS
from tests.support.models import relative_error, run
from tests.support.trial import (
    CHAIN,
    CNN,
    FLAT,
    FLAT_LAST,
    MULTIPLIED,
    PRODUCT,
    SAME,
    TRANSPOSED,
    WIDE,
    Trial,
    ridge_by_lstsq,
    rows_of,
    scaled_error,
    transposed,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("text", "step"), [(CHAIN, 1), (WIDE, 2)], ids=["narrow", "wide"])
def test_a_convolution_is_refitted_as_numpy_would(text: str, step: int) -> None:
    trial = Trial(text, [1, 2, 5])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r")[:, :, ::step])
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("ochw,ck->okhw", trial.tensor("v", trial.proto), channel_map)
    assert scaled_error(trial.tensor("v", trial.compensated()), weight) < SAME


@transposed
def test_a_transposed_convolution_is_refitted_as_numpy_would() -> None:
    trial = Trial(TRANSPOSED, [0, 3])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("cohw,ck->kohw", trial.tensor("v", trial.proto), channel_map)
    assert scaled_error(trial.tensor("v", trial.compensated()), weight) < SAME


@pytest.mark.parametrize("text", [FLAT, FLAT_LAST], ids=["nchw", "nhwc"])
def test_a_flattened_map_is_refitted_channel_by_channel(text: str) -> None:
    trial = Trial(text, [1, 2, 5])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    old, new = trial.tensor("v", trial.proto), trial.tensor("v", trial.compensated())
    if text is FLAT:
        weight = np.einsum("cpo,ck->kpo", old.reshape(6, 4, 5), channel_map)
    else:
        weight = np.einsum("pco,ck->pko", old.reshape(4, 6, 5), channel_map)
    assert scaled_error(new, weight.reshape(new.shape)) < SAME


@pytest.mark.parametrize("text", [PRODUCT, MULTIPLIED], ids=["features", "one channel, no map"])
def test_a_product_without_bias_is_refitted_uncentred(text: str) -> None:
    trial = Trial(text, [1, 2])
    alive = trial.alive("f")
    rows = rows_of(trial.tensor("f"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive, centre=False)
    weight = channel_map.T @ trial.tensor("v", trial.proto)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME
    assert trial.compensated("bias") == trial.pruned


def test_later_layers_see_what_the_corrected_ones_produce() -> None:
    """The head is fitted to the outputs of the re-fitted middle layer, not to those of the net."""
    trial = Trial(CNN)
    changed = trial.compensated()
    alive = trial.alive("p")
    full = rows_of(trial.tensor("p"))
    inner = ModelProto()
    inner.CopyFrom(changed)
    del inner.graph.output[:]
    inner.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, None))
    channel_map = ridge_by_lstsq(full, rows_of(run(inner, trial.x)[0]), alive)
    old = trial.tensor("w5", trial.proto).reshape(10, 9, 3)
    weight = np.einsum("cpo,ck->kpo", old, channel_map).reshape(-1, 3)
    assert scaled_error(trial.tensor("w5", changed), weight) < SAME


@pytest.mark.parametrize("text", [CHAIN, FLAT_LAST, CNN])
def test_a_layer_is_the_same_in_whatever_form_it_is_fitted(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for form in (INPUTS, OUTPUTS, COLUMNS):
        monkeypatch.setattr(least_squares, "form_of", lambda *_, form=form: form)
        found.append(Trial(text, [1, 2, 5]).compensated())
    weights = [[onnx.numpy_helper.to_array(one) for one in net.graph.initializer] for net in found]
    for inputs, *others in zip(*weights, strict=True):
        for other in others:
            np.testing.assert_allclose(other, inputs, rtol=SAME, atol=SAME)
