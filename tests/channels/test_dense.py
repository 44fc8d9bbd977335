"""Units of dense layers and inner widths of attention go on request, exactly."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.data import Data
from onnxprune.errors import InvalidModel, UnknownName
from onnxprune.graph import Graph
from onnxprune.relevance import CRITERIA, score
from onnxprune.surgery import count, find_costs, mask, remove_channels
from tests.support.halves import half
from tests.support.models import images, model, relative_error, run

EXACT = 1e-5
"""Relative, in single precision."""
ALSO = ("dense",)

MLP = """
g (float[N,6] x) => (float[N,3] y)
<float[8,6] v, float[8] b, float[8,5] w, float[5] c, float[5,3] u> {
  a = Gemm<transB=1, alpha=0.5, beta=2.0>(x, v, b)
  r = Relu(a)
  m = MatMul(r, w)
  d = Add(m, c)
  t = Tanh(d)
  y = Gemm(t, u)
}
"""
"""Two hidden layers of 8 and 5 units, written in both ways."""

NORMALISED = """
g (float[N,6] x) => (float[N,3] y)
<float[6,8] v, float[8] k, float[8] o, float[8,5] w, float[5] s, float[5] h, float[5] m,
 float[5] var, float[5,3] u> {
  a = Gemm(x, v)
  l = LayerNormalization(a, k, o)
  d = Gemm(l, w)
  n = BatchNormalization(d, s, h, m, var)
  r = Relu(n)
  y = Gemm(r, u)
}
"""
"""8 units that a layer normalisation needs, 5 that a batch normalisation does not."""

TIED = """
g (float[N,3,4,4] x) => (float[N,2] y)
<float[6,3,1,1] w, float[6,4] s, float[4,6] e, float[6,7] v, float[7,6] u, float[6,2] z> {
  a = Conv(x, w)
  p = GlobalAveragePool(a)
  f = Flatten(p)
  q = Gemm(f, s)
  r = Relu(q)
  g = Gemm(r, e)
  i = Gemm(f, v)
  j = Relu(i)
  k = Gemm(j, u)
  t = Mul(f, g)
  o = Add(t, k)
  y = MatMul(o, z)
}
"""
"""A gate and a residual sum on a vector: hidden layers of 4 and 7 units, and 6 tied to filters."""

TOKENS = """
g (float[N,3,4,4] x) => (float[N,2] y)
<float[6,3,1,1] w, float[6] k, float[6] o, float[6,8] v, float[8] b, float[8,6] u, float[6,2] z> {
  a = Conv(x, w)
  t = Transpose<perm=[0,2,3,1]>(a)
  l = LayerNormalization(t, k, o)
  s = Constant<value_ints=[-1,6]>()
  f = Reshape(l, s)
  h = Gemm(f, v, b)
  r = Relu(h)
  m = Gemm(r, u)
  q = Constant<value_ints=[-1,4,4,6]>()
  i = Reshape(m, q)
  j = Add(i, l)
  e = ReduceMean<axes=[1,2], keepdims=0>(j)
  y = MatMul(e, z)
}
"""
"""A block whose dense layers read tokens one under another."""

SPLIT = """
g (float[N,4,6] x) => (float[N,4,6] y)
<float[6,12] wq, float[12] bq, float[6,12] wk, float[12] bk, float[6,12] wv, float[12] bv,
 float[12,6] wo, float scale> {
  q = MatMul(x, wq)
  qb = Add(q, bq)
  k = MatMul(x, wk)
  kb = Add(k, bk)
  v = MatMul(x, wv)
  vb = Add(v, bv)
  s = Constant<value_ints=[0,4,3,4]>()
  qs = Reshape(qb, s)
  ks = Reshape(kb, s)
  vs = Reshape(vb, s)
  qh = Transpose<perm=[0,2,1,3]>(qs)
  kh = Transpose<perm=[0,2,3,1]>(ks)
  vh = Transpose<perm=[0,2,1,3]>(vs)
  l = MatMul(qh, kh)
  ls = Mul(l, scale)
  p = Softmax<axis=-1>(ls)
  h = MatMul(p, vh)
  t = Transpose<perm=[0,2,1,3]>(h)
  f = Constant<value_ints=[0,4,12]>()
  c = Reshape(t, f)
  y = MatMul(c, wo)
}
"""
"""Three heads of 4: queries and keys are tied, and values and what reads them."""

PACKED = """
g (float[N,4,6] x) => (float[N,4,6] y) <float[6,36] w, float[36] b, float[12,6] wo, float scale> {
  a = MatMul(x, w)
  ab = Add(a, b)
  s = Constant<value_ints=[0,4,3,3,4]>()
  r = Reshape(ab, s)
  t = Transpose<perm=[2,0,3,1,4]>(r)
  q3, k3, v3 = Split<axis=0>(t)
  ax = Constant<value_ints=[0]>()
  q = Squeeze(q3, ax)
  k = Squeeze(k3, ax)
  v = Squeeze(v3, ax)
  qs = Mul(q, scale)
  kt = Transpose<perm=[0,1,3,2]>(k)
  l = MatMul(qs, kt)
  p = Softmax<axis=-1>(l)
  h = MatMul(p, v)
  u = Transpose<perm=[0,2,1,3]>(h)
  f = Constant<value_ints=[0,4,12]>()
  c = Reshape(u, f)
  y = MatMul(c, wo)
}
"""
"""The same in one layer: a channel is a place in each head of queries, keys and values."""

EINSUM = SPLIT.replace(
    "kh = Transpose<perm=[0,2,3,1]>(ks)\n", "kh = Transpose<perm=[0,2,1,3]>(ks)\n"
).replace("l = MatMul(qh, kh)", 'l = Einsum<equation="nhle,nhse->nhls">(qh, kh)')

SIGMOID = SPLIT.replace("Softmax<axis=-1>", "Sigmoid")
"""Biases of a query and a key that is gone would not cancel."""

NETS = {
    "mlp": (MLP, 13),
    "normalised": (NORMALISED, 5),
    "tied": (TIED, 4 + 7 + 6),
    "tokens": (TOKENS, 8),
    "split": (SPLIT, 8),
    "packed": (PACKED, 4),
    "einsum": (EINSUM, 8),
    "sigmoid": (SIGMOID, 8),
}
"""Networks, and how many channels may go."""


def analysed(text: str) -> tuple[Graph, ChannelGroups]:
    graph = Graph(model(text))
    return graph, find_groups(graph, also=ALSO)


def assert_exact(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> None:
    """Pruned is masked, and what is left is what was announced."""
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    assert find_costs(graph, groups).of(dead) == count(Graph(small), also=ALSO)
    for batch in (1, 3):
        x = images(graph.model, batch)
        for found, expected in zip(run(small, x), run(zeroed, x), strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < EXACT


@pytest.mark.parametrize("name", NETS)
def test_pruned_is_masked(name: str) -> None:
    text, removable = NETS[name]
    graph, groups = analysed(text)
    assert int(groups.removable.sum()) == removable
    for seed in range(3):
        dead = half(groups, seed)
        assert dead.any()
        assert_exact(graph, groups, dead)


@pytest.mark.parametrize("name", ["tied", "tokens"])
def test_without_the_option_units_stay(name: str) -> None:
    graph, asked = analysed(NETS[name][0])
    groups = find_groups(graph)
    assert not any(filters.dense for filters in groups.filters)
    assert groups.unit_count.sum() == 0
    assert {f.node for f in asked.filters if not f.dense} == {f.node for f in groups.filters}
    assert "units" not in find_costs(graph, groups).of().figures()


def test_inner_widths_of_attention_stay_without_the_option() -> None:
    graph = Graph(model(SPLIT))
    assert not find_groups(graph).removable.any()
    assert find_groups(graph, also=ALSO).removable.sum() == 8


def test_a_layer_normalisation_keeps_the_units_before_it() -> None:
    _, groups = analysed(NORMALISED)
    kept = {filters.node: filters for filters in groups.filters}["a"]
    reasons = {groups.reasons[channel].text for channel in kept.channels.tolist()}
    assert all("statistics span these channels" in reason for reason in reasons)
    assert (groups.reasons[int(kept.channels[0])].lift) == "layernormalization"


def test_units_of_the_output_stay() -> None:
    _, groups = analysed(MLP)
    last = groups.filters[-1]
    assert not groups.removable[last.channels].any()
    assert str(groups.reasons[int(last.channels[0])]) == "is the graph output 'y'"


def test_a_product_with_a_vector_has_no_units() -> None:
    text = "g (float[N,4,6] x) => (float[N,4] y) <float[6] v> { y = MatMul(x, v) }"
    graph = Graph(model(text))
    assert graph.filter_axis(graph.nodes[0], dense=True) is None


def test_filters_and_units_are_counted_apart() -> None:
    graph, groups = analysed(TIED)
    full = find_costs(graph, groups).of()
    assert full.filters == 6
    assert full.units == 4 + 6 + 7 + 6 + 2
    dead = np.zeros(len(groups), np.bool_)
    dead[0] = True  # a filter, with a unit of the gate and one of the residual
    assert groups.filter_count[0] == 3
    assert groups.unit_count[0] == 2
    left = find_costs(graph, groups).of(dead)
    assert (left.filters, left.units) == (5, full.units - 2)


def arrays(proto: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_a_unit_takes_its_column_and_the_row_that_reads_it() -> None:
    graph, groups = analysed(MLP)
    dead = np.zeros(len(groups), np.bool_)
    dead[[1, 4, 8]] = True  # units 1 and 4 of the first layer, unit 0 of the second
    before, found = arrays(graph.model), arrays(remove_channels(graph, groups, dead))
    first, second = np.delete(np.arange(8), [1, 4]), np.arange(1, 5)
    np.testing.assert_array_equal(found["v"], before["v"][first])
    np.testing.assert_array_equal(found["b"], before["b"][first])
    np.testing.assert_array_equal(found["w"], before["w"][first][:, second])
    np.testing.assert_array_equal(found["c"], before["c"][second])
    np.testing.assert_array_equal(found["u"], before["u"][second])


@pytest.mark.parametrize("name", ["split", "einsum", "sigmoid"])
def test_a_masked_product_is_one_of_queries_that_are_zero(name: str) -> None:
    """By hand: a query that is 0 adds nothing to any product, whatever its bias was."""
    graph, groups = analysed(NETS[name][0])
    queries = {filters.node: filters.channels for filters in groups.filters}["q"]
    dead = np.zeros(len(groups), np.bool_)
    dead[queries[2]] = True
    places = np.flatnonzero(dead[queries])
    assert places.tolist() == [2, 6, 10]  # the same place in each head
    zero = ModelProto()
    zero.CopyFrom(graph.model)
    for tensor in zero.graph.initializer:
        if tensor.name in ("wq", "bq"):
            array = numpy_helper.to_array(tensor).copy()
            array[..., places] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = images(zero, 2)
    expected = run(zero, x)[0]
    for found in (mask(graph, groups, dead), remove_channels(graph, groups, dead)):
        assert relative_error(run(found, x)[0], expected) < EXACT


CONVOLUTIONS = """
g (float[N,6,1,1] x) => (float[N,3] y)
<float[8,6,1,1] v, float[8] b, float[5,8,1,1] w, float[5] c, float[3,5,1,1] u> {
  a = Conv(x, v, b)
  r = Relu(a)
  d = Conv(r, w, c)
  t = Relu(d)
  o = Conv(t, u)
  y = Flatten(o)
}
"""
PRODUCTS = """
g (float[N,6] x) => (float[N,3] y)
<float[8,6] v, float[8] b, float[8,5] w, float[5] c, float[3,5] u> {
  a = Gemm<transB=1>(x, v, b)
  r = Relu(a)
  m = MatMul(r, w)
  d = Add(m, c)
  t = Relu(d)
  y = Gemm<transB=1>(t, u)
}
"""
"""The same function."""


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"batchnorm-scale"}))
def test_units_score_as_the_filters_of_the_same_net(criterion: str) -> None:
    """On samples those of the first layer: in the second the bias is a node of its own."""
    one, other = model(CONVOLUTIONS), model(PRODUCTS)
    given = arrays(one)
    for tensor in other.graph.initializer:
        array = given[tensor.name].reshape(given[tensor.name].shape[:2])
        array = np.ascontiguousarray(array.T if tensor.name == "w" else array)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = images(one, 12)
    np.testing.assert_allclose(run(one, x)[0], run(other, x[..., 0, 0])[0], rtol=1e-4, atol=1e-5)
    tables = []
    for proto, pixels in ((one, x), (other, x[..., 0, 0])):
        graph = Graph(proto)
        data = Data(pixels, np.arange(12) % 3, ("a", "b", "c"))
        groups = find_groups(graph, also=ALSO)
        values = score(graph, groups, data, criterion, device="cpu").values
        tables.append(values[:, : 8 if CRITERIA[criterion].needs_samples else 13])
    assert tables[0].any()
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-3, atol=1e-6)


def test_magnitude_reads_the_columns_of_a_square_weight() -> None:
    """What a residual layer reads and what it writes are the same channels."""
    square = """
    g (float[N,6] x) => (float[N,3] y) <float[6,4] v, float[4,4] w, float[4,3] u> {
      a = MatMul(x, v)
      r = Relu(a)
      m = MatMul(r, w)
      s = Add(m, a)
      y = MatMul(s, u)
    }
    """
    graph, groups = analysed(square)
    weights = arrays(graph.model)
    norms = [np.linalg.norm(weights[name], axis=0) for name in ("v", "w")]
    expected = sum(norm / np.linalg.norm(norm) for norm in norms)
    found = score(graph, groups, criterion="magnitude").values[0]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-6)


def test_a_net_without_convolutions_needs_the_option() -> None:
    with pytest.raises(InvalidModel, match="its dense layers are pruned with --also dense"):
        find_groups(Graph(model(MLP)))


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"also 'dens': .*did you mean 'dense'"):
        find_groups(Graph(model(MLP)), also=("dens",))
