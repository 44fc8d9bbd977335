"""What removing channels together does: against the measured divergence, and a plain search."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx import ModelProto

from onnxprune.channels.groups import find_groups
from onnxprune.data.samples import Data
from onnxprune.graph.graph import Graph
from onnxprune.relevance.damage import Damage, Meter
from onnxprune.relevance.divergence import DIRECTIONS, find_directions, probabilities
from onnxprune.relevance.lrp import explain, relevance, start
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import find_composite
from onnxprune.search.picker import Limits, Picker
from onnxprune.surgery.removal import prune
from tests.support.models import images, model, run

EPSILON = find_composite("epsilon")

NET = """
net (float[N, 3, 8, 8] x) => (float[N, 3] y)
<float[6, 3, 3, 3] w, float[6] b, float[5, 6, 3, 3] v, float[5] c, float[3, 5] h, float[3] d> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (a)
    e = Conv <pads = [1, 1, 1, 1]> (r, v, c)
    s = Relu (e)
    g = GlobalAveragePool (s)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, h, d)
}
"""


def divergence(before: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """KL(p0 || p) of each sample, of class probabilities and logits."""
    z = logits - logits.max(1, keepdims=True)
    now = z - np.log(np.exp(z).sum(1, keepdims=True))
    return np.asarray((before * (np.log(before) - now)).sum(1))


def predicted(
    logits: torch.Tensor, before: torch.Tensor, change: torch.Tensor, y: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The second-order change of KL that the directions see in a change of the logits."""
    found = find_directions(logits, y, before, np.random.default_rng(0))
    # A start is the direction times the logits; the effect of a change is the direction's share.
    effects = torch.stack([(s / logits * change).flatten(1).sum(1) for s in found.starts], 1)
    bent = torch.einsum("nd,ndm->nm", effects.double(), found.curvature)
    slope = (effects.double() * found.slope).sum(1)
    return np.asarray(slope + 0.5 * (bent**2).sum(1))


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_seen_whole(classes: int) -> None:
    rng = np.random.default_rng(0)
    logits, unpruned, change = rng.normal(size=(3, 5, classes))
    change *= 0.02
    before = np.exp(unpruned) / np.exp(unpruned).sum(1, keepdims=True)
    found = predicted(*map(torch.from_numpy, (logits, before, change)), np.zeros(5, np.int64))
    measured = divergence(before, logits + change) - divergence(before, logits)
    np.testing.assert_allclose(found, measured, atol=2e-5)


def test_many_classes_lose_curvature_and_no_slope() -> None:
    rng = np.random.default_rng(1)
    logits, change = rng.normal(size=(2, 6, 20))
    before = np.exp(rng.normal(size=(6, 20)))
    before /= before.sum(1, keepdims=True)
    y = np.zeros(6, np.int64)
    tensors = [torch.from_numpy(a) for a in (logits, before, change)]
    found = find_directions(tensors[0], y, tensors[1], rng)
    assert len(found.starts) == DIRECTIONS
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    whole = (p * change**2).sum(1) - ((p * change).sum(1)) ** 2
    effects = torch.stack([(s / tensors[0] * tensors[2]).sum(1) for s in found.starts], 1)
    kept = (torch.einsum("nd,ndm->nm", effects, found.curvature) ** 2).sum(1).numpy()
    assert (kept <= whole * (1 + 1e-9)).all()
    assert kept.sum() > 0.2 * whole.sum()


def test_a_single_logit_is_the_first_class() -> None:
    logits, before = torch.tensor([[0.3], [-1.0]]), torch.tensor([[0.2], [0.6]], dtype=torch.double)
    change = torch.tensor([[0.01], [-0.02]])
    both = [
        torch.cat([1 - before, before], 1),
        *(torch.cat([0 * z, z], 1) for z in (logits, change)),
    ]
    measured = divergence(both[0].numpy(), (both[1] + both[2]).numpy()) - divergence(
        both[0].numpy(), both[1].numpy()
    )
    found = predicted(logits, before, change, np.zeros(2, np.int64))
    np.testing.assert_allclose(found, measured, rtol=0.01)


def test_pixels_count_as_samples_do_on_average() -> None:
    rng = np.random.default_rng(2)
    logits, unpruned, change = torch.from_numpy(rng.normal(size=(3, 1, 2, 4, 5)))
    change *= 0.05
    y = rng.integers(0, 2, (1, 4, 5))
    y[0, 0] = 255
    before = unpruned.softmax(1)
    squares, slopes = [], []
    for _ in range(400):
        found = find_directions(logits, y, before, rng)
        effects = torch.stack([(s / logits * change).flatten(1).sum(1) for s in found.starts], 1)
        squares.append(float((torch.einsum("nd,ndm->nm", effects, found.curvature) ** 2).sum()))
        slopes.append(float((effects * found.slope).sum()))
    rows = [t[0].flatten(1).T[y.ravel() != 255].numpy() for t in (logits, before, change)]
    p = np.exp(rows[0]) / np.exp(rows[0]).sum(1, keepdims=True)
    curvature = ((p * rows[2] ** 2).sum(1) - ((p * rows[2]).sum(1)) ** 2).mean()
    assert slopes[0] == pytest.approx(((p - rows[1]) * rows[2]).sum(1).mean())
    assert np.mean(squares) == pytest.approx(curvature, rel=0.2)


