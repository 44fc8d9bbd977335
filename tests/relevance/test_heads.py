"""Outputs of any kind: what relevance starts from, and that damage is what happens to them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from onnxprune.channels import find_groups
from onnxprune.data import ALL, Data, Head
from onnxprune.graph import Graph
from onnxprune.relevance import Meter, find_composite, score
from onnxprune.relevance.lrp import explain, of_highest, relevance, signed, start
from onnxprune.relevance.mirror import Mirror, Tensors
from onnxprune.relevance.routes import find_ends
from onnxprune.surgery import remove_channels
from tests.support.models import images, model, run

EPSILON = find_composite("epsilon")
TIMES = 200
LAST = """
net (float[N, 3, 6, 5] x) => ({outputs})
<float[5, 3, 3, 3] w, float[5] b, float[4, 5, 1, 1] h, float[4] d> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (a)
    {tail}
}}
"""
"""Every tail is linear in the channels of `r`, so that first order is all there is to a change."""
POOLED = "g = GlobalAveragePool (r)\n c = Conv (g, h, d)\n y = Flatten (c)"
MAP = "y = Conv (r, h, d)"
STEPS = "m = ReduceMean <axes = [2], keepdims = 1> (r)\n s = Conv (m, h, d)\n"
STEPS_N = STEPS + "two = Constant <value_ints = [2]> ()\n q = Squeeze (s, two)\n"
BOTH = "g = GlobalAveragePool (r)\n c = Conv (g, h, d)\n y = Flatten (c)\n z = Conv (r, h, d)"
Array = npt.NDArray[np.float64]


def gentle(tail: str, outputs: str = "float[N, 4] y") -> onnx.ModelProto:
    """A net whose last layer changes so little that the divergence is its second order."""
    proto = model(LAST.format(tail=tail, outputs=outputs))
    for tensor in proto.graph.initializer:
        if tensor.name in "hd":
            small = onnx.numpy_helper.to_array(tensor) * np.float32(0.05)
            tensor.CopyFrom(onnx.numpy_helper.from_array(small, tensor.name))
    return proto


def softmax(z: Array, axis: int) -> Array:
    if z.shape[axis] == 1:
        return np.concatenate([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))], axis)
    e = np.exp(z - z.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def diverged(head: Head, before: Array, after: Array) -> float:
    """What a head's output diverges by, counted as the words say."""
    if head.deviation is None:
        p, q = softmax(before, head.axis), softmax(after, head.axis)
        return float((p * np.log(p / q)).sum(head.axis).mean())
    unit = np.broadcast_to(1 / head.deviation, before.shape)
    squares = ((after - before) * unit) ** 2
    return float(0.5 * (squares.sum() / (unit > 0).sum()))


