"""Criteria, judged by plain torch, numpy and onnxruntime on small nets."""

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch.nn import functional

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.data import Data
from onnxprune.errors import DataError, InvalidModel, UnsupportedOp
from onnxprune.graph.graph import Graph
from onnxprune.relevance.batches import batches_of
from onnxprune.relevance.criteria import score
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import RULES
from tests.support.models import model, run
from tests.support.scoring import (
    CLOSE,
    LABELS,
    NET,
    assert_scores,
    class_means,
    constants,
    forward,
    normalised,
    setting,
)


def test_lrp_is_the_mean_absolute_relevance_of_the_filters_of_a_channel() -> None:
    graph, groups, data = setting()
    mirror = Mirror(graph, device="cpu", dtype=torch.float64)
    for rule in RULES:
        whole = relevance(mirror, data.x, data.y, RULES[rule], ["a", "c"])
        expected = sum(class_means(np.abs(whole[n].sum((2, 3)).numpy())) for n in ("a", "c"))
        found = score(graph, groups, data, f"lrp:{rule}", device="cpu", batch_size=3)
        assert_scores(found, np.asarray(expected))
        assert found.classes == ("cat", "dog", "ship")
    assert_scores(score(graph, groups, data, device="cpu"), score_of(graph, groups, data))


def score_of(graph: Graph, groups: ChannelGroups, data: Data) -> npt.NDArray[np.float64]:
    return score(graph, groups, data, "lrp:epsilon", device="cpu").values


def test_lrp_of_one_layer_by_hand() -> None:
    """Without hidden layers, a filter's relevance is its term in the logits."""
    text = """
    g (float[N,1,2,2] x) => (float[N,2] z)
    <float[2,1,1,1] w = {2.0, -1.0}, float[2,2] v = {1.0, 0.0, 0.0, 3.0}> {
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      f = Flatten(p)
      z = MatMul(f, v)
    }
    """
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>{text}')
    graph = Graph(proto)
    x = np.full((1, 1, 2, 2), 5, np.float32)
    found = score(graph, find_groups(graph), Data(x, np.array([1]), ("n", "y")), device="cpu")
    # z = (10, -15); (1[k = y] - 1/2) z = (-5, -7.5); scaled by 12.5.
    np.testing.assert_allclose(found.values, [[0, 0], [5 / 12.5, 7.5 / 12.5]], rtol=1e-5)


def test_taylor_is_activation_times_gradient_of_the_loss() -> None:
    graph, groups, data = setting()
    a, c, z = forward(graph, torch.tensor(data.x).requires_grad_())
    loss = functional.cross_entropy(z, torch.tensor(data.y), reduction="sum")
    grads = torch.autograd.grad(loss, [a, c])
    expected = sum(
        normalised(class_means((t * g).sum((2, 3)).abs().detach().double().numpy()))
        for t, g in zip((a, c), grads, strict=True)
    )
    found = score(graph, groups, data, "taylor", device="cpu", batch_size=4)
    assert_scores(found, np.asarray(expected))


def test_gradient_is_the_slope_of_the_loss_in_a_filters_bias() -> None:
    graph, groups, data = setting()
    values = []
    for k in range(len(LABELS)):
        w = constants(graph)
        biases = [w["b1"].requires_grad_(), w["b2"].requires_grad_()]
        a = functional.conv2d(torch.tensor(data.x[k : k + 1]), w["w1"], biases[0], padding=1)
        r = torch.relu(a)
        c = functional.conv2d(r, w["w2"], biases[1], padding=1)
        z = torch.relu(r + c).mean((2, 3)) @ w["v"]
        loss = functional.cross_entropy(z, torch.tensor(data.y[k : k + 1]))
        values.append([g.double().numpy() for g in torch.autograd.grad(loss, biases)])
    layers = [np.array([v[i] for v in values]) for i in range(2)]
    for option, sign in (
        ("", np.abs),
        (":summed", lambda v: v),
        (":positive", lambda v: v.clip(0)),
    ):
        expected = sum(normalised(class_means(sign(layer))) for layer in layers)
        found = score(graph, groups, data, f"gradient{option}", device="cpu", batch_size=4)
        assert_scores(found, np.asarray(expected))


def test_the_scale_of_a_normalisation_is_its_absolute_value() -> None:
    text = NET.replace("r = Relu(a)", "n = BatchNormalization(a, q1, q2, q3, var)  r = Relu(n)")
    text = text.replace(
        "float[4] b2", "float[4] b2, float[4] q1, float[4] q2, float[4] q3, float[4] var"
    )
    graph, groups, _ = setting(text)
    scale = np.abs(graph.constant("q1").astype(np.float64))
    alike = np.ones(4) / 2  # the other convolution has none: its filters count alike
    found = score(graph, groups, criterion="batchnorm-scale")
    np.testing.assert_allclose(found.values, [scale / np.linalg.norm(scale) + alike], rtol=1e-6)
    with pytest.raises(InvalidModel, match="no convolution is followed by a batch normalisation"):
        score(*setting()[:2], criterion="batchnorm-scale")