def test_one_walk_forward_serves_many_back() -> None:
    mirror = Mirror(Graph(model(NET)), device="cpu")
    x, y = images(mirror.graph.model, 3), torch.tensor([0, 1, 2])

    def starts(logits: torch.Tensor) -> list[torch.Tensor]:
        ones = start(logits, y), logits * torch.tensor([1.0, -2.0, 0.5])
        return [*ones, ones[0] + ones[1]]

    first, second, both = explain(mirror, x, starts, EPSILON, ["a", "e"])
    alone = relevance(mirror, x, y, EPSILON, ["a", "e"])
    for name, found in both.items():
        torch.testing.assert_close(first[name], alone[name])
        torch.testing.assert_close(found, first[name] + second[name], atol=1e-5, rtol=1e-4)


def gentle() -> Graph:
    """The net with a head so small that only the logits' curve is cut off."""
    proto = model(NET)
    for tensor in proto.graph.initializer:
        if tensor.name == "h":
            small = np.frombuffer(tensor.raw_data, np.float32) * 0.02
            tensor.raw_data = small.astype(np.float32).tobytes()
    return Graph(proto)


@pytest.mark.parametrize("gone", [[], [3, 4], [0, 1]])
def test_damage_is_the_divergence_that_pruning_makes(gone: list[int]) -> None:
    """The last layer's channels reach the logits by a sum; onnxruntime measures the divergence.

    In the unpruned net the slope is 0; where channels are gone it is no small part.
    """
    graph = gentle()
    groups, proto = find_groups(graph), graph.model
    x = images(proto, 7)
    last = np.flatnonzero(groups.group == groups.group[groups.filters[1].channels[0]])
    before = np.asarray(probabilities(torch.from_numpy(run(proto, x)[0]), np.zeros(7, np.int64)))

    def without(chosen: list[int]) -> tuple[ModelProto, float]:
        pruned = prune(graph, groups, np.isin(np.arange(len(groups)), last[chosen]))
        return pruned, float(divergence(before, run(pruned, x)[0]).mean())

    net, now = without(gone)
    left = groups.without(np.isin(np.arange(len(groups)), last[gone]))
    damage = Meter(graph, Data(x, np.arange(7) % 3, tuple("abc")), EPSILON, device="cpu")(
        Graph(net), left
    )
    kept = [k for k in range(5) if k not in gone]
    for chosen in ([kept[0]], kept[1:], [kept[0], kept[2]]):
        places = last[0] + np.searchsorted(kept, chosen)
        effect = damage.effects[places].sum(0)
        slope, curve = damage.slope[places].sum(), 0.5 * effect @ effect
        assert slope + curve == pytest.approx(without([*gone, *chosen])[1] - now, rel=0.05)
        assert abs(slope) > 0.1 * curve if gone else slope == pytest.approx(0, abs=1e-9)


def test_the_order_is_that_of_a_plain_search() -> None:
    rng = np.random.default_rng(3)
    effects = rng.normal(size=(9, 4)).astype(np.float32)
    damage, count = Damage(rng.normal(size=9), effects), rng.integers(1, 4, 9)
    free = np.arange(9) != 5

    def take(channel: int) -> None:
        free[channel] = False

    def cost(chosen: list[int], one: int) -> float:
        both = effects[[*chosen, one]].sum(0)
        now = effects[chosen].sum(0)
        own = effects[one]
        rise = damage.slope[one] + 0.5 * (both @ both - now @ now - own @ own) + 3.0 / 2 * own @ own
        return float(rise / count[one])

    plain: list[int] = []
    while count[plain].sum() < 8:
        plain.append(min({*range(9)} - {5, *plain}, key=lambda one: cost(plain, one)))
    found = damage.order(count, lambda: free, take, 8, own_squares=3.0).tolist()
    assert found[: len(plain)] == plain
    assert sorted(found) == list(range(9))


def test_an_allowance_is_what_picking_leaves() -> None:
    graph = Graph(model(NET))
    groups = find_groups(graph)
    picker = Picker(groups, Limits(min_channels=2, max_layer_rate=0.5))
    nothing = np.zeros(len(groups), np.bool_)
    allowance = picker.allowance(nothing)
    picked = []
    while allowance.free.any():
        picked.append(int(allowance.free.argmax()))
        allowance.take(picked[-1])
    assert picked == picker.pick(np.arange(len(groups)), nothing).tolist()
    assert len(picked) == 3 + 2


def test_of_many_samples_each_step_looks_at_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 10)
    monkeypatch.setattr("onnxprune.relevance.damage.PER_CLASS", 3)
    graph = Graph(model(NET))
    groups = find_groups(graph)
    data = Data(images(graph.model, 21), np.arange(21) % 3, tuple("abc"))
    parts = []
    for left in (11, 10):
        dead = np.arange(len(groups)) >= left
        net = Graph(prune(graph, groups, dead))
        part = Meter(graph, data.every(2, left % 2), EPSILON, device="cpu")
        monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 10)
        parts.append(Meter(graph, data, EPSILON, device="cpu")(net, groups.without(dead)))
        monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 100)
        expected = part(net, groups.without(dead))
        np.testing.assert_allclose(parts[-1].effects, expected.effects, atol=1e-6)
        np.testing.assert_allclose(parts[-1].slope, expected.slope, atol=1e-6)
    assert [p.effects.shape[1] // DIRECTIONS for p in parts] == [10, 11]
