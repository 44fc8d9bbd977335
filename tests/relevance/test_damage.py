"""What removing channels together does: against the measured divergence, and a plain search."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels.groups import find_groups
from onnxprune.data import Data, part_of
from onnxprune.graph.graph import Graph
from onnxprune.relevance.damage import SAMPLES, Damage, Meter, _turn
from onnxprune.relevance.divergence import probabilities
from onnxprune.relevance.lrp import explain, relevance, start
from onnxprune.relevance.mirror import Mirror, Tensors
from onnxprune.relevance.rules import find_composite
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery.removal import remove_channels
from tests.support.divergence import divergence
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


def test_one_walk_forward_serves_many_back() -> None:
    mirror = Mirror(Graph(model(NET)), device="cpu")
    x, y = images(mirror.graph.model, 3), torch.tensor([0, 1, 2])

    def starts(ends: Tensors) -> list[Tensors]:
        ones = start(ends["y"], y), ends["y"] * torch.tensor([1.0, -2.0, 0.5])
        return [{"y": one} for one in (*ones, ones[0] + ones[1])]

    first, second, both = explain(mirror, x, starts, EPSILON, ["a", "e"])
    alone = relevance(mirror, x, y, EPSILON, ["a", "e"])
    for name, found in both.items():
        torch.testing.assert_close(first[name], alone[name])
        torch.testing.assert_close(found, first[name] + second[name], atol=1e-5, rtol=1e-4)


def gentle(text: str = NET) -> Graph:
    """A net with a head so small that the divergence is its second order."""
    proto = model(text)
    for tensor in proto.graph.initializer:
        if tensor.name == "h":
            small = np.frombuffer(tensor.raw_data, np.float32) * 0.001
            tensor.raw_data = small.astype(np.float32).tobytes()
    return Graph(proto)


@pytest.fixture
def all_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three classes two directions see all."""
    monkeypatch.setattr("onnxprune.relevance.divergence.DIRECTIONS", 2)
    monkeypatch.setattr("onnxprune.relevance.divergence.CLASSES_EACH", 1)


def assert_damage_is_what_pruning_does(
    samples: int, gone: list[int], seen: slice | IntArray
) -> None:
    """The last layer's channels reach the logits by a sum; onnxruntime measures the divergence.

    `gone` are missing from it already, `seen` are the samples that this net is measured on.
    """
    graph = gentle()
    groups, proto = find_groups(graph), graph.model
    x = images(proto, samples)
    last = np.flatnonzero(groups.group == groups.group[groups.filters[1].channels[0]])
    before = np.asarray(probabilities(torch.from_numpy(run(proto, x)[0]), np.zeros(len(x), int)))

    def without(chosen: list[int]) -> tuple[ModelProto, float]:
        pruned = remove_channels(graph, groups, np.isin(np.arange(len(groups)), last[chosen]))
        logits = run(pruned, x)[0].astype(np.float64)
        return pruned, float(divergence(before, logits)[seen].mean())

    net, now = without(gone)
    left = groups.without(np.isin(np.arange(len(groups)), last[gone]))
    data = Data(x, np.arange(samples) % 3, tuple("abc"))
    damage = Meter(graph, data, EPSILON, device="cpu", batch_size=3)(Graph(net), left)
    assert damage.effects.shape == (len(left), 2 * len(x[seen]))
    kept = [k for k in range(5) if k not in gone]
    for chosen in ([kept[0]], kept[1:], [kept[0], kept[2]]):
        places = last[0] + np.searchsorted(kept, chosen)
        effect = damage.effects[places].astype(np.float64).sum(0)
        slope, curve = damage.slope[places].sum(), 0.5 * effect @ effect
        assert slope + curve == pytest.approx(without([*gone, *chosen])[1] - now, rel=2e-3)
        assert (abs(slope) > 0.02 * curve) == bool(gone)


@pytest.mark.usefixtures("all_directions")
@pytest.mark.parametrize("gone", [[], [3, 4], [0, 1]], ids=str)
def test_damage_is_the_divergence_that_pruning_makes(gone: list[int]) -> None:
    """In the unpruned net the slope is 0; where channels are gone it is no small part."""
    assert_damage_is_what_pruning_does(7, gone, slice(None))


TIED = """
net (float[N, 3, 8, 8] x) => (float[N, 3] y)
<float[5, 3, 3, 3] w, float[5, 3, 1, 1] v, float[3, 5] h, float[3] d> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w)
    e = Conv (x, v)
    s = Add (a, e)
    g = GlobalAveragePool (s)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, h, d)
}
"""


@pytest.mark.usefixtures("all_directions")
def test_a_channel_does_what_all_of_its_filters_do() -> None:
    """Each of these has a filter of both convolutions."""
    graph = gentle(TIED)
    groups, x = find_groups(graph), images(graph.model, 6)
    data = Data(x, np.arange(6) % 3, tuple("abc"))
    damage = Meter(graph, data, EPSILON, device="cpu")(graph, groups)
    before = np.asarray(probabilities(torch.from_numpy(run(graph.model, x)[0]), np.zeros(6, int)))
    for channel, effect in enumerate(damage.effects.astype(np.float64)):
        pruned = remove_channels(graph, groups, np.arange(5) == channel)
        measured = divergence(before, run(pruned, x)[0].astype(np.float64)).mean()
        assert 0.5 * effect @ effect == pytest.approx(measured, rel=5e-3)


@pytest.mark.parametrize("samples", [1, 49, 50, 99, 300, 1000])
def test_a_step_looks_at_enough_samples_whatever_their_number(samples: int) -> None:
    for left in range(20):
        turns, turn = _turn(samples, left)
        assert min(samples, SAMPLES) <= len(range(turn, samples, turns)) <= 2 * SAMPLES


