"""The regression and its ridge against numpy."""

import pickle
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.compensate.ridge import (
    RIDGES,
    Products,
    choose_ridge,
    gather,
    mean_of,
    multiply,
    ridge_errors,
)
from tests.support.models import relative_error, run
from tests.support.trial import (
    CHAIN,
    CNN,
    FLAT,
    FLAT_LAST,
    MULTIPLIED,
    PRODUCT,
    RIDGE,
    SAME,
    TRANSPOSED,
    WIDE,
    Array,
    Trial,
    ridge_by_lstsq,
    rows_of,
    scaled_error,
    transposed,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("text", "step"), [(CHAIN, 1), (WIDE, 2)], ids=["narrow", "wide"])
def test_a_convolution_is_refitted_as_numpy_would(text: str, step: int) -> None:
    trial = Trial(text, [1, 2, 5])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r")[:, :, ::step])
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("ochw,ck->okhw", trial.tensor("v", trial.proto), channel_map)
    assert scaled_error(trial.tensor("v", trial.compensated()), weight) < SAME


@transposed
def test_a_transposed_convolution_is_refitted_as_numpy_would() -> None:
    trial = Trial(TRANSPOSED, [0, 3])
    alive = trial.alive("r")
    rows = rows_of(trial.tensor("r"))
    channel_map = ridge_by_lstsq(rows, rows[alive], alive)
    weight = np.einsum("cohw,ck->kohw", trial.tensor("v", trial.proto), channel_map)
    assert scaled_error(trial.tensor("v", trial.compensated()), weight) < SAME


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
    assert scaled_error(new, weight.reshape(new.shape)) < SAME


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
    assert scaled_error(trial.tensor("w5", changed), weight) < SAME


def regression(full: Array, kept: Array, alive: BoolArray, folds: Array | None = None) -> Products:
    if folds is None:
        folds = np.zeros(full.shape[1], np.int64)
    names = np.unique(folds)
    apart = [[torch.from_numpy(rows[:, folds == k]) for k in names] for rows in (full, kept)]
    sums = [[part.sum(1, keepdim=True).numpy() for part in rows] for rows in apart]
    count = full.shape[1]
    means = [torch.from_numpy(mean_of(side, count, centre=True)) for side in sums]
    narrow = count < alive.sum()
    pairs = zip(*apart, strict=True)
    parts = [multiply(one, other, alive, means, narrow=bool(narrow)) for one, other in pairs]
    return gather(parts, alive, names.tolist(), torch.device("cpu"))


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


@pytest.mark.parametrize("columns", [5, 32])
@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 5.0, 50.0])
def test_the_ridge_is_the_one_that_errs_least_on_samples_left_out(
    noise: float, columns: int
) -> None:
    rng = np.random.default_rng(0)
    alive = np.arange(9) < 6
    folds = np.arange(columns) // 4 % 3 if columns > 9 else np.arange(columns) % 3
    kept = rng.normal(size=(6, columns))
    gone = rng.normal(size=(3, 6)) @ kept + noise * rng.normal(size=(3, columns))
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
    assert bool(products.parts) == (columns < 6)
    for count in (7, 200):
        ridges = tuple(np.geomspace(1e-3, 1e3, count).tolist())
        chosen = choose_ridge(products, torch.from_numpy(weight), ridges)
        assert chosen == min((*ridges, np.inf), key=error)


@pytest.mark.parametrize("checks", [None, 1])
@pytest.mark.parametrize(("channels", "kept", "outputs"), [(12, 9, 4), (12, 9, 30), (6, 6, 1)])
def test_the_errors_of_ridges_are_the_same_by_outputs_and_by_inputs(
    channels: int, kept: int, outputs: int, checks: int | None
) -> None:
    rng = np.random.default_rng(0)
    full = torch.from_numpy(rng.normal(size=(3, channels, 40)))
    own = full[:, :kept] + 0.3 * torch.from_numpy(rng.normal(size=(3, kept, 40)))
    missing = full.clone()
    missing[:, :kept] -= own
    identity = torch.eye(channels, dtype=torch.float64)[:, :kept]
    products = Products(own @ own.mT, missing @ own.mT, identity)
    weight = torch.from_numpy(rng.normal(size=(channels, outputs)))
    jobs = [
        ridge_errors(products, weight, RIDGES, narrow=narrow, checks=checks)
        for narrow in (True, False)
    ]
    np.testing.assert_allclose(*[job.total() for job in jobs], rtol=1e-9, atol=1e-9)
    for job in jobs:  # a worker finds the same bits
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(job)).total(), job.total())
        every = [replace(job, checks=k).total() for k in (1, 2, 3)]
        same = [bool((job.total() == one).all()) for one in every]
        assert same == [checks == 1, False, checks is None]
    few, many = (products.mapping(0.1, columns)(weight) for columns in (0, 10**6))
    torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(many, products.solve(0.1).T @ weight)