def estimated(proto: onnx.ModelProto, heads: Sequence[Head], x: Array, gone: list[int]) -> float:
    """The damage of removing channels; each sample comes many times, with signs of its own."""
    graph = Graph(proto)
    groups = find_groups(graph)
    x = np.concatenate([x] * (TIMES // 4 if heads[0].alone else TIMES))  # run one by one
    data = Data(x, np.zeros(len(x), np.int64), ALL, labelled=False, heads=tuple(heads))
    damage = Meter(graph, data, EPSILON, device="cpu", batch_size=len(x))(graph, groups)
    effect = damage.effects[gone].astype(np.float64).sum(0)
    return float(damage.slope[gone].sum() + 0.5 * effect @ effect)


@pytest.fixture
def all_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as four classes have, and all samples, so that nothing is left out."""
    monkeypatch.setattr("onnxprune.relevance.damage.SAMPLES", 10_000)
    monkeypatch.setattr("onnxprune.relevance.divergence.DIRECTIONS", 3)
    monkeypatch.setattr("onnxprune.relevance.divergence.CLASSES_EACH", 1)
    monkeypatch.setattr("onnxprune.relevance.divergence.PLACES", 3)


def after_removal(proto: onnx.ModelProto, x: Array, gone: list[int]) -> list[Array]:
    graph = Graph(proto)
    groups = find_groups(graph)
    pruned = remove_channels(graph, groups, np.isin(np.arange(len(groups)), gone))
    return [one.astype(np.float64) for one in run(pruned, x)]


DEVIATION = np.array([[0.5, 2.0, np.inf, 1.0]])
CASES: dict[str, tuple[onnx.ModelProto, Head]] = {
    "numbers": (gentle(POOLED), Head("y", "values", 1, DEVIATION)),
    "rows of a map": (
        gentle(MAP, "float[N, 4, 6, 5] y"),
        Head("y", "values", 1, DEVIATION[..., None, None]),
    ),
    "a number without an axis": (
        gentle(f"{POOLED[:-15]}y = ReduceMean <axes = [1, 2, 3], keepdims = 0> (c)", "float[N] y"),
        Head("y", "values", 0, np.array([0.7])),
    ),
    "a vector": (gentle(POOLED), Head("y", "vector", 0, np.array([[0.7]]))),
    "a sequence": (
        gentle(STEPS_N + "y = Transpose <perm = [0, 2, 1]> (q)", "float[N, 5, 4] y"),
        Head("y", "sequence", 2),
    ),
    "a sequence whose steps come first": (
        gentle(STEPS_N + "y = Transpose <perm = [2, 0, 1]> (q)", "float[5, N, 4] y"),
        Head("y", "sequence", 3, alone=True),
    ),
}


@pytest.mark.usefixtures("all_directions")
@pytest.mark.parametrize("name", CASES)
def test_damage_is_how_far_an_output_moves(name: str) -> None:
    """Random signs are right on average only."""
    proto, head = CASES[name]
    x, gone = images(proto, 4), [0, 3]
    before, after = run(proto, x)[0].astype(np.float64), after_removal(proto, x, gone)[0]
    if head.alone:
        before, after = (one.transpose(1, 0, 2)[:, :, None] for one in (before, after))
    expected = diverged(head, before, after)
    assert estimated(proto, [head], x, gone) == pytest.approx(expected, rel=0.12)


@pytest.mark.usefixtures("all_directions")
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_what_several_outputs_diverge_by_adds_up(kind: str) -> None:
    proto = gentle(BOTH, "float[N, 4] y, float[N, 4, 6, 5] z")
    heads = [Head("y", kind, 1, DEVIATION if kind == "values" else None), Head("z")]
    x, gone = images(proto, 4), [1, 2]
    before, after = run(proto, x), after_removal(proto, x, gone)
    each = [diverged(h, b.astype(float), a) for h, b, a in zip(heads, before, after, strict=True)]
    assert min(each) > 0.1 * max(each)
    assert estimated(proto, heads, x, gone) == pytest.approx(sum(each), rel=0.12)


@pytest.mark.usefixtures("all_directions")
def test_one_score_among_others_diverges_as_yes_and_no() -> None:
    proto = gentle(
        "g = GlobalAveragePool (r)\n c = Conv (g, h, d)\n z = Flatten (c)\n"
        "y = ReduceMean <axes = [1], keepdims = 1> (z)",
        "float[N, 1] y, float[N, 4] z",
    )
    heads = [Head("y"), Head("z", "values", 1, np.full((1, 4), np.inf))]
    x, gone = images(proto, 4), [0, 1]
    before, after = run(proto, x)[0].astype(float), after_removal(proto, x, gone)[0]
    expected = diverged(heads[0], before, after)
    assert expected > 0
    assert estimated(proto, heads, x, gone) == pytest.approx(expected, rel=0.12)


# Where relevance starts


@pytest.mark.parametrize("sizes", [(), (1,), (4, 6, 5)])
def test_a_start_has_the_shape_of_the_numbers(sizes: tuple[int, ...]) -> None:
    values = torch.full((3, *sizes), 2.0)
    found = signed(values, Head("y", "values", 0), np.random.default_rng(0))
    assert found.shape == values.shape
    torch.testing.assert_close(found.abs().reshape(3, -1).sum(1), torch.ones(3))


def test_numbers_start_with_random_signs_in_units_of_their_deviation() -> None:
    values = torch.tensor([[2.0, -1.0, 5.0, 3.0], [0.5, 4.0, 5.0, 1.0]])
    head = Head("y", "values", 1, DEVIATION)
    found = signed(values, head, np.random.default_rng(0))
    parts = values.abs() / torch.tensor(DEVIATION)
    torch.testing.assert_close(found.abs(), (parts / parts.sum(1, keepdim=True)).float())
    signs = [torch.sign(signed(values, head, np.random.default_rng(k))) for k in range(400)]
    assert torch.stack(signs)[..., [0, 1, 3]].mean(0).abs().max() < 0.2


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_without_labels_the_highest_class_of_each_place_is_explained(axis: int) -> None:
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4, 5, 6)))
    found = of_highest(z, Head("y", axis=axis))
    assert found.shape == z.shape
    moved, explained = z.movedim(axis, 1), found.movedim(axis, 1)
    best, classes = moved.argmax(1, keepdim=True), moved.shape[1]
    one = torch.zeros_like(moved).scatter_(1, best, 1.0)
    plain = (one - 1 / classes) * moved
    torch.testing.assert_close(explained, plain / plain.abs().sum((1, 2, 3), keepdim=True))
    flat = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 4)))
    torch.testing.assert_close(of_highest(flat, Head("y")), start(flat, flat.argmax(1)))


def test_several_outputs_are_explained_alike_and_whatever_the_labels() -> None:
    """The labels of samples say nothing of an output that is one of several."""
    graph = Graph(gentle(BOTH, "float[N, 4] y, float[N, 4, 6, 5] z"))
    heads = (Head("y"), Head("z"))
    x = images(graph.model, 5)

    def found(y: npt.NDArray[np.int64], heads: tuple[Head, ...]) -> torch.Tensor:
        mirror = Mirror(graph, device="cpu", heads=heads)
        return relevance(mirror, x, y, EPSILON, ["r"])["r"]

    both = found(np.zeros(5, np.int64), heads)
    torch.testing.assert_close(both, found(np.arange(5) % 4, heads))
    best = run(graph.model, x)[0].argmax(1)
    one = found(best, heads[:1])
    other = found(run(graph.model, x)[1].argmax(1), heads[1:])
    assert both.shape == one.shape == other.shape
    assert not torch.allclose(both, one / 2)
    for criterion in ("lrp", "taylor"):
        groups = find_groups(graph)
        tables = [
            score(graph, groups, Data(x, y, tuple("abcd"), heads=heads), criterion, device="cpu")
            for y in (np.zeros(5, np.int64), np.full(5, 3))
        ]
        np.testing.assert_allclose(*(table.total() for table in tables))


def test_logits_behind_a_change_of_axes_are_not_taken_for_the_output() -> None:
    """The axis of the classes is that of the output."""
    text = "s = Softmax <axis = 1> (c)\n y = Transpose <perm = [0, 2, 3, 1]> (s)"
    proto = model(LAST.format(outputs="float[N, 6, 5, 4] y", tail="c = Conv (r, h, d)\n " + text))
    heads = (Head("y", "sequence", 3), Head("r", "values", 1))
    assert set(find_ends(Mirror(Graph(proto), device="cpu", heads=heads))) == {"y", "r"}
    straight = model(
        LAST.format(
            outputs="float[N, 4, 6, 5] y", tail="c = Conv (r, h, d)\n y = Softmax<axis=1>(c)"
        )
    )
    heads = (Head("y", "classes", 1), Head("r", "values", 1))
    assert set(find_ends(Mirror(Graph(straight), device="cpu", heads=heads))) == {"c", "r"}


# What is no sum is crossed to first order


@pytest.mark.parametrize(
    "way", ["Softmax <axis = 1>", "Sigmoid", "HardSigmoid", "Softmax <axis = 3>"]
)
def test_across_an_activation_relevance_is_input_times_gradient(way: str) -> None:
    tail = f"s = {way} (a)\n y = Conv (s, h)"
    proto = model(
        LAST.format(outputs="float[N, 4, 6, 5] y", tail=tail).replace("r = Relu (a)\n", "")
    )
    x = images(proto, 3)
    mirror = Mirror(Graph(proto), device="cpu", dtype=torch.float64, heads=[Head("y", "values", 1)])
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (3, 4, 6, 5)))

    def starts(ends: Tensors) -> list[Tensors]:
        return [{"y": signs * ends["y"]}]

    (found,) = explain(mirror, x, starts, EPSILON, ["a"])
    held = {t.name: onnx.numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
    w, b, h = (torch.from_numpy(held[name]).double() for name in ("w", "b", "h"))
    a = torch.conv2d(torch.from_numpy(x).double(), w, b, padding=1).requires_grad_()
    across = {
        "Softmax <axis = 1>": lambda: a.softmax(1),
        "Softmax <axis = 3>": lambda: a.softmax(3),
        "Sigmoid": a.sigmoid,
        "HardSigmoid": lambda: (0.2 * a + 0.5).clamp(0, 1),
    }[way]
    (slope,) = torch.autograd.grad((signs * torch.conv2d(across(), h)).sum(), [a])
    torch.testing.assert_close(found["a"], a.detach() * slope, rtol=1e-3, atol=2e-4)
