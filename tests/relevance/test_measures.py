"""What a filter is measured by, judged by torch in double precision."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from onnxprune.channels.groups import find_groups
from onnxprune.data import Data
from onnxprune.errors import UnsupportedOp
from onnxprune.graph.graph import Graph
from onnxprune.relevance.criteria import score
from onnxprune.relevance.measures import BLOCK, batchnorm_scale, gradient, magnitude
from onnxprune.relevance.mirror import Mirror
from tests.support.models import images, model

TYPES = ["FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE", "INT8"]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", TYPES)
def test_magnitude_is_exact_for_weights_of_every_type(name: str, order: int) -> None:
    """Several blocks of filters, the last one smaller; squares of float16 would overflow."""
    rng = np.random.default_rng(0)
    plain = rng.integers(-127, 128, (7, BLOCK // 3)) / (1 if name == "INT8" else 3)
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))
    weight = numpy_helper.to_array(numpy_helper.from_array(plain.astype(kind)))
    assert weight.dtype == kind
    exact = torch.tensor(weight.tolist(), dtype=torch.float64)
    expected = torch.linalg.vector_norm(exact, order, dim=1)
    np.testing.assert_allclose(magnitude(weight, rng, order=order), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, BLOCK + 5), (BLOCK + 1, 1), (3, 0)])
def test_magnitude_takes_layers_of_every_shape(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape).astype(np.float32)
    found = magnitude(weight, rng)
    np.testing.assert_allclose(found, np.sqrt((weight.astype(np.float64) ** 2).sum(1)), rtol=1e-12)


@pytest.mark.parametrize("criterion", ["taylor", "gradient"])
def test_where_values_are_rounded_no_gradient_comes_through(criterion: str) -> None:
    proto = model("""
    net (float[N,3,8,8] x) => (float[N,3] y)
    <float[4,3,3,3] w, float s = {0.1}, int8 z = {0}, float[4,3] v> {
      a = Conv(x, w)
      q = QuantizeLinear(a, s, z)
      d = DequantizeLinear(q, s, z)
      p = GlobalAveragePool(d)
      f = Flatten(p)
      y = MatMul(f, v)
    }
    """)
    graph = Graph(proto)
    data = Data(images(proto, 4), np.array([0, 1, 2, 0]), ("cat", "dog", "ship"))
    with pytest.raises(UnsupportedOp, match=r"^graph 'net': no gradient comes from 'y' to a conv"):
        score(graph, find_groups(graph), data, criterion, device="cpu")


def test_the_loss_of_a_map_is_the_mean_over_its_classes_of_their_pixels_mean() -> None:
    proto = model("""
    net (float[N,3,5,6] x) => (float[N,3,5,6] y) <float[4,3,1,1] w, float[3,4,1,1] v> {
      a = Conv(x, w)
      y = Conv(a, v)
    }
    """)
    mirror = Mirror(Graph(proto), device="cpu", dtype=torch.float64)
    x, rng = images(proto, 4), np.random.default_rng(0)
    maps = torch.from_numpy(rng.choice([0, 1, 2, 2, 2, 2, 255], (4, 5, 6)))
    w, v = (torch.tensor(mirror.graph.constant(name), dtype=torch.float64) for name in "wv")
    a = functional.conv2d(torch.from_numpy(x).double(), w).requires_grad_()
    losses = functional.cross_entropy(
        functional.conv2d(a, v), maps, ignore_index=255, reduction="none"
    )
    loss = torch.zeros((), dtype=torch.float64)
    for one, labels in zip(losses, maps, strict=True):
        present = [k for k in range(3) if (labels == k).any()]
        loss = loss + sum(one[labels == k].mean() for k in present) / len(present)
    (expected,) = torch.autograd.grad(loss, a)
    found = gradient(mirror, x, maps, {"a": 1})["a"]
    torch.testing.assert_close(found, expected.sum((2, 3)), rtol=1e-5, atol=1e-9)


def test_a_normalisation_beside_another_reader_gives_no_scale() -> None:
    text = """
    net (float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[4,3,1,1] w, float[4] s, float[4] o, float[4] m, float[4] var> {
      a = Conv(x, w)
      n = BatchNormalization(a, s, o, m, var)
      y = Add(a, n)
    }
    """
    graph = Graph(model(text))
    (filters,) = find_groups(graph).filters
    assert [node.op_type for node in graph.consumers["a"]] == ["BatchNormalization", "Add"]
    assert batchnorm_scale(graph, filters) is None


def test_the_scale_of_a_normalisation_counts_without_its_sign() -> None:
    text = """
    net (float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[4,3,1,1] w, float[4] s = {0.5,-2.0,-0.25,1.0}, float[4] o, float[4] m, float[4] var> {
      a = Conv(x, w)
      y = BatchNormalization(a, s, o, m, var)
    }
    """
    graph = Graph(model(text))
    (filters,) = find_groups(graph).filters
    found = batchnorm_scale(graph, filters)
    assert found is not None
    assert found.tolist() == [0.5, 2.0, 0.25, 1.0]
