"""The regression and its ridge against numpy, in each of its forms."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.arrays import BoolArray
from onnxprune.compensate import solved
from onnxprune.compensate.folds import InputErrors
from onnxprune.compensate.ridge import (
    BLOCK,
    COLUMNS,
    INPUTS,
    OUTPUTS,
    RIDGES,
    BatchProducts,
    Products,
    Regression,
    choose_ridge,
    form_of,
    gather,
    mean_of,
    multiply,
)
from onnxprune.engine import talk
from tests.support.trial import RIDGE, Array

pytestmark = pytest.mark.usefixtures("one_thread")

FORMS = (INPUTS, OUTPUTS, COLUMNS)


def regression(
    full: Array,
    kept: Array,
    alive: BoolArray,
    weight: Array,
    form: str,
    folds: Array | None = None,
) -> Regression:
    if folds is None:
        folds = np.zeros(full.shape[1], np.int64)
    names = np.unique(folds)
    apart = [[torch.from_numpy(rows[:, folds == k]) for k in names] for rows in (full, kept)]
    sums = [[part.sum(1, keepdim=True).numpy() for part in rows] for rows in apart]
    means = [torch.from_numpy(mean_of(side, full.shape[1], centre=True)) for side in sums]
    given = torch.from_numpy(weight)
    parts = [multiply(one, other, alive, means, form, given) for one, other in zip(*apart)]  # noqa: B905
    return gather(parts, alive, names.tolist(), torch.device("cpu"), form)


def test_regression_keeps_what_is_not_missing() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 50))
    for form in FORMS:
        products = regression(rows, rows, np.ones(4, np.bool_), np.eye(4), form)
        found = products.mapping(RIDGE, 9)(torch.eye(4, dtype=torch.float64))
        assert np.allclose(found.numpy(), np.eye(4), atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_regression_without_evidence_changes_nothing(value: float, form: str) -> None:
    alive, weight = np.array([True, False, True]), torch.arange(6.0).reshape(3, 2)
    given = np.full((3, 8), value), np.full((2, 8), value)
    products = regression(*given, alive, weight.numpy(), form, np.arange(8) % 2)
    for ridge in (RIDGE, choose_ridge(products, weight)):
        for columns in (2, 3):
            found = products.mapping(ridge, columns)(weight)
            assert found.tolist() == weight[[0, 2]].tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [5, 32])
@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 5.0, 50.0])
def test_the_ridge_is_the_one_that_errs_least_on_samples_left_out(
    noise: float, columns: int, form: str
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

    products = regression(full, kept, alive, weight, form, folds)
    for count in (7, 200):
        ridges = tuple(np.geomspace(1e-3, 1e3, count).tolist())
        chosen = choose_ridge(products, torch.from_numpy(weight), ridges)
        assert chosen == min((*ridges, np.inf), key=error)


def forms_of(channels: int, kept: int, outputs: int, seed: int = 0) -> tuple[list[Any], Any]:
    """The same regression in each form, and the weight, in double precision."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(kept, 120)) * rng.uniform(0.2, 3, size=(kept, 1))
    full = rng.normal(size=(channels, kept)) @ own / kept + rng.normal(size=(channels, 120))
    full[:kept] += own
    weight = rng.normal(size=(channels, outputs))
    alive, folds = np.arange(channels) < kept, np.repeat([0, 1, 2], 40)
    given = full, own, alive, weight
    return [regression(*given, form, folds) for form in FORMS], torch.from_numpy(weight)


def totals(job: Any) -> Any:
    """The error of each ridge on all folds. Shapes: -> `[ridges]`."""
    if isinstance(job, InputErrors):
        return job.total()
    with talk(job, range(job.folds)) as folds:
        list(folds.ask())
        return np.array([sum(folds.ask(ridge)) for ridge in job.ridges])


