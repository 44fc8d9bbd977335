"""A node that contradicts itself is one line with its name and the shapes that it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import onnx
import pytest

from onnxprune.channels import find_groups, misfit, propagate
from onnxprune.errors import InvalidModel, InvalidOp
from onnxprune.graph import Graph
from onnxprune.ops import OPS, Axes, fit, op
from onnxprune.report import inspect
from tests.support.models import model

HEADER = '<ir_version: 8, opset_import: ["": 17, "own": 1]>'


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are what contradicts, as for whoever uses this package."""
    stumbles = (*fit.STUMBLES, *fit.OFTEN_OURS)
    monkeypatch.setattr(fit, "STUMBLES", stumbles)
    monkeypatch.setattr(propagate, "MISFITS", (*misfit.MISFITS, *stumbles))


def broken(body: str, constants: str = "", header: str = HEADER) -> onnx.ModelProto:
    """A convolution in front of some nodes that write y; what the checker says is not asked."""
    ones = ",".join("1" * 108)
    text = f"""{header}
    g (float[1,3,8,8] x) => (float[a,b,c,d] y) <float[4,3,3,3] w = {{{ones}}}{constants}> {{
      t = Conv(x, w)
      {body}
    }}"""
    return onnx.parser.parse_model(text)


OWN = """
g (float[1,3,8,8] x) => (float[a,b,c,d] y) <float[4,3,3,3] w> {
  t = Conv(x, w)
  y = own.Mistaken(t)
}
"""


