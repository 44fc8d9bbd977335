"""The regression against numpy, and what it gives back on nets where the answer is known."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper

from onnxprune import compensate
from onnxprune.channels import BoolArray, ChannelGroups, find_groups
from onnxprune.compensate import METHODS, compensator
from onnxprune.data import Data
from onnxprune.errors import DataError, UnknownName
from onnxprune.graph import Graph
from onnxprune.least_squares import RIDGE, RIDGES, Products, choose_ridge, multiply
from onnxprune.ops import OPS
from onnxprune.readers import find_readers
from onnxprune.surgery import prune
from tests.models import HEADER, images, model, relative_error, run
from tests.test_surgery import half

Array = npt.NDArray[Any]

RESTORED = 1e-4
"""Relative; what a ridge of `TINY` and single precision leave of a difference."""
TINY = 1e-5
"""A ridge just large enough for products summed in single precision."""
SAME = 1e-4
"""Relative; single against double precision, through a linear system."""

CHAIN = """
g (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[6,3,1,1] w, float[6] b, float[4,6,3,3] v, float[4] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  y = Conv(r, v, c)
}
"""
NO_BIAS = CHAIN.replace("float[4,6,3,3] v, float[4] c", "float[4,6,3,3] v").replace("v, c", "v")
LINEAR = CHAIN.replace("r = Relu(a)", "r = Identity(a)")
WIDE = CHAIN.replace("8,8", "36,8").replace("6,6", "34,6")
TRANSPOSED = """
g (float[N,3,8,8] x) => (float[N,4,17,17] y)
<float[6,3,1,1] w, float[6] b, float[6,4,3,3] v, float[4] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  y = ConvTranspose<strides=[2,2]>(r, v, c)
}
"""
FLAT = """
g (float[N,3,4,4] x) => (float[N,5] y)
<float[6,3,3,3] w, float[6] b, float[24,5] v, float[5] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  f = Flatten(r)
  y = Gemm<alpha=0.5, beta=2.0>(f, v, c)
}
"""
FLAT_LAST = FLAT.replace("f = Flatten(r)", "t = Transpose<perm=[0,2,3,1]>(r)\n  f = Flatten(t)")
POOLED = """
g (float[N,3,6,6] x) => (float[N,5] y)
<float[6,3,3,3] w, float[6] b, float[5,6] v, float[5] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  y = Gemm<transB=1>(f, v, c)
}
"""
PRODUCT = POOLED.replace("<transB=1>", "").replace("[5,6] v, float[5] c", "[6,5] v")
PRODUCT = PRODUCT.replace("Gemm(f, v, c)", "MatMul(f, v)")
MULTIPLIED = """
g (float[N,3,8,8] x) => (float[N,5] y)
<float[6,3,1,1] w, float[12,1,3,3] d, float[12,5] v> {
  a = Conv(x, w)
  e = Conv<group=6>(a, d)
  p = GlobalAveragePool(e)
  f = Flatten(p)
  y = MatMul(f, v)
}
"""
CNN = """
g (float[N,3,12,12] x) => (float[N,3] y)
<float[8,3,3,3] w1, float[8] s1, float[8] b1, float[8] m1, float[8] var1,
 float[8,8,3,3] w2, float[8,1,3,3] w3, float[10,8,1,1] w4, float[10] b4,
 float[90,3] w5, float[3] b5> {
  a1 = Conv<pads=[1,1,1,1]>(x, w1)
  n1 = BatchNormalization(a1, s1, b1, m1, var1)
  r1 = Relu(n1)
  a2 = Conv<pads=[1,1,1,1]>(r1, w2)
  s = Add(a2, r1)
  r2 = Relu(s)
  a3 = Conv<group=8, pads=[1,1,1,1]>(r2, w3)
  r3 = Relu(a3)
  a4 = Conv(r3, w4, b4)
  r4 = Relu(a4)
  p = MaxPool<kernel_shape=[4,4], strides=[4,4]>(r4)
  f = Flatten(p)
  y = Gemm(f, w5, b5)
}
"""

transposed = pytest.mark.skipif(
    ("", "ConvTranspose") not in OPS, reason="ConvTranspose is not described yet"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Trial:
    """A model with random images, some channels of which are removed."""

    def __init__(
        self,
        text: str,
        dead: list[int] | None = None,
        *,
        change: Callable[[dict[str, Array]], Any] | None = None,
        samples: int = 12,
        header: str = HEADER,
    ) -> None:
        self.proto = model(text, header=header)
        if change is not None:
            arrays = {t.name: numpy_helper.to_array(t).copy() for t in self.proto.graph.initializer}
            change(arrays)
            for tensor in self.proto.graph.initializer:
                tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
        self.graph = Graph(self.proto)
        self.groups: ChannelGroups = find_groups(self.graph)
        self.x = images(self.proto, samples)
        self.data = Data(self.x, np.zeros(samples, np.int64), ("one",))
        self.dead: BoolArray = half(self.groups)
        if dead is not None:
            self.dead = np.isin(np.arange(len(self.groups)), dead)
        self.pruned = prune(self.graph, self.groups, self.dead)

    def compensated(self, method: str = "least-squares", **options: Any) -> ModelProto:
        options = {"ridge": RIDGE, "device": "cpu", "batch_size": 5, **options}
        correct = compensator(self.graph, self.groups, self.data, method, **options)
        assert correct is not None
        changed = correct(self.pruned, self.dead)
        onnx.checker.check_model(changed, full_check=True)
        return changed

    def error(self, proto: ModelProto) -> float:
        return relative_error(run(proto, self.x)[0], run(self.proto, self.x)[0])

    def alive(self, name: str) -> BoolArray:
        """Which channels of a tensor survive."""
        return ~self.dead[self.groups.cuts[name][1]]

    def tensor(self, name: str, proto: ModelProto | None = None) -> Array:
        """A tensor inside the model, by onnxruntime; or a constant of `proto`."""
        if proto is not None:
            return constants(proto)[name]
        opened = ModelProto()
        opened.CopyFrom(self.proto)
        del opened.graph.output[:]
        opened.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
        return run(opened, self.x)[0]


def constants(proto: ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def ridge_by_lstsq(full: Array, kept: Array, alive: BoolArray, *, centre: bool = True) -> Array:
    """The ridge regression as a least-squares problem with extra rows, by numpy."""
    full, kept = full.astype(np.float64), kept.astype(np.float64)
    if centre:
        full, kept = (rows - rows.mean(1, keepdims=True) for rows in (full, kept))
    weight = RIDGE * (kept**2).sum(1).mean()
    stays = np.eye(len(full))[:, alive]
    left = np.vstack([kept.T, np.sqrt(weight) * np.eye(len(kept))])
    right = np.vstack([full.T, np.sqrt(weight) * stays.T])
    return np.linalg.lstsq(left, right, rcond=None)[0].T


def rows_of(x: Array) -> Array:
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(
    "text", [CHAIN, FLAT, PRODUCT, CNN], ids=["chain", "flat", "matmul", "cnn"]
)
def test_with_nothing_removed_the_model_comes_back_equal(text: str, method: str) -> None:
    trial = Trial(text, [])
    assert trial.compensated(method).SerializeToString() == trial.proto.SerializeToString()


def test_none_is_no_compensation() -> None:
    trial = Trial(CHAIN)
    assert compensator(trial.graph, trial.groups, None, "none") is None


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    trial = Trial(CHAIN)
    with pytest.raises(UnknownName, match="'ridge': unknown; expected one of none, bias, least"):
        compensator(trial.graph, trial.groups, trial.data, "ridge")


@pytest.mark.parametrize("method", METHODS[1:])
def test_samples_are_asked_for(method: str) -> None:
    trial = Trial(CHAIN)
    with pytest.raises(DataError, match=f"'{method}': needs reference samples; give --data"):
        compensator(trial.graph, trial.groups, None, method)


# What the answer must be


def combine(arrays: dict[str, Array]) -> None:
    """Make filter 2 a combination of filters 0 and 4."""
    arrays["w"][2] = 0.5 * arrays["w"][0] - arrays["w"][4]
    arrays["b"][2] = 3.0


def still(arrays: dict[str, Array]) -> None:
    """Make filters 1 and 4 constant: they see nothing."""
    arrays["w"][[1, 4]] = 0.0
    arrays["b"][[1, 4]] = 0.7, 1.5


@pytest.mark.parametrize("text", [LINEAR, FLAT.replace("Relu", "Identity")], ids=["conv", "flat"])
def test_least_squares_restores_a_combination_of_kept_channels(text: str) -> None:
    trial = Trial(text, [2], change=combine)
    assert trial.error(trial.pruned) > 0.1
    assert trial.error(trial.compensated(ridge=TINY)) < RESTORED


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(
    "text", [CHAIN, NO_BIAS, FLAT, FLAT_LAST, POOLED], ids=["conv", "new", "flat", "nhwc", "pooled"]
)
def test_constant_channels_move_into_the_bias(text: str, method: str) -> None:
    trial = Trial(text, [1, 4], change=still)
    assert trial.error(trial.pruned) > 0.05
    assert trial.error(trial.compensated(method)) < RESTORED


def test_a_dead_channel_leaves_nothing_to_correct() -> None:
    def silence(arrays: dict[str, Array]) -> None:
        arrays["w"][1], arrays["b"][1] = 0.0, -1.0

    trial = Trial(CHAIN, [1], change=silence)
    assert trial.error(trial.compensated()) < RESTORED


def test_bias_restores_the_mean_output_of_a_padded_convolution() -> None:
    trial = Trial(CHAIN.replace("Conv(r", "Conv<pads=[1,1,1,1]>(r").replace("6,6", "8,8"))
    mean = run(trial.proto, trial.x)[0].mean((0, 2, 3))
    found = run(trial.compensated("bias"), trial.x)[0].mean((0, 2, 3))
    assert relative_error(found, mean) < RESTORED


@pytest.mark.parametrize("text", [CHAIN, FLAT, POOLED, pytest.param(TRANSPOSED, marks=transposed)])
def test_least_squares_restores_the_mean_output(text: str) -> None:
    trial = Trial(text)
    expected, found = (run(p, trial.x)[0] for p in (trial.proto, trial.compensated()))
    others = (0, *range(2, expected.ndim))
    assert relative_error(found.mean(others), expected.mean(others)) < RESTORED


# Against numpy


@pytest.mark.parametrize(("text", "step"), [(CHAIN, 1), (WIDE, 2)], ids=["narrow", "wide"])
def test_a_convolution_is_refitted_as_numpy_would(text: str, step: int) -> None:
    trial = Trial(text, [1, 2, 5])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r")[:, :, ::step])
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("ochw,ck->okhw", trial.tensor("v", trial.proto), channel_map)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME


@transposed
def test_a_transposed_convolution_is_refitted_as_numpy_would() -> None:
    trial = Trial(TRANSPOSED, [0, 3])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("cohw,ck->kohw", trial.tensor("v", trial.proto), channel_map)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME


@pytest.mark.parametrize("text", [FLAT, FLAT_LAST], ids=["nchw", "nhwc"])
def test_a_flattened_map_is_refitted_channel_by_channel(text: str) -> None:
    trial = Trial(text, [1, 2, 5])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    old, new = trial.tensor("v", trial.proto), trial.tensor("v", trial.compensated())
    if text is FLAT:
        weight = np.einsum("cpo,ck->kpo", old.reshape(6, 4, 5), channel_map)
    else:
        weight = np.einsum("pco,ck->pko", old.reshape(4, 6, 5), channel_map)
    assert relative_error(new, weight.reshape(new.shape)) < SAME


def test_a_product_without_bias_is_refitted_uncentred() -> None:
    trial = Trial(PRODUCT, [1, 2])
    alive = trial.alive("f")
    rows = rows_of(trial.tensor("f"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive, centre=False)
    weight = channel_map.T @ trial.tensor("v", trial.proto)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME
    assert trial.compensated("bias") == trial.pruned


def test_filters_of_one_channel_are_not_taken_for_positions_of_a_map() -> None:
    trial = Trial(MULTIPLIED, [1, 2])
    alive = trial.alive("f")
    rows = rows_of(trial.tensor("f"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive, centre=False)
    weight = channel_map.T @ trial.tensor("v", trial.proto)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME


def test_later_layers_see_what_the_corrected_ones_produce() -> None:
    """The head is fitted to the outputs of the re-fitted middle layer, not to those of the net."""
    trial = Trial(CNN)
    changed = trial.compensated()
    alive = trial.alive("p")
    full = rows_of(trial.tensor("p"))
    inner = ModelProto()
    inner.CopyFrom(changed)
    del inner.graph.output[:]
    inner.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, None))
    channel_map = ridge_by_lstsq(full, rows_of(run(inner, trial.x)[0]), alive)
    old = trial.tensor("w5", trial.proto).reshape(10, 9, 3)
    weight = np.einsum("cpo,ck->kpo", old, channel_map).reshape(-1, 3)
    assert relative_error(trial.tensor("w5", changed), weight) < SAME


def regression(full: Array, kept: Array, alive: BoolArray, folds: Array | None = None) -> Products:
    if folds is None:
        folds = np.zeros(full.shape[1], np.int64)
    return multiply([torch.from_numpy(full)], [torch.from_numpy(kept)], alive, [folds])


def test_regression_keeps_what_is_not_missing() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 50))
    found = regression(rows, rows, np.ones(4, np.bool_)).solve(RIDGE)
    assert np.allclose(found.numpy(), np.eye(4), atol=1e-9)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_regression_without_evidence_changes_nothing(value: float) -> None:
    alive = np.array([True, False, True])
    products = regression(np.full((3, 8), value), np.full((2, 8), value), alive)
    expected = np.eye(3)[:, alive].tolist()
    assert products.solve(RIDGE).tolist() == expected
    assert products.solve(choose_ridge(products, torch.ones(3, 2))).tolist() == expected


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 5.0, 50.0])
def test_the_ridge_is_the_one_that_errs_least_on_samples_left_out(noise: float) -> None:
    rng = np.random.default_rng(0)
    alive = np.arange(9) < 6
    folds = np.repeat(np.arange(8) % 3, 4)
    kept = rng.normal(size=(6, 32))
    gone = rng.normal(size=(3, 6)) @ kept + noise * rng.normal(size=(3, 32))
    full = np.concatenate([kept + 0.2 * rng.normal(size=kept.shape), gone])
    weight = rng.normal(size=(9, 5))
    centred = [rows - rows.mean(1, keepdims=True) for rows in (full, kept)]

    def error(ridge: float) -> float:
        total = 0.0
        for fold in range(3):
            (x, x_k), own = [rows[:, folds != fold] for rows in centred], folds == fold
            stays = np.eye(9)[:, alive]
            fitted = stays
            if ridge < np.inf:
                held = x_k @ x_k.T + ridge * (x_k**2).sum(1).mean() * np.eye(6)
                fitted = stays + (x - stays @ x_k) @ x_k.T @ np.linalg.inv(held)
            total += float(((weight.T @ (centred[0] - fitted @ centred[1])[:, own]) ** 2).sum())
        return total

    products = regression(full, kept, alive, folds)
    assert choose_ridge(products, torch.from_numpy(weight)) == min((*RIDGES, np.inf), key=error)


@pytest.mark.parametrize("text", [CHAIN, FLAT, WIDE])
def test_columns_are_told_by_their_sample(text: str) -> None:
    trial = Trial(text)
    (reader,) = find_readers(trial.graph, trial.groups)
    shape = list(trial.graph.shape(reader.node.inputs[0]) or ())
    samples = torch.arange(7.0).reshape(-1, *[1] * (len(shape) - 1)).expand(7, *shape[1:])
    rows = reader.rows(samples)
    assert (rows.numpy() == reader.columns(7, rows.shape[1])).all()
    assert (reader.by_sample(rows, 7) == rows.shape[1] // 7 * torch.arange(7.0)[:, None]).all()


# On a whole net


@pytest.mark.parametrize("seed", range(4))
def test_least_squares_lowers_the_error_on_the_references(seed: int) -> None:
    trial = Trial(CNN, samples=24)
    trial.dead = half(trial.groups, seed)
    trial.pruned = prune(trial.graph, trial.groups, trial.dead)
    assert trial.error(trial.compensated()) < 0.6 * trial.error(trial.pruned)


@pytest.mark.parametrize("method", METHODS[1:])
def test_only_values_change(method: str) -> None:
    trial = Trial(CNN)
    before = trial.pruned.SerializeToString()
    changed = trial.compensated(method)
    assert trial.pruned.SerializeToString() == before
    assert [y.shape for y in run(changed, trial.x)] == [y.shape for y in run(trial.pruned, trial.x)]
    old, new = constants(trial.pruned), constants(changed)
    assert {name: array.shape for name, array in new.items() if name in old} == {
        name: array.shape for name, array in old.items()
    }
    added = new.keys() - old.keys()
    untouched = {name for name in old if (old[name] == new[name]).all()}
    refitted = {"bias": {"b4", "b5"}, "least-squares": {"w2", "w4", "b4", "w5", "b5"}}[method]
    assert untouched == old.keys() - refitted
    assert len(added) == 1  # the second convolution had no bias
    for a, b in zip(trial.pruned.graph.node, changed.graph.node, strict=True):
        assert (a.name, a.op_type, a.output, a.attribute) == (
            b.name,
            b.op_type,
            b.output,
            b.attribute,
        )
        assert set(b.input) - set(a.input) <= added


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_compensator_has_no_memory_of_its_calls(method: str) -> None:
    trial = Trial(CNN)
    correct = compensator(trial.graph, trial.groups, trial.data, method, device="cpu", batch_size=5)
    assert correct is not None
    other = half(trial.groups, 7)
    correct(prune(trial.graph, trial.groups, other), other)
    again = correct(trial.pruned, trial.dead).SerializeToString()
    assert again == trial.compensated(method, ridge=None).SerializeToString()


# What is left as it is, and the odd ways of storing a weight


def weights_left(text: str, names: str, **options: Any) -> bool:
    trial = Trial(text, **options)
    old, new = constants(trial.pruned), constants(trial.compensated())
    return all((old[name] == new[name]).all() for name in names.split())


def test_shared_weights_stay() -> None:
    text = CHAIN.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[N,4,6,6] z)")
    assert weights_left(text.replace("y = Conv", "z = Conv(a, v)\n  y = Conv"), "v c")


def test_grouped_convolutions_stay() -> None:
    text = CHAIN.replace("[4,6,3,3] v", "[4,3,3,3] v").replace("y = Conv", "y = Conv<group=2>")
    assert weights_left(text, "v c")


def test_half_precision_stays() -> None:
    text = CHAIN.replace("float[", "float16[").replace("float16[N", "float[N")
    text = text.replace("a = Conv(x", "h = Cast<to=10>(x)\n  a = Conv(h")
    text = text.replace("y = Conv(r, v, c)", "q = Conv(r, v, c)\n  y = Cast<to=1>(q)")
    assert weights_left(text, "v c")


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ("t = Concat<axis=1>(r, r)\n  f = Flatten(t)", 48),
        ("e = Flatten(r)\n  t = Flatten(a)\n  f = Concat<axis=1>(e, t)", 48),
        ("e = Flatten(r)\n  f = BatchNormalization(e, s, q, m, var)", 24),
    ],
    ids=["uneven", "joined", "normalised"],
)
def test_where_a_map_is_not_plainly_flattened_its_rows_are_channels(change: str, rows: int) -> None:
    text = FLAT.replace("f = Flatten(r)", change).replace("[24,5] v", f"[{rows},5] v")
    more = "float[5] c, float[24] s, float[24] q, float[24] m, float[24] var"
    trial = Trial(text.replace("float[5] c", more if rows == 24 else "float[5] c"), [1, 2])
    alive = trial.alive("f")
    found = rows_of(trial.tensor("f"))
    weight = ridge_by_lstsq(found, found[alive], alive).T @ trial.tensor("v", trial.proto)
    assert relative_error(trial.tensor("v", trial.compensated()), weight) < SAME


def test_a_convolution_of_a_constant_stays() -> None:
    text = CHAIN.replace(
        "y = Conv(r, v, c)", "s = Add(r, k)\n  y = Conv(s, u)\n  z = Conv(k, v, c)"
    )
    text = text.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[1,4,6,6] z)")
    assert weights_left(
        text.replace("float[4] c", "float[4] c, float[4,6,3,3] u, float[1,6,8,8] k"), "v c"
    )


def test_channels_on_the_batch_axis_stay() -> None:
    text = POOLED.replace("f = Flatten(p)", "f = Flatten(p)\n  t = Transpose<perm=[1,0]>(f)")
    assert weights_left(text.replace("Gemm<transB=1>(f", "Gemm<transA=1, transB=1>(t"), "v c")


def test_a_bias_that_others_read_is_left_to_them() -> None:
    text = CHAIN.replace("y = Conv(r, v, c)", "y = Conv(r, v, c)\n  z = Conv(x, u, c)")
    text = text.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[N,4,8,8] z)")
    trial = Trial(text.replace("float[4] c", "float[4] c, float[4,3,1,1] u"))
    changed = trial.compensated("bias")
    assert (trial.tensor("c", changed) == trial.tensor("c", trial.proto)).all()
    assert run(changed, trial.x)[1].tolist() == run(trial.proto, trial.x)[1].tolist()
    assert trial.error(changed) < trial.error(trial.pruned)


@pytest.mark.parametrize("shape", ["", "[1]", "[1,5]"])
def test_every_form_of_a_row_bias_is_taken(shape: str) -> None:
    trial = Trial(FLAT.replace("float[5] c", f"float{shape or '[]'} c"), [1, 4], change=still)
    assert trial.error(trial.compensated("bias")) < RESTORED


@pytest.mark.parametrize("form", ["computed", "off"])
def test_a_bias_that_cannot_be_moved_is_none(form: str) -> None:
    text = FLAT.replace("y = Gemm", "d = Neg(c)\n  y = Gemm").replace("v, c)", "v, d)")
    trial = Trial(text if form == "computed" else FLAT.replace("beta=2.0", "beta=0.0"))
    assert trial.compensated("bias") == trial.pruned
    assert trial.error(trial.compensated()) < trial.error(trial.pruned)


def test_a_weight_in_a_constant_node_is_refitted() -> None:
    trial = Trial(CHAIN)
    expected = trial.compensated()
    (tensor,) = (t for t in trial.proto.graph.initializer if t.name == "v")
    node = onnx.helper.make_node("Constant", [], ["v"], value=tensor)
    trial.proto.graph.node.insert(0, node)
    trial.proto.graph.initializer.remove(tensor)
    trial.graph = Graph(trial.proto)
    trial.groups = find_groups(trial.graph)
    trial.pruned = prune(trial.graph, trial.groups, trial.dead)
    (found,) = run(trial.compensated(), trial.x)
    assert found.tolist() == run(expected, trial.x)[0].tolist()


def test_old_models_declare_the_new_bias_as_an_input() -> None:
    trial = Trial(NO_BIAS, [1, 4], change=still)
    old = trial.proto
    old.ir_version = 3
    for tensor in old.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        old.graph.input.append(info)
    trial.graph = Graph(old)
    trial.pruned = prune(trial.graph, trial.groups, trial.dead)
    changed = trial.compensated("bias")
    assert len(changed.graph.input) == len(old.graph.input) + 1


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_model_of_a_fixed_batch_is_compensated_too(method: str) -> None:
    text = FLAT.replace("N,", "4,").replace("f = Flatten(r)", "f = Reshape(r, to)")
    fixed = Trial(
        text.replace("r = Relu", "to = Constant<value_ints=[4,24]>()\n  r = Relu"), [1, 4]
    )
    free = Trial(FLAT, [1, 4])
    found = constants(fixed.compensated(method))
    for name, expected in constants(free.compensated(method)).items():
        assert relative_error(found[name], expected) < SAME


# Memory


def test_positions_then_samples_are_given_up_to_save_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(WIDE)
    exact = trial.error(trial.compensated())
    monkeypatch.setattr(compensate, "HELD_BYTES", 6 * 12 * 18 * 4 * 4)
    with caplog.at_level(logging.INFO):
        fewer = trial.error(trial.compensated())
    assert not caplog.records
    monkeypatch.setattr(compensate, "HELD_BYTES", 6 * 3 * 4 * 8 * 4)
    with caplog.at_level(logging.INFO):
        fewest = trial.error(trial.compensated())
    assert "on one sample in 4" in caplog.text
    assert max(fewer, fewest) < trial.error(trial.pruned)
    assert len({exact, fewer, fewest}) == 3


def test_a_layer_too_large_for_a_system_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(CHAIN, [1, 4], change=still)
    monkeypatch.setattr(compensate, "MAX_ROWS", 5)
    changed = trial.compensated()
    assert (trial.tensor("v", changed) == trial.tensor("v", trial.pruned)).all()
    assert trial.error(changed) < RESTORED
