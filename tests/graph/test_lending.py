"""A model without its large weights, which it takes from the model that it is a copy of."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.graph import Graph, fill, lent, save_model
from tests.support.wide import wide_net


def twins() -> ModelProto:
    """A model of two initializers of one name, which nobody can tell apart by it."""
    model = wide_net(40)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((40, 40), np.float32), "w"))
    return model


def told() -> ModelProto:
    """A model whose large weight carries a text and metadata."""
    model = wide_net(40)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    weight.doc_string = "of an earlier day"
    weight.metadata_props.add(key="by", value="hand")
    return model


def unpacked() -> ModelProto:
    """A model whose large weight stands in numbers."""
    model = wide_net(40)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    weight.float_data.extend(np.frombuffer(weight.raw_data, np.float32))
    weight.ClearField("raw_data")
    return model


@pytest.mark.parametrize("make", [lambda: wide_net(40), twins, told, unpacked])
def test_what_is_lent_and_the_rest_are_the_model(make: object) -> None:
    model = make()  # type: ignore[operator]
    before = model.SerializeToString()
    bare, weights = lent(model)
    assert not any(t.HasField("raw_data") for t in bare.graph.initializer if t.name in weights)
    assert fill(bare, weights) == model
    assert model.SerializeToString() == before


def test_only_large_weights_of_one_name_are_lent() -> None:
    for make in (told, lambda: wide_net(40)):
        assert lent(make())[1].keys() == {"w"}
    assert not lent(unpacked())[1]
    assert not lent(twins())[1]


@pytest.mark.parametrize("limit", [None, 1])
def test_a_model_is_written_and_viewed_without_its_weights(
    tmp_path: Path, limit: int | None
) -> None:
    model = wide_net(40)
    bare, weights = lent(model)
    assert bare.ByteSize() < 2000
    save_model(bare, tmp_path / "model.onnx", weights=weights, limit=limit)
    found = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))
    held = Graph(bare, weights=weights).constant("w")
    np.testing.assert_array_equal(held, Graph(model).constant("w"))