BODIES = {
    "reshape": ("y = Reshape(t, s)", ", int64[2] s = {7, 11}"),
    "reshape twice free": ("y = Reshape(t, s)", ", int64[2] s = {-1, -1}"),
    "axes that are not": ("y = Transpose<perm=[0, 1, 2, 9]>(t)", ""),
    "too few axes": ("y = Transpose<perm=[0, 1]>(t)", ""),
    "sizes that differ": (
        "r = Relu(t) u = Transpose<perm=[1,0,2,3]>(r) y = Concat<axis=2>(t, u)",
        "",
    ),
    "an axis that is not": ("y = Concat<axis=7>(t, t)", ""),
    "indices that are not": ("y = Gather<axis=1>(t, s)", ", int64[2] s = {0, 99}"),
    "amounts for fewer axes": ("y = Pad(t, s)", ", int64[3] s = {0, 1, 0}"),
    "amounts that leave nothing": ("y = Pad(t, s)", ", int64[8] s = {0,-9,0,0,0,-9,0,0}"),
    "blocks that do not fit": ("y = DepthToSpace<blocksize=3>(t)", ""),
    "blocks of nothing": ("y = DepthToSpace<blocksize=0>(t)", ""),
    "blocks of space": ("y = SpaceToDepth<blocksize=5>(t)", ""),
    "a range of steps of 0": ("k = Range(s, s, s) y = Add(t, k)", ", int64 s = {0}"),
    "parts that do not add up": ("y, z = Split<axis=1>(t, s)", ", int64[2] s = {3, 3}"),
    "parts of a negative size": ("y, z = Split<axis=1>(t, s)", ", int64[2] s = {-3, 7}"),
    "steps of 0": ("y = Slice(t, s, s, a, s)", ", int64[1] s = {0}, int64[1] a = {1}"),
    "an axis to slice that is not": (
        "y = Slice(t, s, s, a)",
        ", int64[1] s = {0}, int64[1] a = {9}",
    ),
    "a weight of one axis": ("y = Conv(t, s)", ", float[4] s = {1, 1, 1, 1}"),
    "a weight of no axis": ("y = Conv(t, s)", ", float s = {1}"),
    "a weight of other channels": ("y = Conv(t, s)", ", float[2,3,1,1] s = {1, 1, 1, 1, 1, 1}"),
    "groups that do not divide": (
        "y = Conv<group=3>(t, s)",
        ", float[3,4,1,1] s = {1,1,1,1,1,1,1,1,1,1,1,1}",
    ),
    "groups of nothing": ("y = Conv<group=0>(t, s)", ", float[1,4,1,1] s = {1, 1, 1, 1}"),
    "a window of nothing": ("y = MaxPool<kernel_shape=[0, 0]>(t)", ""),
    "steps of a window of 0": ("y = MaxPool<kernel_shape=[2, 2], strides=[0, 0]>(t)", ""),
    "a window of three axes": ("y = MaxPool<kernel_shape=[2, 2, 2]>(t)", ""),
    "shapes that meet": ("y = Add(t, s)", ", float[5,1,1] s = {1, 1, 1, 1, 1}"),
    "a product that does not fit": ("y = MatMul(t, s)", ", float[5,1] s = {1, 1, 1, 1, 1}"),
    "axes to squeeze": ("y = Squeeze(t, s)", ", int64[1] s = {1}"),
    "axes to squeeze that are not": ("y = Squeeze(t, s)", ", int64[1] s = {-9}"),
    "axes to add": ("y = Unsqueeze(t, s)", ", int64[2] s = {1, 1}"),
    "sums over what is not": ("y = ReduceSum(t, s)", ", int64[1] s = {12}"),
    "copies": ("y = Tile(t, s)", ", int64[2] s = {2, -1}"),
    "an expansion": ("y = Expand(t, s)", ", int64[4] s = {1, 3, 6, 6}"),
    "places to write": ("y = ScatterND(t, s, t)", ", int64[1,1] s = {77}"),
    "a scale": ("y = Resize(t, , s)", ", float[2] s = {0, -1}"),
    "an attribute of another type": ("y = LeakyRelu<alpha=[1, 2]>(t)", ""),
    "an axis of another type": ('y = Concat<axis="one">(t, t)', ""),
    "a norm": ("y = BatchNormalization(t, s, s, s, s)", ", float[3] s = {1, 1, 1}"),
    "a norm of nothing": ("y = InstanceNormalization(t, s, s)", ", float[0] s = {}"),
    "inputs that are not": ("y = Add(t, )", ""),
    "no inputs": ("y = Concat<axis=1>()", ""),
    "an operator without inputs": ("y = Relu()", ""),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", BODIES)
def test_what_contradicts_itself_is_refused_or_stays(name: str) -> None:
    begun = time.process_time()
    try:
        inspect(broken(*BODIES[name]))
    except InvalidModel as error:
        assert str(error).isprintable()
        assert len(str(error)) < 700
    assert time.process_time() - begun < 5


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("indices that are not", r"Gather 'y': does not fit what it reads, 't' \[1, 4, 6, 6\]"),
        ("a weight of other channels", r"Conv 'y': does not fit what it reads, 't' \[1, 4, 6, 6\]"),
        ("a weight of one axis", r"Conv 'y'"),
    ],
)
def test_the_node_and_what_it_reads_are_named(name: str, said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        find_groups(Graph(broken(*BODIES[name])))


@pytest.fixture
def own() -> Iterator[str]:
    """An operator whose description has a mistake in it, and the graph of a model that has it."""

    @op("Mistaken", lambda site: {}[site.node.name], since=(1,), domain="own")
    def mistaken(x):
        return x

    yield OWN
    del OPS["own", "Mistaken"]


def test_the_tests_see_a_mistake_of_ours(own: str) -> None:
    with pytest.raises(KeyError):
        find_groups(Graph(model(own, header=HEADER)))


@pytest.mark.usefixtures("lenient")
def test_a_user_sees_a_line(own: str) -> None:
    with pytest.raises(
        InvalidModel, match=r"Mistaken 'y': does not fit what it reads, 't' \[1, 4, 6, 6\]"
    ):
        find_groups(Graph(model(own, header=HEADER)))


def test_a_pattern_that_does_not_fit_is_its_authors_mistake() -> None:
    @op("Mistaken", Axes("n c -> n c"), since=(1,), domain="own")
    def wrong(x):
        return x

    try:
        with pytest.raises(InvalidOp, match="its pattern names 2 axes"):
            find_groups(Graph(model(OWN, header=HEADER)))
    finally:
        del OPS["own", "Mistaken"]