def test_a_meter_looks_along_as_many_directions_as_it_is_told() -> None:
    graph = gentle()
    groups, x = find_groups(graph), images(graph.model, 4)
    data = Data(x, np.arange(4) % 3, tuple("abc"))
    for directions, expected in ((None, 1), (1, 1), (2, 2)):
        meter = Meter(graph, data, EPSILON, device="cpu", directions=directions)
        assert meter(graph, groups).effects.shape == (len(groups), expected * len(x))


@pytest.mark.usefixtures("all_directions")
@pytest.mark.parametrize(("gone", "turn"), [([1], 0), ([0, 1], 1)], ids=str)
def test_of_many_samples_each_step_looks_at_another_part(
    gone: list[int], turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 21 samples, 10 being enough, a net with 10 channels at one half, with 9 at the other."""
    monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 10)
    seen = np.argsort(np.arange(21) % 3, kind="stable")[turn::2]
    assert_damage_is_what_pruning_does(21, gone, seen)


@pytest.mark.parametrize("turn", range(4))
def test_a_part_has_its_share_of_each_class_in_whatever_order_samples_come(turn: int) -> None:
    """Of samples that come class after class in turn, every fourth of four classes is one class."""
    y = np.random.default_rng(0).permutation(np.arange(160) % 4)
    for labels in (y, np.sort(y), np.arange(160) % 4):
        rows = part_of(labels, 4, turn)
        assert np.bincount(labels[rows]).tolist() == [10, 10, 10, 10]
        assert (np.diff(rows) > 0).all()


def test_a_part_is_held_against_its_own_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part the same meter looked at before."""
    monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 10)
    graph = gentle()
    groups, x = find_groups(graph), images(graph.model, 21)
    data = Data(x, np.arange(21) % 3, tuple("abc"))
    dead = np.arange(len(groups)) == groups.filters[1].channels[1]
    net, left = Graph(remove_channels(graph, groups, dead)), groups.without(dead)
    one = Meter(graph, data, EPSILON, device="cpu")
    assert _turn(21, len(groups)) != _turn(21, len(left))
    one(graph, groups)
    found, fresh = one(net, left), Meter(graph, data, EPSILON, device="cpu")(net, left)
    np.testing.assert_array_equal(found.slope, fresh.slope)


@dataclass
class Free:
    """Channels of groups: those that may go, and how many of each channel's group at once."""

    allowed: BoolArray
    group: IntArray
    size: IntArray
    taken: list[int] = field(default_factory=list)

    def free(self) -> BoolArray:
        return self.allowed

    def blocks(self) -> IntArray:
        return self.size

    def take(self, channel: int) -> None:
        self.allowed[channel] = False
        self.taken.append(channel)


def test_the_order_is_that_of_a_plain_search() -> None:
    rng = np.random.default_rng(3)
    effects = rng.normal(size=(9, 4)).astype(np.float32)
    damage, count = Damage(rng.normal(size=9), effects), rng.integers(1, 4, 9)
    choices = Free(np.arange(9) != 5, np.arange(9), np.ones(9, np.int64))

    def cost(chosen: list[int], one: int) -> float:
        both = effects[[*chosen, one]].sum(0)
        now = effects[chosen].sum(0)
        own = effects[one]
        rise = damage.slope[one] + 0.5 * (both @ both - now @ now - own @ own) + 3.0 / 2 * own @ own
        return float(rise / count[one])

    plain: list[int] = []
    while count[plain].sum() < 8:
        plain.append(min({*range(9)} - {5, *plain}, key=lambda one: cost(plain, one)))
    found = damage.order(count.astype(np.float64), choices, 8, own_squares=3.0).tolist()
    assert found[: len(plain)] == plain == choices.taken
    assert found[len(plain) :] == sorted({*range(9)} - {*plain}, key=lambda one: cost(plain, one))


def test_a_group_of_fewer_channels_than_a_block_stays() -> None:
    group = np.array([0, 0, 1, 1, 1])
    choices = Free(np.ones(5, np.bool_), group, np.array([3, 2])[group])
    damage = Damage(np.array([0.1, 0.2, 0.5, 0.3, 0.4]), np.zeros((5, 1), np.float32))
    assert damage.order(np.ones(5), choices, 5, own_squares=1.0).tolist()[:2] == [3, 4]
    assert choices.taken == [3, 4]


def test_the_order_of_blocks_is_that_of_a_plain_search() -> None:
    """Of each group the channels with the least rise go together; what counts is their joint rise,
    for what they are worth together.
    """
    rng = np.random.default_rng(5)
    effects, slope = rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=12)
    group, worth = np.repeat([0, 1, 2], 4), rng.uniform(1, 2, 12)
    choices = Free(np.arange(12) != 6, group, np.array([2, 3, 1])[group])

    def total(chosen: list[int]) -> float:
        together, own = effects[chosen].sum(0), (effects[chosen] ** 2).sum()
        return float(slope[chosen].sum() + 0.5 * together @ together + (3.0 - 1) / 2 * own)

    plain: list[int] = []
    while worth[plain].sum() < 8:
        blocks = []
        for number, size in enumerate((2, 3, 1)):
            free = {*np.flatnonzero(group == number).tolist()} - {6, *plain}
            cheapest = sorted(free, key=lambda one: total([*plain, one]))[:size]
            if len(cheapest) == size:
                blocks.append(cheapest)
        now = total(plain)
        plain += min(blocks, key=lambda block: (total([*plain, *block]) - now) / worth[block].sum())
    damage = Damage(slope, effects)
    found = damage.order(worth, choices, 8, own_squares=3.0).tolist()
    assert found[: len(plain)] == plain == choices.taken
    assert sorted(found) == list(range(12))


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
