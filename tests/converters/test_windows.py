"""Pools over windows of all axes become such that onnxruntime computes them, and the same."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from onnxprune.converters._windows import pool_few_axes


def windows(
    pool: str, kernel: Sequence[int], front: str = "1, 1", more: str = "", opset: int = 17
) -> ModelProto:
    """A pool with a spatial axis for each number of the kernel."""
    sizes = ", ".join("6" for _ in kernel)
    rest = ", ".join("b" for _ in kernel)
    text = (
        f'<ir_version: 8, opset_import: ["": {opset}]> g (float[{front}, {sizes}] x) '
        f"=> (float[{front}, {rest}] y) <float z = {{0}}> {{ u = Add(x, z) "
        f"p = {pool}<kernel_shape={list(kernel)}, strides={list(kernel)}{more}>(u) "
        "y = Identity(p) }"
    )
    model: ModelProto = onnx.parser.parse_model(text)
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    return model


def computed(model: ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "kernel", [(1, 2, 2, 1), (1, 1, 2, 3), (1, 3, 1, 1), (2, 1, 1, 2), (1, 2, 3, 2, 1)]
)
def test_they_compute_the_same(pool: str, kernel: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, *[6] * len(kernel))).astype(np.float32)
    count = len(kernel)
    pads = [int(size > 1) for size in kernel] + [0] * count
    model = windows(pool, kernel, more=f", pads={pads}")
    padded = np.pad(
        x, [(0, 0), (0, 0), *((size, 0) for size in pads[:count])], constant_values=np.nan
    )
    seen = np.lib.stride_tricks.sliding_window_view(padded, (1, 1, *kernel))
    seen = seen[(slice(None), slice(None), *(slice(None, None, size) for size in kernel))]
    over = tuple(range(-count - 2, 0))
    expected = (np.nanmax if pool == "MaxPool" else np.nanmean)(seen, axis=over)
    found = computed(pool_few_axes(model), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("front", "kernel", "opset"),
    [("1, 1", (2, 2, 1), 17), ("2, 3", (1, 2, 2, 1), 17), ("1, 1", (2, 2, 2, 1), 17)],
)
def test_others_stay_as_they_are(front: str, kernel: tuple[int, ...], opset: int) -> None:
    model = windows("MaxPool", kernel, front, opset=opset)
    before = model.SerializeToString()
    assert pool_few_axes(model).SerializeToString() == before


def summed(pads: str, weights: str = "0.5, 0.5, 0.5, 0.5") -> ModelProto:
    """A convolution over windows of 2 x 2, along four axes."""
    model: ModelProto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 2, 6, 6, 3] x) '
        f"=> (float[1, 1, a, b, c, d] y) <float[1, 1, 1, 2, 2, 1] w = {{{weights}}}> "
        f"{{ u = Identity(x) y = Conv<strides=[1, 2, 2, 1], pads=[{pads}]>(u, w) }}"
    )
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    return model


@pytest.mark.parametrize("pads", ["0, 0, 0, 0, 0, 0, 0, 0", "0, 1, 0, 0, 0, 1, 1, 0"])
def test_a_sum_over_windows_is_an_average_times_their_size(pads: str) -> None:
    model = summed(pads)
    x = np.random.default_rng(0).standard_normal((1, 1, 2, 6, 6, 3)).astype(np.float32)
    expected = computed(model, x)
    found = pool_few_axes(model)
    assert [node.op_type for node in found.graph.node].count("Conv") == 0
    np.testing.assert_allclose(computed(found, x), expected, rtol=1e-6, atol=1e-6)
    kernels = [
        one.ints for node in found.graph.node for one in node.attribute if "kernel" in one.name
    ]
    assert [list(one) for one in kernels] == [[2, 2]]


@pytest.mark.parametrize(
    ("pads", "weights"),
    [("0, 0, 0, 0, 0, 0, 0, 0", "0.5, 0.5, 0.5, 0.25"), ("1, 0, 0, 0, 0, 0, 0, 0", "1, 1, 1, 1")],
)
def test_a_sum_that_no_average_gives_stays_a_convolution(pads: str, weights: str) -> None:
    """Its weights differ, or a window may lie in what is padded alone."""
    model = summed(pads, weights)
    before = model.SerializeToString()
    assert pool_few_axes(model).SerializeToString() == before
