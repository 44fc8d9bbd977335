"""What a model leaves open stays open, though samples have one size: batch, height and width."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.masking import mask
from tests.support.models import relative_error, run

ASK: dict[str, Any] = {
    "control": "one-shot",
    "criterion": "magnitude",
    "compensate": "none",
    "rate": 0.5,
    "threads": 1,
}
SHAPE_OF_POOLED = """
  s = Shape(p)
  i = Constant<value_ints=[0]>()
  n = Gather(s, i)
"""

BATCH_IN_A_TARGET = f"""
g (float[N,3,H,W] x) => (float[N,4] y) {{
  c = Conv<pads=[1,1,1,1]>(x, w)
  p = GlobalAveragePool(c)
  {SHAPE_OF_POOLED}
  k = Concat<axis=0>(n, sixteen)
  r = Reshape(p, k)
  y = MatMul(r, v)
}}
"""
MINUS_ONE_AFTER_BATCH = BATCH_IN_A_TARGET.replace("sixteen", "minus_one")
ONLY_THE_BATCH = BATCH_IN_A_TARGET.replace("[N,3,H,W]", "[N,3,16,16]")

AREA_IN_A_TARGET = """
g (float[N,3,H,W] x) => (float[N,4,4] y) {
  c = Conv<pads=[1,1,1,1]>(x, w)
  d = Relu(c)
  s = Shape(d)
  i = Constant<value_ints=[0]>()
  h = Constant<value_ints=[2]>()
  j = Constant<value_ints=[3]>()
  n = Gather(s, i)
  a = Gather(s, h)
  b = Gather(s, j)
  area = Mul(a, b)
  k = Concat<axis=0>(n, sixteen, area)
  r = Reshape(d, k)
  t = Transpose<perm=[0,2,1]>(r)
  m = MatMul(t, v)
  q = Transpose<perm=[0,2,1]>(m)
  y = MatMul(q, m)
}
"""
CONSTANTS = {
    "sixteen": np.array([16]),
    "minus_one": np.array([-1]),
    "twice": np.array([1, 1, 2, 2], np.float32),
}


def built(text: str, **weights: tuple[int, ...]) -> ModelProto:
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    rng = np.random.default_rng(0)
    held = {name: value for name, value in CONSTANTS.items() if f"{name}" in text}
    held |= {name: rng.standard_normal(s).astype(np.float32) for name, s in weights.items()}
    for name, value in held.items():
        parsed.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(parsed, full_check=True)
    return parsed


# Takes sizes that are multiples of 64 only.
DEEP = """
g (float[N,3,H,W] x) => (float[N,8,L] y) {
  a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
  b = Conv<pads=[1,1,1,1], strides=[2,2]>(a, v)
  c = Conv<pads=[1,1,1,1], strides=[2,2]>(b, v)
  d = Conv<pads=[1,1,1,1], strides=[2,2]>(c, v)
  e = Conv<pads=[1,1,1,1], strides=[2,2]>(d, v)
  f = Conv<pads=[1,1,1,1], strides=[2,2]>(e, v)
  up = Resize<mode="nearest">(f, , twice)
  s = Add(up, e)
  t = Shape(s)
  i = Constant<value_ints=[0]>()
  h = Constant<value_ints=[2]>()
  j = Constant<value_ints=[3]>()
  n = Gather(t, i)
  p = Gather(t, h)
  q = Gather(t, j)
  area = Mul(p, q)
  k = Concat<axis=0>(n, sixteen, area)
  r = Reshape(s, k)
  o = Transpose<perm=[0,2,1]>(r)
  m = MatMul(o, u)
  y = Transpose<perm=[0,2,1]>(m)
}
"""


NETWORKS: dict[str, ModelProto] = {
    "batch in a target": built(BATCH_IN_A_TARGET, w=(16, 3, 3, 3), v=(16, 4)),
    "minus one after the batch": built(MINUS_ONE_AFTER_BATCH, w=(16, 3, 3, 3), v=(16, 4)),
    "only the batch": built(ONLY_THE_BATCH, w=(16, 3, 3, 3), v=(16, 4)),
    "area in a target": built(AREA_IN_A_TARGET, w=(16, 3, 3, 3), v=(16, 4)),
}


def sizes_of(proto: ModelProto, *others: int) -> list[tuple[int, int, int]]:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    fixed = dims[2].dim_value
    return [
        (n, h, w) for n in (1, 2, 5) for h in others for w in others if fixed in (0, h == w and h)
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("samples", [1, 6])
def test_what_was_open_stays_open(name: str, samples: int) -> None:
    check(NETWORKS[name], samples, 16, (16, 24, 40))


@pytest.mark.parametrize("samples", [1, 6])
def test_sizes_that_a_network_takes_in_steps_stay_open(samples: int) -> None:
    check(built(DEEP, w=(16, 3, 3, 3), v=(16, 16, 3, 3), u=(16, 8)), samples, 64, (64, 128, 192))


def check(proto: ModelProto, samples: int, size: int, others: tuple[int, ...]) -> None:
    """Prune with samples of one size, and hold the result against the masked model at others."""
    x = np.random.default_rng(1).standard_normal((samples, 3, size, size)).astype(np.float32)
    y = np.zeros(samples, np.int64)
    metric = "tests.test_open_axes:some"
    result = onnxprune.prune(proto, (x, y), metric=metric, **ASK)
    graph = Graph(proto, input_shapes={"x": (1, 3, size, size)})
    groups = find_groups(graph)
    zeroed = mask(graph, groups, result.plan.dead(groups))
    for n, h, w in sizes_of(proto, *others):
        feed = np.random.default_rng(2).standard_normal((n, 3, h, w)).astype(np.float32)
        (found,), (wanted,) = run(result.model, feed), run(zeroed, feed)
        assert found.shape == wanted.shape
        assert relative_error(found, wanted) < 1e-5
    declared = result.model.graph.input[0].type.tensor_type.shape.dim
    before = proto.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in declared] == [d.dim_param for d in before]


def some(outputs: Any, targets: Any) -> Any:
    """Any output is right: what is asked is which sizes a result takes."""
    return np.ones(int(targets.max()) + 1)
