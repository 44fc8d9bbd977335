"""What a re-fitted layer is held to: means, variance, samples that it has not seen, memory."""

import logging
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.arrays import IntArray
from onnxprune.compensate import least_squares, observed, readers, reference, refit
from onnxprune.compensate.methods import JUDGES, ROUGH, Corrector, compensator
from onnxprune.compensate.ridge import choose_ridge
from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.relevance import Mirror
from tests.support.models import relative_error, run
from tests.support.trial import (
    CHAIN,
    CNN,
    CORRECTIONS,
    FLAT,
    FLAT_LAST,
    TRANSPOSED,
    WIDE,
    Array,
    Trial,
    transposed,
)

RESTORED = 1e-4
"""Relative, in single precision."""

pytestmark = pytest.mark.usefixtures("one_thread")


def moments(proto: ModelProto, x: Array) -> tuple[Array, float]:
    """The mean of each output channel, and the variance of all together."""
    (y,) = run(proto, x)
    others = (0, *range(2, y.ndim))
    return y.mean(others), float(y.var(others).sum())


@pytest.mark.parametrize(
    "text", [CHAIN, FLAT, FLAT_LAST, pytest.param(TRANSPOSED, marks=transposed)]
)
def test_outputs_have_the_means_and_together_the_variance_that_they_had(text: str) -> None:
    trial = Trial(text, samples=40)
    mean, variance = moments(trial.proto, trial.x)
    assert moments(trial.pruned, trial.x)[1] < 0.9 * variance
    found = moments(trial.compensated(ridge=1.0), trial.x)
    assert relative_error(found[0], mean) < RESTORED
    assert found[1] == pytest.approx(variance, rel=RESTORED)


def test_what_says_too_little_is_not_made_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(CHAIN, samples=40)
    monkeypatch.setattr(least_squares, "LARGEST", 1.01)
    quiet = moments(trial.compensated(ridge=1.0), trial.x)[1]
    monkeypatch.setattr(least_squares, "LARGEST", 1.02)
    ratio = moments(trial.compensated(ridge=1.0), trial.x)[1] / quiet
    assert ratio == pytest.approx((1.02 / 1.01) ** 2, rel=RESTORED)


@pytest.mark.parametrize("without", [0, 1, 2])
@pytest.mark.parametrize("text", [CHAIN, FLAT, CNN])
def test_a_fit_without_a_fold_is_that_of_the_other_samples(text: str, without: int) -> None:
    """It is the fit of a compensator that never had them."""
    trial = Trial(text, samples=11)
    options = {"device": "cpu", "batch_size": 2, "ridge": 0.01}
    whole = compensator(trial.graph, trial.groups, trial.data, "least-squares", **options)
    assert whole is not None
    left = whole.folds != without
    data = Data(trial.x[left], np.zeros(int(left.sum()), np.int64), ("one",))
    part = compensator(trial.graph, trial.groups, data, "least-squares", **options)
    assert part is not None
    expected = run(part(trial.pruned, trial.dead), trial.x)[0]
    found = run(whole(trial.pruned, trial.dead, without=without), trial.x)[0]
    assert relative_error(found, expected) < RESTORED
    assert relative_error(run(whole(trial.pruned, trial.dead), trial.x)[0], expected) > RESTORED


