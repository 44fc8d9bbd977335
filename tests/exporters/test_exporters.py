"""Graphs as other frameworks export them: every filter may go, and pruned equals masked.

What differs from PyTorch's: images channels last, with Transposes around every convolution or
pushed elsewhere; Flatten behind height, width and channels; normalisation as Mul and Add; padding
as an attribute, or as a Pad; shapes computed at run time; operators as old as opset 7; declared
shapes that are wrong. Each graph was written by the exporter that its first line names, at small
widths, and comes without weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.halving import EXACT, ORDERS, half_of_every_group, order_of
from tests.support.models import relative_error, run

Array = npt.NDArray[np.float32]
HERE = Path(__file__).parent

OUTPUTS = {"keras_segment": 4, "keras_upsample": 4, "keras_torch_upsample": 4}
"""Filters that are the classes of an output map: they stay. All others may go."""

SIZES = (16, 24)
"""Pixels, for graphs that leave the size open."""

GRAPHS = sorted(path.stem for path in HERE.glob("*.onnxtxt"))


def load(name: str) -> ModelProto:
    """Read a graph and fill in weights that keep the size of what passes (He et al. 2015)."""
    proto = onnx.parser.parse_model((HERE / f"{name}.onnxtxt").read_text())
    rng = np.random.default_rng(0)
    written = {output for node in proto.graph.node for output in node.output}
    given = {tensor.name for tensor in proto.graph.initializer}
    declared = list(proto.graph.value_info)
    del proto.graph.value_info[:]
    for value in declared:
        if value.name in written:
            proto.graph.value_info.append(value)
        elif value.name not in given:
            proto.graph.initializer.append(numpy_helper.from_array(weight(value, rng), value.name))
    if proto.ir_version < 4:  # there, constants are inputs too
        proto.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in proto.graph.initializer
        )
    return proto


def weight(value: ValueInfoProto, rng: np.random.Generator) -> Array:
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if value.name.startswith("positive_"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if sum(n > 1 for n in shape) < 2:
        return rng.normal(0, 0.3, shape).astype(np.float32)
    inputs = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
    return rng.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


def feeds(proto: ModelProto) -> Iterator[Array]:
    """Images: batches of 1 and 3, and of another size, where these are open."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    (image,) = [value for value in proto.graph.input if value.name not in constants]
    sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    for batch in (1, 3) if sizes[0] == 0 else (sizes[0],):
        for size in SIZES if 0 in sizes[1:] else (0,):
            shape = (batch, *(n or size for n in sizes[1:]))
            yield rng.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module", params=GRAPHS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def proto(name: str) -> ModelProto:
    return load(name)


def test_every_filter_may_go_but_those_of_an_output(name: str, proto: ModelProto) -> None:
    widths = {t.name: t.dims for t in proto.graph.initializer}
    filters = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            shape = widths[node.input[1]]
            filters += shape[0] if node.op_type == "Conv" else shape[1] * group
    groups = find_groups(Graph(proto))
    convolved = [f.channels for f in groups.filters if len(widths.get(f.weight, ())) > 2]
    found = sum(int(groups.removable[channels].sum()) for channels in convolved)
    assert filters > 0
    assert found == filters - OUTPUTS.get(name, 0), set(groups.reasons.values())


@pytest.mark.parametrize("order", ORDERS)
def test_half_of_the_filters_can_go(proto: ModelProto, order: str) -> None:
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = half_of_every_group(groups, order_of(graph, groups, order, seed=0))
    assert dead.sum() >= groups.removable.sum() // 3
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    assert small.ByteSize() < proto.ByteSize()
    for x in feeds(proto):
        (found,), (wanted,), (before,) = run(small, x), run(zeroed, x), run(proto, x)
        assert np.isfinite(wanted).all()
        assert relative_error(found, wanted) < EXACT
        assert relative_error(wanted, before) > 1e-3


@pytest.mark.parametrize("name", [name for name in GRAPHS if name.startswith("jax")])
def test_what_is_declared_of_the_pruned_graph_is_true(name: str) -> None:
    graph = Graph(load(name))
    groups = find_groups(graph)
    order = order_of(graph, groups, "random", seed=0)
    small = remove_channels(graph, groups, half_of_every_group(groups, order))
    bare = ModelProto()
    bare.CopyFrom(small)
    del bare.graph.value_info[:]
    inferred = {v.name: sizes(v) for v in onnx.shape_inference.infer_shapes(bare).graph.value_info}
    declared = {
        v.name: sizes(v)
        for v in small.graph.value_info
        if v.name in inferred and v.type.tensor_type.HasField("shape")
    }
    assert declared
    for tensor, found in declared.items():
        pairs = zip(found, inferred[tensor], strict=True)
        assert all(n == m for n, m in pairs if n and m), tensor


def sizes(value: ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
