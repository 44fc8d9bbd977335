"""Weights apart from the message: what is read, cut and written so is what the message gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel
from onnxprune.graph import copied, large_weights, storage, wire
from onnxprune.graph.graph import Graph
from onnxprune.graph.large_weights import Weight
from onnxprune.graph.storage import digest, load_apart, load_model, save_model
from onnxprune.relevance.criteria import score
from onnxprune.run import apply, apply_to
from onnxprune.search.plan import Plan
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels, remove_channels_apart
from tests.support.models import model

TEXT = """
g (float[N,3,8,8] x) => (float[N,10] y)
  <float[64,3,3,3] w, float[64] b, float[48,64,3,3] v, float[10,3072] m, float16[50,50] spare> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, v)
  d = Flatten(c)
  y = Gemm<transB=1>(d, m)
}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose every large weight is read apart."""
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    monkeypatch.setattr(wire, "WHOLE", 100)
    monkeypatch.setattr(large_weights, "PIECE", 500)
    proto = model(TEXT)
    for tensor in proto.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
    proto.graph.initializer[2].metadata_props.add(key="of", value="the second")
    return save_model(proto, tmp_path / "model.onnx")


def halves(graph: Graph) -> tuple[ModelProto, ModelProto, large_weights.Weights]:
    """What is left in memory and apart when every second channel goes."""
    groups = find_groups(graph)
    dead = groups.removable & (np.arange(len(groups)) % 2 == 0)
    assert dead.sum() > 40
    return remove_channels(graph, groups, dead), *remove_channels_apart(graph, groups, dead)


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    kind=st.sampled_from(sorted(large_weights.AS_THEY_LIE.values())),
    piece=st.integers(1, 200),
    seed=st.integers(0, 2**16),
)
def test_pieces_are_the_values_that_are_kept(
    shape: list[int], kind: str, piece: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(kind)
    kept = {axis: rng.random(n) < 0.6 for axis, n in enumerate(shape) if rng.random() < 0.6}
    expected = values[np.ix_(*(kept.get(axis, np.arange(n)) for axis, n in enumerate(shape)))]
    weight = Weight(lambda: values, kept)
    np.testing.assert_array_equal(weight.array(), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_weights, "PIECE", piece)
        assert b"".join(weight.pieces()) == weight.raw() == expected.tobytes()


def test_a_graph_with_weights_apart_is_the_graph_of_the_model(path: Path) -> None:
    apart, plain = Graph.load(path), Graph(load_model(path))
    assert set(apart.weights) == {"w", "v", "m", "spare"}
    assert not plain.weights
    assert apart.model == plain.model == onnx.load(path)
    for name in plain.constant_tensors:
        np.testing.assert_array_equal(apart.constant(name), plain.constant(name))
        assert not apart.constant(name).flags.writeable
    found, expected = (score(g, find_groups(g), None, "magnitude").total() for g in (apart, plain))
    np.testing.assert_array_equal(found, expected)


def test_weights_of_a_second_file_stay_there(path: Path, tmp_path: Path) -> None:
    whole = load_model(path)
    beside = save_model(whole, tmp_path / "beside.onnx", limit=1000)
    graph = Graph.load(beside)
    assert set(graph.weights) == {"w", "v", "m", "spare"}
    assert not any(t.raw_data for t in graph.bare.graph.initializer if t.name in graph.weights)
    assert all(isinstance(one.read().base, np.memmap) for one in graph.weights.values())
    assert graph.model == load_model(beside)
    for name in graph.weights:
        np.testing.assert_array_equal(graph.constant(name), Graph(whole).constant(name))
    for found, expected in zip(halves(graph)[:1], halves(Graph(whole))[:1], strict=True):
        assert digest(found) == digest(sorted_as(expected, found))
    (data,) = tmp_path.glob("beside.onnx.*.data")
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(InvalidModel):
        Graph.load(beside)


def sorted_as(model: ModelProto, other: ModelProto) -> ModelProto:
    """The same model with its initializers in the order of another one."""
    own = {tensor.name: tensor for tensor in model.graph.initializer}
    found = copied(model)
    del found.graph.initializer[:]
    found.graph.initializer.extend(own[tensor.name] for tensor in other.graph.initializer)
    return found


def test_what_is_pruned_apart_is_what_is_pruned_in_memory(path: Path, tmp_path: Path) -> None:
    expected, plain, left = halves(Graph(load_model(path)))
    assert all(t.doc_string == f"about {t.name}" for t in expected.graph.initializer)
    assert set(left) == {"v", "m"}  # of w, fewer than a thousand elements are left
    for found, bare, apart in ((expected, plain, left), halves(Graph.load(path))):
        assert found == expected
        assert not any(t.raw_data for t in bare.graph.initializer if t.name in apart)
        small = save_model(bare, tmp_path / "small.onnx", weights=apart)
        assert small.read_bytes() == save_model(expected, tmp_path / "whole.onnx").read_bytes()
        save_model(bare, tmp_path / "small.onnx", weights=apart, limit=1000)
        save_model(expected, tmp_path / "whole.onnx", limit=1000)
        (data,) = tmp_path.glob("whole.onnx.*.data")
        (own,) = tmp_path.glob("small.onnx.*.data")
        assert own.read_bytes() == data.read_bytes()


@pytest.mark.parametrize("alive", [True, False])
def test_masks_and_copies_are_those_of_the_model(path: Path, alive: bool) -> None:
    found, expected = Graph.load(path), Graph(load_model(path))
    groups = find_groups(expected)
    dead = groups.removable & (np.arange(len(groups)) % 3 == 0) & alive
    assert mask(found, groups, dead) == mask(expected, groups, dead)
    assert remove_channels(found, groups, dead) == remove_channels(expected, groups, dead)


@pytest.mark.parametrize("masked", [True, False])
def test_a_plan_is_applied_from_file_to_file_as_in_memory(
    path: Path, tmp_path: Path, masked: bool
) -> None:
    groups = find_groups(Graph.load(path))
    plan = Plan.of(groups, groups.removable & (np.arange(len(groups)) % 2 == 0))
    expected = apply(load_model(path), plan, masked=masked)
    assert apply(path, plan, masked=masked) == expected
    assert (
        load_model(apply_to(path, path, plan, masked=masked)) == expected
    )  # over the model itself


def test_a_weight_cut_short_is_refused_and_nothing_is_written(path: Path, tmp_path: Path) -> None:
    groups = find_groups(Graph.load(path))
    plan = Plan.of(groups, groups.removable & (np.arange(len(groups)) % 2 == 0))
    proto = load_model(path)
    weight = next(t for t in proto.graph.initializer if t.name == "m")
    weight.raw_data = weight.raw_data[:-40]
    path.write_bytes(proto.SerializeToString())
    assert "m" not in load_apart(path)[1]
    before = set(tmp_path.iterdir())
    with pytest.raises(InvalidModel, match="weight 'm': its values do not fill its shape"):
        apply_to(tmp_path / "small.onnx", path, plan)
    assert set(tmp_path.iterdir()) == before


def test_a_vector_that_nodes_share_is_found_under_its_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    text = "g (float[N,20000] x) => (float[N,20000] y) { a = Add(x, b) y = Mul(a, b) }"
    values = np.arange(20_000, dtype=np.float32)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    proto.graph.initializer.append(numpy_helper.from_array(values, "b"))
    graph = Graph.load(save_model(proto, tmp_path / "model.onnx"))
    assert set(graph.weights) == {"b"}
    for name in ("b", *graph.aliases):
        np.testing.assert_array_equal(graph.constant(name), values)
    assert len(graph.aliases) == 1