def test_samples_that_judge_are_left_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are fitted as well, they are in the folds that ridges are chosen by."""
    trial = Trial(CNN, samples=24)
    thirds, judge = np.arange(24) % 3, np.arange(24) % 5 == 0
    options: dict[str, Any] = {"device": "cpu", "batch_size": 2}

    def fitted(rows: Array, folds: IntArray, **asked: Any) -> Array:
        data = Data(trial.x[rows], np.zeros(int(rows.sum()), np.int64), ("one",))
        given = trial.graph, trial.groups, data, "least-squares"
        correct = compensator(*given, **options, folds=folds[rows])
        assert correct is not None
        return run(correct(trial.pruned, trial.dead, **asked), trial.x)[0]

    counted: list[int] = []

    def noted(products: Any, *given: Any, **asked: Any) -> float:
        counted.append(products.folds)
        return choose_ridge(products, *given, **asked)

    monkeypatch.setattr(least_squares, "choose_ridge", noted)
    marked, every = thirds + JUDGES * judge, np.ones(24, np.bool_)
    found = fitted(every, marked, without=JUDGES)
    assert relative_error(found, fitted(~judge, thirds)) < RESTORED
    assert relative_error(found, fitted(every, thirds)) > RESTORED
    assert relative_error(fitted(every, marked), fitted(every, thirds)) < RESTORED
    assert set(counted) == {3}


@pytest.mark.parametrize("without", [None, 1])
def test_a_rough_fit_is_that_of_a_part_of_each_fold(
    without: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an exact one that follows is as one that nothing went before."""
    monkeypatch.setattr(observed, "ROUGH", 8)
    trial = Trial(CNN, samples=24)

    def corrector(rows: IntArray) -> Corrector:
        data = Data(trial.x[rows], rows // 6, tuple("abcd"))
        options: dict[str, Any] = {"device": "cpu", "batch_size": 2, "ridge": 0.01}
        found = compensator(trial.graph, trial.groups, data, "least-squares", **options)
        assert found is not None
        return found

    def outputs(correct: Corrector, **asked: Any) -> Array:
        return run(correct(trial.pruned, trial.dead, **asked), trial.x)[0]

    whole, every = corrector(np.arange(24)), np.arange(24)
    rough = outputs(whole, without=without, rough=True)
    thirds = [every[every % 3 == fold][::3] for fold in range(3) if fold != without]
    part = outputs(corrector(np.sort(np.concatenate(thirds))))
    exact = outputs(corrector(every), without=without)
    assert relative_error(rough, part) < RESTORED < relative_error(rough, exact)
    np.testing.assert_array_equal(outputs(whole, without=without), exact)


def test_of_few_samples_a_rough_fit_sees_all_and_leaves_activations_out() -> None:
    trial = Trial(CNN, samples=2 * ROUGH - 1)

    def fitted(rounds: int, *, rough: bool) -> bytes:
        options: dict[str, Any] = {"device": "cpu", "rounds": rounds}
        data = trial.data
        correct = compensator(trial.graph, trial.groups, data, "least-squares", **options)
        assert correct is not None
        return correct(trial.pruned, trial.dead, rough=rough).SerializeToString()

    exact = fitted(0, rough=False)
    assert fitted(0, rough=True) == fitted(3, rough=True) == exact
    assert fitted(3, rough=False) != exact


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("method", CORRECTIONS)
def test_every_sample_is_in_a_fold_and_may_be_left_out(method: str, count: int) -> None:
    trial = Trial(CHAIN, samples=count)
    correct = compensator(trial.graph, trial.groups, trial.data, method, device="cpu")
    assert correct is not None and correct.folds.shape == (count,)
    for fold in np.unique(correct.folds).tolist():
        changed = correct(trial.pruned, trial.dead, without=fold)
        assert np.isfinite(run(changed, trial.x)[0]).all()


# Memory


def test_positions_then_samples_are_given_up_to_save_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(WIDE)
    exact = trial.error(trial.compensated())
    monkeypatch.setattr(observed, "HELD_BYTES", 6 * 12 * 18 * 4 * 4)
    with caplog.at_level(logging.INFO):
        fewer = trial.error(trial.compensated())
    assert not caplog.records
    monkeypatch.setattr(observed, "HELD_BYTES", 6 * 3 * 4 * 8 * 4)
    with caplog.at_level(logging.INFO):
        fewest = trial.error(trial.compensated())
    assert "on one sample in 4" in caplog.text
    assert max(fewer, fewest) < trial.error(trial.pruned)
    assert len({exact, fewer, fewest}) == 3


@pytest.mark.parametrize("limit", ["MAX_ROWS", "MAX_BYTES"])
def test_a_layer_too_large_for_a_system_keeps_its_weights(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(CHAIN)
    monkeypatch.setattr(refit, limit, 5)
    changed = trial.compensated()
    assert (trial.tensor("v", changed) == trial.tensor("v", trial.pruned)).all()
    mean, _ = moments(trial.proto, trial.x)
    assert relative_error(moments(changed, trial.x)[0], mean) < RESTORED


@pytest.mark.parametrize("text", [CHAIN, FLAT, FLAT_LAST, CNN])
def test_a_large_weight_is_fitted_a_few_outputs_at_a_time(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, looks = Trial(text, samples=11), list[int]()
    usual = readers.Reader.split
    expected = run(trial.compensated(), trial.x)[0]
    monkeypatch.setattr(readers, "PIECE", 20)
    monkeypatch.setattr(
        readers.Reader,
        "split",
        lambda self, weight: looks.append(len(usual(self, weight))) or usual(self, weight),
    )
    assert relative_error(run(trial.compensated(), trial.x)[0], expected) < RESTORED
    assert max(looks) > 1


def test_the_unpruned_net_is_not_kept_for_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the pruned net, whose weights may be large as well."""
    trial, alive = Trial(CHAIN, samples=11), WeakSet[Mirror]()
    usual = reference.Reference.mirror

    def mirror(self: reference.Reference, graph: Graph | None = None) -> Mirror:
        made = usual(self, graph)
        alive.add(made)
        return made

    monkeypatch.setattr(reference.Reference, "mirror", mirror)
    fit, most = refit.Refit._fit, list[int]()
    monkeypatch.setattr(refit.Refit, "_fit", lambda *given: most.append(len(alive)) or fit(*given))
    trial.compensated()
    assert set(most) == {1}
