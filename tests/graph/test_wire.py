"""Models read in pieces, judged by protobuf, which reads them whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper

from onnxprune.errors import InvalidModel
from onnxprune.graph import storage
from onnxprune.graph.storage import fill, load_apart, load_model, save_model
from onnxprune.graph.wire import WHOLE, prefix, read_pieces
from tests.support.models import model

TEXT = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[2,3,1,1] w, float[2] b> {
  y = Conv(x, w, b)
}
"""


def many_weights() -> ModelProto:
    """Large weights between small ones, fields behind the graph, an initializer without values."""
    proto = model(TEXT)
    for k, size in enumerate((WHOLE, 3, WHOLE // 4 + 1, 5, 0, WHOLE)):
        values = np.arange(size, dtype=np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, f"spare{k}"))
    proto.metadata_props.add(key="author", value="me")
    proto.graph.doc_string = "weights of many sizes"
    return proto


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_model(many_weights(), tmp_path / "model.onnx")


def test_a_model_is_what_protobuf_reads(path: Path) -> None:
    assert read_pieces(path) == onnx.load(path) == many_weights()


def test_two_models_in_a_row_are_one_as_protobuf_has_it(path: Path) -> None:
    path.write_bytes(2 * path.read_bytes())
    assert read_pieces(path) == onnx.load(path)


def test_a_file_cut_short_is_refused_where_protobuf_refuses_it(path: Path) -> None:
    whole = path.read_bytes()
    ends = (*range(1, 400, 9), *range(400, len(whole), 19_973), *range(len(whole) - 20, len(whole)))
    for size in ends:
        path.write_bytes(whole[:size])
        try:
            expected = ModelProto.FromString(whole[:size])
        except DecodeError:
            with pytest.raises(DecodeError):
                read_pieces(path)
        else:
            assert read_pieces(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x0b", "byte 0: value of unknown kind 3"), (b"\x08" + 10 * b"\xff", "byte 1: a number")],
)
def test_what_is_no_message_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=message):
        read_pieces(path)


def test_large_files_are_read_in_pieces_with_their_external_data(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    assert load_model(path) == many_weights()
    split = save_model(many_weights(), path.with_name("split.onnx"), limit=1000)
    expected, found = onnx.load(split), load_model(split)
    assert found == expected
    assert all(
        numpy_helper.to_array(t).nbytes == 4 * t.dims[0] for t in found.graph.initializer[2:]
    )
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidModel, match=r"not an ONNX model, or cut short"):
        load_model(path)


def test_values_that_are_taken_are_no_part_of_the_model(path: Path) -> None:
    content, taken = path.read_bytes(), {}

    def take(tensor: TensorProto, start: int, end: int) -> bool:
        taken[tensor.name] = content[start:end]
        return tensor.name != "spare2"

    found, expected = read_pieces(path, take), onnx.load(path)
    assert set(taken) == {"spare0", "spare2", "spare5"}
    for tensor in found.graph.initializer:
        if tensor.name in taken:
            assert tensor.HasField("raw_data") == (tensor.name == "spare2")
            tensor.raw_data = taken[tensor.name]
    assert found == expected


def odd_weights() -> ModelProto:
    """Large weights, one for each way to hold values that are not one array, and one that is."""
    proto = model(TEXT)
    values = np.arange(WHOLE // 4 + 1, dtype=np.float32)
    for k in range(6):
        proto.graph.initializer.append(numpy_helper.from_array(values, f"odd{k}"))
    plain, short, typed, whole, bits, flat = proto.graph.initializer[-6:]
    plain.doc_string = "kept"
    plain.metadata_props.add(key="author", value="me")
    short.raw_data = short.raw_data[:-1]
    typed.ClearField("raw_data")
    typed.float_data.extend(values)
    whole.CopyFrom(numpy_helper.from_array(values.astype(np.int64), whole.name))
    bits.data_type = TensorProto.BFLOAT16
    flat.dims[:] = [1, len(values)]
    return proto


@pytest.mark.parametrize("make", [many_weights, odd_weights])
def test_weights_apart_and_the_rest_are_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], ModelProto]
) -> None:
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    found, weights = load_apart(path)
    assert set(weights) == (
        {"spare0", "spare2", "spare5"} if make is many_weights else {"odd0", "odd5"}
    )
    assert not any(t.HasField("raw_data") for t in found.graph.initializer if t.name in weights)
    assert fill(found, weights) == onnx.load(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidModel, match=r"not an ONNX model, or cut short"):
        load_apart(path)


def test_a_name_that_two_weights_have_keeps_both_in_the_model(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    path.write_bytes(2 * path.read_bytes())
    assert load_apart(path) == (onnx.load(path), {})


def test_a_weight_that_states_its_values_twice_is_what_protobuf_reads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    weight = numpy_helper.from_array(np.arange(WHOLE, dtype=np.float32), "twice")
    twice = weight.SerializeToString() + TensorProto(raw_data=bytes(4 * WHOLE)).SerializeToString()
    graph = prefix(ModelProto().graph, "initializer", len(twice)) + twice
    path.write_bytes(path.read_bytes() + prefix(ModelProto(), "graph", len(graph)) + graph)
    found, weights = load_apart(path)
    assert set(weights) == {"spare0", "spare2", "spare5"}
    assert fill(found, weights) == onnx.load(path)


@pytest.mark.parametrize("length", [1, 127, 128, 2**14, 2**21])
def test_what_stands_before_a_field_is_what_protobuf_writes(length: int) -> None:
    found = prefix(ModelProto(), "doc_string", length) + length * b"a"
    assert found == ModelProto(doc_string=length * "a").SerializeToString()