def test_a_single_logit_is_that_of_class_one() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,1] y) <float[4,3,3,3] w1, float[4,1] v> {
      a = Conv(x, w1)
      r = Relu(a)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      z = MatMul(f, v)
      y = Sigmoid(z)
    }
    """
    graph, groups, data = setting(text)
    data = Data(data.x, np.minimum(data.y, 1), ("no", "yes"))
    w = constants(graph)
    a = functional.conv2d(torch.tensor(data.x), w["w1"]).requires_grad_()
    p = torch.sigmoid(torch.relu(a).mean((2, 3)) @ w["v"])[:, 0]
    loss = -torch.where(torch.tensor(data.y) == 1, p, 1 - p).log().sum()
    (grad,) = torch.autograd.grad(loss, a)
    values = (a * grad).sum((2, 3)).abs().detach().double().numpy()
    rows = np.array([values[data.y == c].mean(0) for c in range(2)])
    assert_scores(score(graph, groups, data, "taylor", device="cpu"), normalised(rows))
    assert score(graph, groups, data, "lrp", device="cpu").values.all()


def test_activation_is_the_mean_of_what_passes_a_relu() -> None:
    graph, groups, data = setting()
    watched = onnx.ModelProto()
    watched.CopyFrom(graph.model)
    for name in ("a", "c"):
        watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    _, *tensors = run(watched, data.x)
    expected = sum(normalised(class_means(np.maximum(t, 0).mean((2, 3)))) for t in tensors)
    found = score(graph, groups, data, "activation", device="cpu", batch_size=4)
    assert_scores(found, np.asarray(expected))


@pytest.mark.parametrize(("criterion", "order"), [("magnitude", 2), ("magnitude:l1", 1)])
def test_magnitude_is_the_norm_of_the_weights_relative_to_the_layer(
    criterion: str, order: int
) -> None:
    graph, groups, _ = setting()
    rows = [graph.constant(n).reshape(4, -1).astype(np.float64) for n in ("w1", "w2")]
    norms = [(np.abs(w) ** order).sum(1) ** (1 / order) for w in rows]
    expected = sum(n / np.sqrt((n**2).sum()) for n in norms)
    found = score(graph, groups, criterion=criterion)
    np.testing.assert_allclose(found.values, [expected], rtol=1e-6)
    assert found.classes == ("all",)


def test_the_filter_at_the_geometric_median_matters_least() -> None:
    graph, groups, _ = setting()
    expected = np.zeros(4)
    for name in ("w1", "w2"):
        w = graph.constant(name).reshape(4, -1).astype(np.float64)
        far = np.array([sum(np.linalg.norm(w[i] - w[j]) for j in range(4)) for i in range(4)])
        expected += far / np.linalg.norm(far)
    found = score(graph, groups, criterion="geometric-median")
    np.testing.assert_allclose(found.values, [expected], rtol=1e-6)


def test_random_scores_follow_the_generator() -> None:
    graph, groups, _ = setting()
    one, two, other = (
        score(graph, groups, criterion="random", rng=np.random.default_rng(seed)).values
        for seed in (3, 3, 4)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    default = score(graph, groups, criterion="random").values
    assert np.array_equal(default, score(graph, groups, criterion="random").values)


@pytest.mark.parametrize("criterion", ["lrp", "taylor", "activation"])
def test_the_size_of_batches_does_not_matter(criterion: str) -> None:
    graph, groups, data = setting()
    whole, parts = (
        score(graph, groups, data, criterion, device="cpu", batch_size=size).values
        for size in (32, 2)
    )
    np.testing.assert_allclose(whole, parts, rtol=CLOSE)


def test_normalisation_is_folded_into_the_filters_it_follows() -> None:
    text = NET.replace("r = Relu(a)", "n = BatchNormalization(a, q1, q2, q3, var)  r = Relu(n)")
    text = text.replace("float[4] b2", "float[4] b2, float[4] q1, float[4] q2, float[4] q3,")
    graph, groups, data = setting(text.replace("q3,,", "q3, float[4] var,"))
    found = score(graph, groups, data, "activation", device="cpu")
    trace = Mirror(graph, device="cpu").trace(data.x)
    tensors = [trace[name].clamp(min=0).mean((2, 3)).double().numpy() for name in ("n", "c")]
    assert_scores(found, np.asarray(sum(normalised(class_means(t)) for t in tensors)))


# Models with a fixed batch size

FIXED = NET.replace("float[N,3,8,8]", "float[1,3,8,8]").replace("float[N,3]", "float[1,3]")
BAKED = FIXED.replace("f = Flatten(p)", "f = Reshape(p, flat)").replace(
    "<float[4,3", "<int64[2] flat = {1, 4}, float[4,3"
)
STUCK = BAKED.replace("f = Reshape(p, flat)", "e = Reshape(p, all)  f = Reshape(e, flat)").replace(
    "<int64[2]", "<int64[1] all = {4}, int64[2]"
)
AXED = NET.replace(
    "f = Flatten(p)",
    "e = Flatten(p)  m = ReduceSum<keepdims=0>(e, one)  u = Unsqueeze(m, one)  h = Mul(u, nil)\n"
    "  f = Add(e, h)",
).replace("<float[4,3", "<int64[1] one = {1}, float[1] nil = {0}, float[4,3")
"""A sum over axis 1 of one sample has the shape [1], which its axes do not state."""


@pytest.mark.parametrize("criterion", ["lrp", "taylor"])
@pytest.mark.parametrize(
    "text", [FIXED, BAKED, STUCK, AXED], ids=["in name", "in shapes", "stuck", "an axis alike"]
)
def test_a_fixed_batch_of_one_scores_the_same(text: str, criterion: str) -> None:
    graph, groups, data = setting()
    expected = score(graph, groups, data, criterion, device="cpu")
    fixed = Graph(model(text))
    assert_scores(score(fixed, find_groups(fixed), data, criterion, device="cpu"), expected.values)


def test_a_fixed_batch_is_filled_up() -> None:
    graph, groups, data = setting()
    text = (
        STUCK.replace("float[1,3", "float[4,3").replace("{1, 4}", "{4, 4}").replace("{4}", "{16}")
    )
    fixed = Graph(model(text))
    found = score(fixed, find_groups(fixed), data, device="cpu")
    assert_scores(found, score(graph, groups, data, device="cpu").values)
    sizes = [(len(x), len(y)) for x, y in batches_of(Mirror(fixed, device="cpu"), data, 32)]
    assert sizes == [(4, 4), (4, 3)]


def test_a_batch_size_that_is_one_in_name_only_is_not_kept() -> None:
    _, _, data = setting()
    by_text = {}
    for text in (FIXED, BAKED, STUCK):
        mirror = Mirror(Graph(model(text)), device="cpu")
        by_text[text] = [len(x) for x, _ in batches_of(mirror, data, 5)]
    assert by_text == {FIXED: [5, 2], BAKED: [5, 2], STUCK: 7 * [1]}


def test_a_batch_whose_samples_are_mixed_keeps_its_size() -> None:
    """Any size could be computed, but with another result."""
    _, _, data = setting()
    text = NET.replace("float[N,3", "float[4,3").replace(
        "y = Softmax(z)", "m = ReduceMean<axes=[0]>(z)  d = Sub(z, m)  y = Softmax(d)"
    )
    mirror = Mirror(Graph(model(text)), device="cpu")
    assert [len(x) for x, _ in batches_of(mirror, data, 7)] == [4, 4]


# What can go wrong


@pytest.mark.parametrize("criterion", ["lrp", "taylor", "gradient", "activation"])
def test_criteria_on_samples_ask_for_samples(criterion: str) -> None:
    graph, groups, data = setting()
    empty = Data(data.x[:0], data.y[:0], data.classes)
    for nothing in (None, empty):
        with pytest.raises(DataError, match=r"needs samples; give data, or use one of magnitude"):
            score(graph, groups, nothing, criterion)


def test_labels_beyond_the_classes_or_the_outputs_are_named() -> None:
    graph, groups, data = setting()
    with pytest.raises(DataError, match="label 2, but 2 class names"):
        score(graph, groups, Data(data.x, data.y, ("cat", "dog")), device="cpu")
    five = Data(data.x, data.y + 2, ("a", "b", "c", "d", "e"))
    for criterion in ("lrp", "taylor"):
        with pytest.raises(DataError, match="label 4, expected 0 to 2: the model has 3 outputs"):
            score(graph, groups, five, criterion, device="cpu")


def test_a_convolution_off_the_way_to_the_output_scores_zero(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = NET.replace("y = Softmax(z)", "y = Softmax(z)  e = Conv(r, w2)")
    graph, groups, data = setting(text)
    for criterion in ("lrp", "taylor", "activation"):
        values = score(graph, groups, data, criterion, device="cpu").values
        assert (values[:, 4:] == 0).all()
        assert "convolution output 'e' has no way to the output: scores 0" in caplog.text
        caplog.clear()


def test_lrp_refuses_what_it_cannot_cross_and_others_do_not_mind() -> None:
    graph, groups, data = setting(NET.replace("t = Relu(s)", "t = Hardmax<axis=1>(s)"))
    with pytest.raises(UnsupportedOp, match="Hardmax 't': LRP is not defined across Hardmax"):
        score(graph, groups, data, device="cpu")
    assert score(graph, groups, data, "activation", device="cpu").values.any()


# Weights that the graph computes


def test_computed_weights_are_computed() -> None:
    text = NET.replace(
        "c = Conv<pads=[1,1,1,1]>(r, w2, b2)", "k = Neg(w2) c = Conv<pads=[1,1,1,1]>(r, k, b2)"
    )
    graph, groups, _ = setting(text)
    plain, plain_groups, _ = setting()
    found = score(graph, groups, criterion="magnitude").values
    expected = score(plain, plain_groups, criterion="magnitude").values
    np.testing.assert_allclose(found, expected, rtol=1e-6)
