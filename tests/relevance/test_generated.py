"""Generated inputs have the statistics that a network stores; noise is smooth as photographs."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxprune.data import Inputs, noisy_pixels, smooth_noise
from onnxprune.graph.graph import Graph
from onnxprune.relevance.generated import (
    Statistics,
    distance,
    match_statistics,
    stored_statistics,
)
from onnxprune.relevance.mirror import Mirror
from tests.support.models import model

NET = """
net (float[N,3,12,12] x) => (float[N,4] y)
<float[6,3,3,3] w1, float[6] s1, float[6] b1, float[6] m1, float[6] var1,
 float[4,6,3,3] w2, float[4] s2, float[4] b2, float[4] m2, float[4] var2> {
  a = Conv<pads = [1,1,1,1]>(x, w1)
  n = BatchNormalization(a, s1, b1, m1, var1)
  r = Relu(n)
  b = Conv(r, w2)
  o = BatchNormalization(b, s2, b2, m2, var2)
  g = GlobalAveragePool(o)
  y = Flatten(g)
}
"""


def trained(text: str = NET, seed: int = 3, **sizes: str) -> tuple[onnx.ModelProto, Any]:
    """A net whose batch normalisations hold the statistics of some images, and these images."""
    proto = model(text)
    x = 0.5 + 2 * smooth_noise(64, 3, (12, 12), np.random.default_rng(seed)).astype(np.float32)
    x[:, 1] -= 2
    for mean, variance in (("m1", "var1"), ("m2", "var2")):
        graph = Graph(proto)
        tensor = next(node.inputs[0] for node in graph.nodes if mean in node.inputs)
        values = Mirror(graph, device="cpu", outputs=[tensor])(x).numpy()
        store(proto, mean, values.mean((0, 2, 3)))
        store(proto, variance, values.var((0, 2, 3)))
    return proto, x


def store(proto: onnx.ModelProto, name: str, value: Any) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def off(proto: onnx.ModelProto, x: Any) -> float:
    graph = Graph(proto)
    stored = stored_statistics(graph)
    mirror = Mirror(graph, device="cpu", outputs=[one.tensor for one in stored])
    return float(distance(mirror.run(np.asarray(x)), stored))


def noise(count: int, seed: int = 0) -> Inputs:
    x = smooth_noise(count, 3, (12, 12), np.random.default_rng(seed)).astype(np.float32)
    return Inputs({"x": x})


def test_statistics_are_those_in_front_of_each_normalisation() -> None:
    proto, x = trained()
    stored = stored_statistics(Graph(proto))
    assert [one.tensor for one in stored] == ["a", "b"]
    assert off(proto, x) == pytest.approx(0, abs=1e-4)
    assert off(proto, x + 1) > 0.01
    assert off(proto, 3 * x) > 0.1


def test_the_distance_is_the_divergence_of_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 2.0, (40_000, 1))
    stored = Statistics("t", np.array([0.5]), np.array([9.0]))
    p, q = torch.distributions.Normal(1.0, 2.0), torch.distributions.Normal(0.5, 3.0)
    expected = float(torch.distributions.kl_divergence(p, q))
    found = distance({"t": torch.from_numpy(values)}, [stored])
    assert float(found) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("count", [1, 8, 20])
def test_inputs_come_nearer_to_what_is_stored(count: int) -> None:
    proto, _ = trained()
    before, same = noise(count), noise(count)
    after = match_statistics(Graph(proto), before, device="cpu")
    assert after.arrays["x"].shape == before.arrays["x"].shape
    assert after.arrays["x"].dtype == np.float32
    assert off(proto, after.arrays["x"][:16]) < 0.5 * off(proto, before.arrays["x"][:16])
    assert not np.allclose(before.arrays["x"], after.arrays["x"])
    assert (before.arrays["x"] == same.arrays["x"]).all()
    again = match_statistics(Graph(proto), noise(count), device="cpu")
    assert (again.arrays["x"] == after.arrays["x"]).all()


def test_a_batch_that_the_model_fixes_is_filled_with_copies_of_the_last_input() -> None:
    fixed = NET.replace("float[N,3,12,12] x", "float[4,3,12,12] x").replace(
        "a = Conv<pads = [1,1,1,1]>(x, w1)",
        "four = Add(x, none) a = Conv<pads = [1,1,1,1]>(four, w1)",
    )
    fixed = fixed.replace("float[N,4] y", "float[4,4] y").replace(
        "float[4] var2>", "float[4] var2, float[4,1,1,1] none = {0, 0, 0, 0}>"
    )
    found = match_statistics(Graph(model(fixed)), noise(6), device="cpu").arrays["x"]
    free = Graph(model(NET))
    first, last = (
        match_statistics(free, noise(6)[np.array(rows)], device="cpu").arrays["x"]
        for rows in ([0, 1, 2, 3], [4, 5, 5, 5])
    )
    np.testing.assert_allclose(found, np.concatenate([first, last[:2]]), rtol=1e-4, atol=1e-4)


def test_integers_stay() -> None:
    text = """
    net (float[N,3,8,8] x, int64[N,3,1,1] k) => (float[N,3,8,8] y)
    <float[3] s, float[3] b, float[3] m, float[3] var> {
      f = Cast<to = 1>(k)
      z = Add(x, f)
      y = BatchNormalization(z, s, b, m, var)
    }
    """
    k = np.arange(12).reshape(4, 3, 1, 1)
    x = smooth_noise(4, 3, (8, 8), np.random.default_rng(0)).astype(np.float32)
    found = match_statistics(Graph(model(text)), Inputs({"x": x, "k": k}), device="cpu").arrays
    assert (found["k"] == k).all()
    assert not np.allclose(found["x"], x)


# Noise


@pytest.mark.parametrize("sizes", [(), (40,), (32, 48), (8, 9, 10)])
def test_noise_has_mean_0_and_variance_1(sizes: tuple[int, ...]) -> None:
    found = smooth_noise(30, 3, sizes, np.random.default_rng(0))
    assert found.shape == (30, 3, *sizes)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert found.std() == pytest.approx(1)


def test_noise_is_smooth_and_its_colours_go_together() -> None:
    found = smooth_noise(400, 3, (32, 32), np.random.default_rng(0))
    rough = np.random.default_rng(0).standard_normal(found.shape)
    assert np.diff(found).std() < 0.6 * np.diff(rough).std()
    assert np.corrcoef(found[:, 0].ravel(), found[:, 1].ravel())[0, 1] > 0.6
    spectrum = (np.abs(np.fft.fft2(found)) ** 2).mean((0, 1))
    assert spectrum[0, 2] / spectrum[0, 8] == pytest.approx(16, rel=0.4)
    assert spectrum[2, 0] / spectrum[8, 0] == pytest.approx(16, rel=0.4)


def test_noisy_pixels_are_pixels() -> None:
    found = noisy_pixels(20, 3, (16, 24), np.random.default_rng(0))
    assert found.shape == (20, 16, 24, 3)
    assert found.dtype == np.uint8
    assert 90 < found.mean() < 140
    assert 40 < found.std() < 80
