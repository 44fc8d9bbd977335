"""Nets: each is a function of its state, whatever was asked before; what is dear is made once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.graph import storage
from onnxprune.graph.graph import Graph
from onnxprune.search.memory import Memory
from onnxprune.search.nets import Nets
from onnxprune.search.task import State, Task
from onnxprune.surgery.removal import remove_channels
from tests.support.simulated import (
    EVENLY,
    FILTERS,
    GRAPH,
    GROUPS,
    NOTHING,
    Ordered,
    Simulated,
    accuracy,
)

SOME = (np.arange(len(GROUPS)) % 7 == 0) & GROUPS.removable
MORE = (np.arange(len(GROUPS)) % 5 == 0) & GROUPS.removable
STATES = [
    State(dead, corrected=corrected) for dead in (NOTHING, SOME, MORE) for corrected in (0, 1)
]


class Watched:
    """Notes what it is called with, and marks what it corrects."""

    def __init__(self) -> None:
        self.corrected: list[int] = []
        self.evaluated: list[str] = []

    def correct(self, model: ModelProto, dead: BoolArray) -> ModelProto:
        self.corrected.append(int(dead.sum()))
        marked = ModelProto()
        marked.CopyFrom(model)
        marked.doc_string = f"corrected {dead.sum()}"
        return marked

    def evaluate(self, model: ModelProto) -> object:
        self.evaluated.append(model.doc_string)
        return accuracy(0.5)

    def nets(self) -> Nets:
        return Nets(
            Task(
                GRAPH,
                GROUPS,
                rank=lambda graph, groups: np.arange(len(groups), dtype=float),
                damage=lambda graph, groups: Ordered(np.arange(len(groups), dtype=float), []),
                evaluate=self.evaluate,
                compensate=self.correct,
            )
        )


def built(state: State) -> ModelProto:
    """What a state's net is, by hand."""
    model = remove_channels(GRAPH, GROUPS, state.dead)
    return Watched().correct(model, state.dead) if state.corrected and state.dead.any() else model


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(STATES), max_size=6))
def test_a_model_depends_on_its_state_alone(asked: list[State]) -> None:
    nets = Watched().nets()
    for state in asked:
        assert nets.build(state) == built(state)
        assert nets.measure(state).accuracy == accuracy(0.5)


def test_fewer_nets_of_a_large_model_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, where weights are corrected: the same nets, made again."""
    most = [State(SOME, corrected=True), State(MORE, corrected=True), State(SOME | MORE)]
    for limit, made in ((10**9, 2), (1, 3)):
        monkeypatch.setattr(storage, "MESSAGE_LIMIT", limit)
        watched = Watched()
        nets = watched.nets()
        for state in (*most, most[0]):
            assert nets.build(state) == built(state)
        assert len(watched.corrected) == made


def test_a_model_is_built_once() -> None:
    watched = Watched()
    nets = watched.nets()
    state = State(SOME, corrected=True)
    assert nets.build(state) is nets.build(replace(state, size=0.3, limit=0.2))
    assert nets.build(state) is not nets.build(replace(state, corrected=False))
    assert watched.corrected == [int(SOME.sum())]


def test_the_unpruned_net_is_never_corrected() -> None:
    watched = Watched()
    watched.nets().build(State(NOTHING, corrected=True))
    assert watched.corrected == []


@pytest.mark.parametrize("first", [("scores", "order"), ("order", "scores")], ids=str)
def test_scores_and_orders_are_not_mistaken_for_each_other(first: tuple[str, ...]) -> None:
    nets, state = Watched().nets(), State(SOME)
    found = {}
    for kind in (*first, *first):
        found[kind] = nets.scores(state) if kind == "scores" else nets.order(state, 1.0, 0.2, 10.0)
    assert not np.array_equal(found["scores"], found["order"])
    assert all((ranking[SOME] == np.inf).all() for ranking in found.values())
    assert np.isfinite(found["scores"][~SOME]).all()


def test_an_order_is_of_its_step() -> None:
    nets, state = Watched().nets(), State(NOTHING)
    wide, narrow = (nets.order(state, 1.0, share, 10.0) for share in (1.0, 0.1))
    assert not np.array_equal(wide, narrow)
    assert np.argsort(narrow)[:6].tolist() == [0, 1, 20, 21, 40, 41]


def test_a_net_is_viewed_as_it_is() -> None:
    graph, groups = Watched().nets().view(State(SOME))
    assert isinstance(graph, Graph)
    assert len(groups) == (~SOME).sum()
    assert sum(graph.shape(name)[0] for name in ("w1", "w2", "w3")) == FILTERS - SOME.sum()


def test_without_samples_nothing_is_measured() -> None:
    nets = Nets(Task(GRAPH, GROUPS, rank=lambda *_: EVENLY))
    assert nets.measure(State(SOME)) == State(SOME)
    assert nets.start().accuracy is None
    assert nets.evaluations == 0


def test_a_memory_holds_the_last_few() -> None:
    made = []
    memory = Memory[str](2)
    for key in "abacab":
        memory.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c", "a", "b"]


# States


def test_states_are_equal_by_value_and_have_no_hash() -> None:
    state = State(SOME, 0.1, accuracy(0.5), corrected=True, limit=0.7)
    assert state == State(SOME.copy(), 0.1, accuracy(0.5), corrected=True, limit=0.7)
    changes = (
        *({"dead": MORE}, {"size": 0.2}, {"accuracy": accuracy(0.4)}, {"accuracy": None}),
        *({"stopped": "target"}, {"corrected": False}, {"limit": 0.6}, {"barred": (1,)}),
        *(
            {"since": (1,)},
            {"followed": 0.05},
            {"halved": 1},
            {"took": 1},
            {"better": 1},
            {"won": 1},
            {"rests": 1},
        ),
    )
    assert all(replace(state, **change) != state for change in changes)
    assert state != "state"
    with pytest.raises(TypeError, match="unhashable"):
        hash(state)


def test_nothing_can_be_corrected_of_a_net_that_is_whole() -> None:
    assert State(NOTHING, corrected=True).net == State(NOTHING).net
    assert State(NOTHING, corrected=True) != State(NOTHING)
    assert State(SOME, corrected=True).net != State(SOME).net


def test_damage_is_kept_while_a_floor_tries_a_net_as_it_is_and_corrected() -> None:
    """At smaller and smaller steps, each of which has an order of its own."""
    nets = Simulated(lambda *_: 1.0)
    for share in (0.1, 0.05, 0.025):
        for corrected in (False, True):
            nets.order(State(SOME, corrected=corrected), share, 1.0, 1.0)
    gone = int(SOME.sum())
    assert nets.seen.ranked == [gone, gone]
