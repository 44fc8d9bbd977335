"""A layer is fitted to what the activation behind it lets through."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto

from onnxprune.compensate import activated
from onnxprune.compensate.activated import (
    LOOKS,
    POSITIONS,
    Missing,
    Start,
    activation_of,
    apart,
    positions_of,
    refine,
    sample,
)
from onnxprune.graph import Graph
from onnxprune.ops import has_patches, patches
from onnxprune.relevance import Mirror
from tests.support.models import images, model, relative_error, run
from tests.support.trial import LINEAR, SAME, Array, Trial, constants

pytestmark = pytest.mark.usefixtures("one_thread")

DEAD = [1, 2, 5]

NET = """
g (float[N,3,9,9] x) => (float[N,5,7,7] y)
<float[6,3,1,1] w, float[6] b, float[4,6,3,3] v, float[4] c, float[5,4,1,1] u, float[5] d> {
  a = Conv(x, w, b)
  r = Relu(a)
  m = Conv(r, v, c)
  BEHIND
  y = Conv(s, u, d)
}
"""
RELU = NET.replace("BEHIND", "s = Relu(m)")
DENSE = """
g (float[N,3,6,6] x) => (float[N,5] y)
<float[6,3,1,1] w, float[6] b, float[4,6] v, float[4] c, float[5,4] u, float[5] d> {
  a = Conv(x, w, b)
  h = Relu(a)
  p = GlobalAveragePool(h)
  r = Flatten(p)
  m = Gemm<transB=1>(r, v, c)
  s = Relu(m)
  y = Gemm<transB=1>(s, u, d)
}
"""
TURNED = DENSE.replace("[4,6] v", "[6,4] v").replace("Gemm<transB=1>(r", "Gemm(r")
ROW = NET.replace("9,9", "9").replace("7,7", "7").replace("1,1", "1").replace("3,3", "3")
ROW = ROW.replace("BEHIND", "s = Relu(m)")


@pytest.mark.parametrize(
    ("samples", "positions"), [(1, POSITIONS), (LOOKS // POSITIONS + 1, POSITIONS - 1), (300, 10)]
)
def test_of_many_samples_fewer_positions_are_looked_at(samples: int, positions: int) -> None:
    assert positions_of(samples) == positions
    assert positions_of(10**6) == 1


def behind(*lines: str) -> str:
    return NET.replace("BEHIND", "\n  ".join(lines))


def inside(proto: ModelProto, name: str, x: Array) -> Array:
    """A tensor inside a model, by onnxruntime."""
    opened = ModelProto()
    opened.CopyFrom(proto)
    del opened.graph.output[:]
    opened.graph.output.add().name = name
    return run(opened, x)[0]


def missing(trial: Trial, proto: ModelProto, name: str = "s") -> Array:
    """The sum of squares that each channel of a tensor is off, where it is looked at."""
    off = inside(proto, name, trial.x) - inside(trial.proto, name, trial.x)
    rows = np.moveaxis(sample(torch.tensor(off)).numpy(), 1, 0).reshape(off.shape[1], -1)
    return (rows.astype(np.float64) ** 2).sum(1)


@pytest.mark.parametrize("positions", [1, 9, POSITIONS])
@pytest.mark.parametrize(
    ("shape", "weight", "how"),
    [
        ("3,9,8", "5,3,3,3", ""),
        ("3,9,8", "5,3,1,1", ""),
        ("3,9,8", "5,3,3,2", "pads=[1,0,2,1]"),
        ("3,20,23", "5,3,3,3", "strides=[2,1], pads=[0,0,1,1]"),
        ("3,20,23", "5,3,3,3", "dilations=[2,3], pads=[3,3,3,3]"),
        ("3,21,12", "5,3,5,3", 'auto_pad="SAME_UPPER", strides=[2,2]'),
        ("3,40", "5,3,3", "pads=[2,0], strides=[2]"),
        ("3,4", "5,3,3", ""),
    ],
)
def test_patches_times_weights_are_the_outputs(
    shape: str, weight: str, how: str, positions: int
) -> None:
    outputs = "N,5" + ",M" * shape.count(",")
    proto = model(
        f"g (float[N,{shape}] x) => (float[{outputs}] y) <float[{weight}] w> "
        f"{{ y = Conv{f'<{how}>' if how else ''}(x, w) }}"
    )
    (node,) = Graph(proto).nodes
    x, kernel = images(proto, 3), constants(proto)["w"]
    y = torch.tensor(run(proto, x)[0])
    assert has_patches(node, kernel.shape[2:])
    seen = patches(node, torch.tensor(x), kernel.shape[2:], apart(y.shape[2:], positions))
    expected = sample(y, positions).movedim(1, 0).flatten(1).numpy()
    found = kernel.reshape(5, -1) @ seen.numpy()
    assert found.shape == expected.shape
    assert 1 <= found.shape[1] / 3 <= max(positions, 2)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("lines", "steps", "end"),
    [
        (["s = Relu(m)"], 1, "s"),
        (["t = Relu(m)", "s = Mul(t, k)"], 2, "s"),
        (["t = Sigmoid(m)", "s = Mul(m, t)"], 2, "s"),
        (["t = Relu(m)", "z = Add(m, t)", "s = MaxPool<kernel_shape=[1,1]>(z)"], 2, "z"),
        (["t = Relu(m)", "p = MaxPool<kernel_shape=[1,1]>(m)", "s = Add(t, p)"], 0, "m"),
        (
            ["t = Relu(m)", "z = Neg(t)", "p = MaxPool<kernel_shape=[1,1]>(t)", "s = Add(z, p)"],
            1,
            "t",
        ),
        (["s = MaxPool<kernel_shape=[1,1]>(m)"], 0, "m"),
    ],
    ids=[
        "relu",
        "scaled",
        "swish",
        "sum with itself",
        "it is read itself",
        "two are read",
        "nothing",
    ],
)
def test_an_activation_ends_where_others_read(lines: list[str], steps: int, end: str) -> None:
    text = behind(*lines).replace("float[5] d>", "float[5] d, float[1] k>")
    found = activation_of(Mirror(Graph(model(text)), device="cpu"), "m")
    assert (len(found.steps), found.end) == (steps, end)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(RELU, id="relu"),
        pytest.param(behind("s = Clip(m, lo, hi)"), id="relu6"),
        pytest.param(behind("t = Sigmoid(m)", "s = Mul(m, t)"), id="swish"),
        pytest.param(behind("t = Relu(m)", "s = Mul(t, k)"), id="scaled"),
        pytest.param(DENSE, id="dense"),
        pytest.param(TURNED, id="turned"),
        pytest.param(ROW, id="row"),
    ],
)
def test_every_channel_is_nearer_behind_its_activation(text: str) -> None:
    more = "float[5] d, float[4,1,1] k>" if "k)" in text else "float[5] d>"
    more = more if "lo, hi" not in text else "float[5] d, float lo = {0.0}, float hi = {6.0}>"
    trial = Trial(text.replace("float[5] d>", more), DEAD, samples=30)
    before = missing(trial, trial.compensated())
    after = missing(trial, trial.compensated(rounds=8))
    assert (after <= before * (1 + SAME)).all()
    assert after.sum() < 0.99 * before.sum()


def test_what_is_found_is_the_least_matching_loss() -> None:
    """As L-BFGS finds it in double precision, with the gradient by torch."""
    trial = Trial(RELU, DEAD, samples=30)
    start = trial.compensated()
    x = torch.tensor(inside(start, "r", trial.x))
    weight, bias = (torch.tensor(constants(start)[name]).double() for name in "vc")
    node = next(node for node in Graph(start).nodes if node.outputs == ("m",))
    seen = patches(node, x, (3, 3), apart((7, 7))).double()
    wanted = sample(torch.tensor(inside(trial.proto, "s", trial.x)))
    wanted = wanted.movedim(1, 0).flatten(1).double()
    spread = ((seen - seen.mean(1, keepdim=True)) ** 2).sum(1).mean()
    moved = weight.flatten(1).clone().requires_grad_()
    shift = bias.clone().requires_grad_()
    solver = torch.optim.LBFGS([moved, shift], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Any:
        solver.zero_grad()
        v = moved @ seen + shift[:, None]
        pull = ((moved - weight.flatten(1)) ** 2).sum()
        found = (v.relu() ** 2 / 2 - wanted * v).sum() + activated.RIDGE * spread * pull / 2
        found.backward()
        return found

    solver.step(loss)
    best = ((moved @ seen + shift[:, None]).relu() - wanted).square().sum(1).detach().numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activated, "ENOUGH", 0.0)
        found = missing(trial, trial.compensated(rounds=300))
    assert found == pytest.approx(best, rel=0.02)


def test_a_kernel_before_nothing_is_fitted_whole_as_numpy_would() -> None:
    trial = Trial(LINEAR.replace("Identity", "Relu"), DEAD, samples=30)
    start = trial.compensated()
    alive = trial.alive("r")
    graph = Graph(start)
    node = next(node for node in graph.nodes if node.outputs == ("y",))
    seen = patches(node, torch.tensor(inside(start, "r", trial.x)), (3, 3), apart((6, 6)))
    rows = np.moveaxis(sample(torch.tensor(trial.tensor("y"))).numpy(), 1, 0).reshape(4, -1)
    old = constants(start)["v"].reshape(4, -1)
    left = (seen - seen.mean(1, keepdim=True)).numpy().astype(np.float64)
    ridge = activated.RIDGE * (left**2).sum(1).mean()
    right = rows - rows.mean(1, keepdims=True)
    stacked = np.vstack([left.T, np.sqrt(ridge) * np.eye(len(left))])
    pulled = np.vstack([right.T, np.sqrt(ridge) * old.T])
    expected = np.linalg.lstsq(stacked, pulled, rcond=None)[0].T
    found = constants(trial.compensated(rounds=1))["v"].reshape(4, -1)
    assert alive.sum() * 9 == found.shape[1]
    assert relative_error(found, expected) < SAME
    (y,) = run(trial.compensated(rounds=1), trial.x)
    means = sample(torch.tensor(y)).mean((0, 2, 3)).numpy()
    assert relative_error(means, rows.mean(1)) < SAME


class Scripted:
    """Batches of one input and two outputs that say in each round what they were told to say."""

    def __init__(self, squares: list[tuple[float, float]]) -> None:
        self.left, self.asked = iter(squares), list[activated.Change]()

    def ask(self, answer: Any = None) -> Iterator[Missing]:
        self.asked.append(answer[0])
        yield Missing(np.zeros(2), np.ones((2, 1)), np.array(next(self.left)))

    def close(self) -> None: ...


def test_each_output_keeps_the_round_that_was_nearest() -> None:
    batches = Scripted([(9, 9), (4, 8), (5, 2), (6, 3)])
    start = Start(4, np.ones((1, 1)), np.zeros(1), np.ones(2))
    found = refine(batches, [start], 3)
    assert found is not None
    assert found.weight[0] == batches.asked[1].weight[0] != batches.asked[2].weight[0]
    assert found.weight[1] == batches.asked[2].weight[1] != batches.asked[3].weight[1]


@pytest.mark.parametrize("factor", [5.0, -0.2])
def test_a_scale_behind_the_activation_changes_nothing(factor: float) -> None:
    def fitted(k: float) -> Array:
        text = behind("t = Relu(m)", "s = Mul(t, k)")
        text = text.replace("float[5] d>", f"float[5] d, float k = {{{k}}}>")
        return constants(Trial(text, DEAD, samples=30).compensated(rounds=8))["v"]

    assert relative_error(fitted(factor), fitted(1.0)) < SAME


def test_batches_say_together_what_one_says() -> None:
    trial = Trial(RELU, DEAD, samples=30)
    whole = constants(trial.compensated(rounds=8, batch_size=30))["v"]
    parts = constants(trial.compensated(rounds=8, batch_size=4))["v"]
    assert relative_error(parts, whole) < 10 * SAME


@pytest.mark.parametrize("text", [RELU, DENSE])
def test_a_layer_of_many_rows_stays_as_it_is(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(text, DEAD, samples=30)
    rows = 3 if text is DENSE else 27
    monkeypatch.setattr(activated, "MOST", rows)
    assert trial.compensated(rounds=8) != trial.compensated()
    monkeypatch.setattr(activated, "MOST", rows - 1)
    assert trial.compensated(rounds=8) == trial.compensated()


def test_channels_that_say_nothing_keep_their_weights() -> None:
    """What is left of a layer's input is constant: there is nothing to regress on."""

    def still(arrays: dict[str, Array]) -> None:
        arrays["w"][[0, 3, 4]] = 0.0

    trial = Trial(RELU, DEAD, change=still, samples=30)
    assert trial.compensated(rounds=8) == trial.compensated()