@pytest.mark.parametrize("checks", [None, 1])
@pytest.mark.parametrize(("channels", "kept", "outputs"), [(12, 9, 4), (12, 9, 30), (6, 6, 1)])
def test_the_errors_of_ridges_are_the_same_in_each_form(
    channels: int, kept: int, outputs: int, checks: int | None
) -> None:
    products, weight = forms_of(channels, kept, outputs)
    jobs: list[Any] = [one.errors(weight, RIDGES, checks) for one in products]
    for job in jobs:
        np.testing.assert_allclose(totals(job), totals(jobs[0]), rtol=1e-9, atol=1e-9)
        assert job.best() == (int(totals(job).argmin()), totals(job).min())
        again = pickle.loads(pickle.dumps(job))  # a worker finds the same bits
        np.testing.assert_array_equal(totals(again), totals(job))
    for one, job in zip(products, jobs, strict=True):
        every = [totals(one.errors(weight, RIDGES, k)) for k in (1, 2, 3)]
        same = [bool((totals(job) == total).all()) for total in every]
        assert same == [checks == 1, False, checks is None]
    few, many = (products[0].mapping(0.1, columns)(weight) for columns in (0, 10**6))
    for found in (few, *(one.mapping(0.1, 1)(weight) for one in products[1:])):
        torch.testing.assert_close(found, many, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(many, products[0].solve(0.1).T @ weight)


def test_a_large_system_is_solved_in_single_precision_where_that_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    products, weight = forms_of(200, 160, 20)
    job = products[1].errors(weight, RIDGES, None)
    single = totals(job)
    monkeypatch.setattr(solved, "RESIDUAL", -1.0)
    double = totals(job)
    assert (single != double).all()
    np.testing.assert_allclose(single, double, rtol=1e-5)
    monkeypatch.undo()
    monkeypatch.setattr(solved, "SINGLE", 10**9)
    np.testing.assert_array_equal(totals(job), double)


def test_a_system_that_single_precision_cannot_solve_is_solved_in_double() -> None:
    """Channels that are nearly the same, and next to no ridge."""
    rng = np.random.default_rng(0)
    basis = torch.from_numpy(rng.normal(size=(150, 3)))
    own = basis @ torch.from_numpy(rng.normal(size=(3, 900)))
    own += 1e-3 * torch.from_numpy(rng.normal(size=own.shape))
    gram = torch.stack([part @ part.T for part in own.tensor_split(3, 1)])
    cross = torch.from_numpy(rng.normal(size=(3, 4, 150))) @ gram
    job = Products(gram, cross, np.ones(150, np.bool_), of_outputs=True).errors(
        basis, (1e-9, 1e-8), None
    )
    fold = [gram.sum(0) - gram[0], cross.sum(0) - cross[0]]
    share = 1e-9 * fold[0].diagonal().mean()
    fit = torch.linalg.solve(fold[0] + share * torch.eye(150), fold[1].T)
    expected = float(((gram[0] @ fit - 2 * cross[0].T) * fit).sum())
    found = [float(pickle.loads(pickle.dumps(job)).held(0).error(1e-9))]
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_the_best_of_four_ridges_is_found_by_three_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    products, weight = forms_of(12, 9, 4)
    asked: list[float] = []
    error = solved.Held.error

    def counted(held: solved.Held, ridge: float) -> float:
        asked.append(ridge)
        return error(held, ridge)

    monkeypatch.setattr(solved.Held, "error", counted)
    for one in products[1:]:
        choose_ridge(one, weight)
        assert len(asked) == 9  # of three folds
        assert len(set(asked)) == 3
        asked.clear()


def test_products_of_many_rows_are_those_of_all() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(3 * BLOCK + 7, 20)))
    zero = [torch.zeros(len(rows), 1)] * 2
    found: BatchProducts = multiply(rows, rows, np.ones(len(rows), np.bool_), zero, INPUTS)
    np.testing.assert_allclose(found.own, rows @ rows.T, atol=1e-12)


@pytest.mark.parametrize(
    ("outputs", "kept", "columns", "form"),
    [
        (32, 64, 64, OUTPUTS),
        (33, 64, 64, INPUTS),
        (32, 64, 63, COLUMNS),
        (2**19, 64, 32, COLUMNS),
        (2**19 + 1, 64, 32, INPUTS),
    ],
)
def test_a_layer_is_fitted_in_the_form_of_least_work(
    outputs: int, kept: int, columns: int, form: str
) -> None:
    assert form_of(outputs, kept, columns) == form
