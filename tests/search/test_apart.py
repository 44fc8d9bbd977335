"""Searches apart: each does without a fold of the samples, and the fold judges what it comes to."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from onnxprune.data import Data
from onnxprune.evaluation import expected_drop
from onnxprune.graph import Graph
from onnxprune.search import Nets, Settings, apart, floors
from onnxprune.search.assemble import make_task
from onnxprune.search.controllers import find_controller, search
from onnxprune.search.orders import best_step
from onnxprune.search.task import State
from tests.support.coloured import network, pixels
from tests.support.models import run

NAMES = tuple(map(str, range(6)))
ASKED: dict[str, Any] = {
    "max_drop": 0.99,
    "confidence": 0.5,
    "compensate": "none",
    "aim": "rate",
    "threads": 1,
    "device": "cpu",
}


def samples(fold: int | None = None) -> Data:
    """Coloured images; those of a fold are noise, if one is named."""
    x, y = pixels(5)
    found = (x / 255).astype(np.float32).transpose(0, 3, 1, 2)
    if fold is not None:
        noise = np.random.default_rng(1).random(found.shape, np.float32)
        found[fold::3] = noise[fold::3]
    return Data(found, y, NAMES)


def made(data: Data, **asked: Any) -> Nets:
    return Nets(make_task(Graph(network()), data, Settings.of(**{**ASKED, **asked})))


def pruned(nets: Nets, filters: int) -> State:
    """A net without some of the filters of each layer."""
    dead = np.zeros(len(nets.task.groups), np.bool_)
    for group in range(2):
        dead[nets.task.groups.channels_of(group)[:filters]] = True
    return nets.measure(replace(nets.start(), dead=dead))


def beside(nets: Nets, *filters: int) -> State:
    """The state of nets that go down step by step, with the searches apart beside them."""
    state = nets.start()
    for count in filters:
        found = nets.floors.held(replace(pruned(nets, count), apart=state.apart))
        assert found is not None
        state = found
    return state


@pytest.mark.parametrize("compensate", ["none", "least-squares"])
def test_a_search_apart_knows_nothing_of_its_fold(compensate: str) -> None:
    asked: dict[str, Any] = {"compensate": compensate, "correct": "start"}
    whole = beside(made(samples(), **asked), 3, 5)
    for fold in range(3):
        other = beside(made(samples(fold), **asked), 3, 5)
        same = [one.net == two.net for one, two in zip(whole.apart, other.apart, strict=True)]
        assert same[fold] and whole.apart[fold].accuracy == other.apart[fold].accuracy
    assert len({one.net for one in whole.apart}) > 1


def test_what_others_can_restore_is_asked_without_the_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def noted(*_: Any, among: Any, **__: Any) -> Any:
        asked.append(among)
        return lambda dead, share: dead

    monkeypatch.setattr("onnxprune.compensate.Evenly", noted)
    task = made(samples(), compensate="least-squares").task
    for one in (task, *(held.task for held in task.apart)):
        assert one.restore is not None
        one.restore(np.zeros(1, np.bool_), 1.0)
    assert asked[0] is None
    assert [sorted(set(one % 3)) for one in asked[1:]] == [[1, 2], [0, 2], [0, 1]]


def test_searches_apart_go_as_far_down_as_the_search() -> None:
    nets = made(samples())
    for count in (2, 4, 7):
        state = beside(nets, count)
        for own in state.apart:
            assert own.dead.sum() == state.dead.sum()


def test_searches_apart_go_on_from_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []

    def noted(nets: Nets, state: State, size: float) -> State:
        began.append(int(state.dead.sum()))
        return best_step(nets, state, size)

    monkeypatch.setattr(floors, "best_step", noted)
    nets = made(samples())
    beside(nets, 3, 5)
    assert began == [0, 0, 0, 6, 6, 6]


def test_each_state_of_a_search_has_its_searches_apart_beside_it() -> None:
    states = list(islice(search(made(samples()), find_controller("accuracy-aware")), 3))
    for state in states[1:]:
        assert [own.dead.sum() for own in state.apart] == 3 * [state.dead.sum()]


def test_searches_apart_correct_weights_where_the_search_does() -> None:
    nets = made(samples(), compensate="least-squares", correct="start")
    state = beside(nets, 3)
    assert all(own.corrected for own in state.apart)
    plain = nets.measure(replace(pruned(nets, 5), corrected=False, apart=state.apart))
    found = nets.floors.held(plain)
    assert found is not None
    assert not any(own.corrected for own in found.apart)


def test_what_is_asked_of_unseen_samples_counts_as_an_evaluation() -> None:
    nets = made(samples())
    state = pruned(nets, 3)
    before = nets.evaluations
    nets.floors.held(state)
    assert nets.evaluations == before + 1


def test_what_was_left_out_judges() -> None:
    data = samples()
    nets = made(data)
    state = beside(nets, 4, 6)
    after = np.zeros((len(data), 6))
    for own, net, held in zip(state.apart, nets.apart, nets.task.apart, strict=True):
        after[held.rows] = run(net.build(own), data.x[held.rows])[0]
    before = run(network(), data.x)[0]
    found = nets.floors.foreseen(state)
    assert found is not None
    assert found.expected == pytest.approx(expected_drop(before, after, data.y).expected, abs=1e-6)
    assert sorted(np.concatenate([one.rows for one in nets.task.apart])) == list(range(len(data)))


def test_searches_apart_do_not_depend_on_what_was_tried_before() -> None:
    """A run that goes on from a line of its journal has tried nothing yet."""
    nets = made(samples(), max_drop=0.3)
    states = [*search(nets, find_controller("accuracy-aware"))]
    assert len(states) > 3 and len(states[-2].apart) == 3
    again = [*search(made(samples(), max_drop=0.3), find_controller("accuracy-aware"), states[-3])]
    assert again == states[-2:]


def test_only_a_floor_on_unseen_samples_asks_for_searches_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(made(samples()).task.apart) == 3
    assert not made(samples(), confidence=0).task.apart
    assert not made(samples(), max_drop=None, rate=0.5).task.apart
    monkeypatch.setattr(apart, "MANY", len(samples()))
    assert not made(samples()).task.apart


@pytest.mark.parametrize("compensate", ["none", "bias", "least-squares"])
def test_each_search_apart_has_two_thirds_of_every_class(compensate: str) -> None:
    """Samples that come class after class in turn, as many classes as folds or twice as many."""
    whole = samples()
    rows = np.argsort(np.arange(len(whole)) % 5, kind="stable")
    nets = made(whole.rows(rows), compensate=compensate)
    assert len(nets.task.apart) == 3
    for one in nets.task.apart:
        assert np.bincount(whole.y[rows][one.rows], minlength=6).min() >= 1
    assert beside(nets, 3).apart
