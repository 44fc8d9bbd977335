"""Each runtime that is installed gives what onnxruntime gives; .ci/runtimes installs one by one."""

import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from onnxprune.data import Inputs
from onnxprune.deploy.outputs import Watched
from onnxprune.evaluation import made_up, running
from onnxprune.graph import Graph
from onnxprune.runtimes import RUNTIMES, Child, Place, find_runtime, fix_axes, running_on
from tests.support.models import model

SAMPLES = Path(__file__).parent.parent.parent / "samples"

TWO = model(
    """g (float[N, 3, 8, 8] x, float[N, 3, 8, 8] y) => (float[N, 4] p, float[N, 4, 8, 8] q)
    <float[4, 3, 3, 3] w, float[4, 3, 1, 1] v> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv(y, v) s = Add(a, b) q = Relu(s)
        m = GlobalAveragePool(q) p = Flatten(m)
    }"""
)
"""Two inputs, two outputs, a batch that is open."""

FOUR = model(
    "g (float[4, 3, 8, 8] x) => (float[4, 4, 6, 6] y) <float[4, 3, 3, 3] w> { y = Conv(x, w) }"
)
"""A batch of four that the model fixes."""

ORDER = model(
    """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y)
    <float[6, 3, 3, 3] w, int64[6] i = {1, 2, 3, 4, 5, 0}, float[4, 6, 1, 1] v> {
        a = Conv(x, w) r = Relu(a) g = Gather<axis = 1>(r, i) y = Conv(g, v)
    }"""
)
"""Channels in an order whose inverse is another."""

SCALED = model(
    """g (float[N, 8, 8, 3] x) => (float[N, 4, 6, 6] y)
    <float[4, 3, 3, 3] w, float c = {0.5}, float d = {-1}> {
        a = Mul(x, c) b = Add(a, d) t = Transpose <perm = [0, 3, 1, 2]> (b) y = Conv(t, w)
    }"""
)
"""Pixels, channels last, that the graph scales, as Keras' networks do: ncnn does so in place."""

TURNED = model(
    """g (float[N, 5, 4, 4] x) => (float[N, 6, 8, 8] y)
    <float[2, 2, 5, 6] k, int64[2] s = {-1, -1}, int64[2] e = {-3, -3}, int64[2] a = {0, 1},
     int64[2] b = {-1, -1}, float[1, 6, 1, 1] bias> {
        f = Slice(k, s, e, a, b) v = Transpose<perm = [2, 3, 0, 1]>(f)
        c = ConvTranspose<strides = [2, 2]>(x, v) y = Add(c, bias)
    }"""
)
"""A transposed convolution whose kernel is read backwards, as JAX's exporter writes it."""

NETS = {
    "two inputs": TWO,
    "batch of four": FOUR,
    "another order": ORDER,
    "scaled": SCALED,
    "turned": TURNED,
} | {
    name: str(SAMPLES / name / "model.onnx")
    for name in ("fashion_mnist", "segmentation", "detection")
}

KNOWN = {
    ("ncnn", "batch of four"): "takes one sample at a time",
    ("ncnn", "another order"): "is off by",
}
"""What a runtime cannot, and says in one line."""


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", RUNTIMES)
def test_it_gives_what_onnxruntime_gives(name: str, net: str) -> None:
    runtime = find_runtime(name)
    packages = runpy.run_path(str(runtime.module))["PACKAGES"]
    if any(importlib.util.find_spec(package) is None for package in packages):
        pytest.skip(f"{name} is not installed")
    graph = Graph.load(NETS[net])
    feeds = made_up(graph)
    assert feeds is not None
    reference = running(graph.model, "cpu", 1, exact=True)
    with Child(runtime, Place(threads=1)) as child:
        try:
            with running_on(child, fix_axes(graph)) as there:
                watched = Watched(there, reference, (), lambda runs: None)
                watched.run(watched.bind(Inputs(feeds), "cpu"), watched.outputs)
                problem = "; ".join(watched.problems(1e-3))
        except Exception as error:
            problem = str(error)
    expected = KNOWN.get((name, net))
    if expected is None:
        assert problem == ""
        assert np.isfinite(watched.relative)
    else:
        assert re.search(expected, problem), problem
