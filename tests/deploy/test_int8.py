"""Which nodes stay in float: formulas in the place of models."""

from collections.abc import Collection, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from onnxprune.deploy.int8 import MOST, PARTS, divided, quantise
from onnxprune.errors import UnreachableTarget
from onnxprune.evaluation import Accuracy
from onnxprune.search import Floor


class Formula:
    """A quantiser and its judge: each node in INT8 costs so much of the accuracy."""

    made_by = "a formula"
    float_model = ModelProto()

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs = costs
        self.nodes = tuple(costs)
        self.evaluations = 0

    def __call__(self, kept: Collection[str]) -> ModelProto:
        done = [name for name in self.nodes if name not in kept]
        graph = helper.make_graph([], " ".join(done), [], [])
        if done:
            graph.initializer.append(helper.make_tensor("w", TensorProto.INT8, [1, 1], [1]))
        return helper.make_model(graph)

    def evaluate(self, model: ModelProto) -> Accuracy:
        self.evaluations += 1
        lost = sum(self.costs[name] for name in model.graph.name.split())
        return Accuracy.from_scores(np.array([max(0.9 - lost, 0.0)]))


def chain(count: int, **costs: float) -> Formula:
    return Formula({f"n{k}": costs.get(f"n{k}", 0.0) for k in range(count)})


def test_all_are_quantised_where_the_floor_holds() -> None:
    net = chain(40)
    found = quantise(net, net.evaluate, Floor(max_drop=0.01))
    assert (found.kept, found.evaluations, net.evaluations) == ({}, 1, 2)


@pytest.mark.parametrize("place", [0, 17, 199])
def test_a_single_node_is_found_in_few_evaluations(place: int) -> None:
    net = chain(200, **{f"n{place}": 0.9})
    found = quantise(net, net.evaluate, Floor(max_drop=0.01))
    assert found.kept == {f"n{place}": 0.0}
    assert found.plain.harmonic == 0 and found.accuracy.harmonic == pytest.approx(0.9)
    assert found.evaluations <= 2 + PARTS + 3 * 4


def test_those_that_harm_most_stay_in_float() -> None:
    net = chain(8, n1=0.03, n3=0.02, n5=0.004, n6=0.004)
    found = quantise(net, net.evaluate, Floor(max_drop=0.01))
    assert set(found.kept) == {"n1", "n3"}


def test_a_module_in_float_is_named_as_one() -> None:
    names = ["/body/conv", "/body/relu", "/head/a/conv", "/head/a/relu", "/head/b", "/end"]
    net = Formula({name: 0.3 * name.startswith("/head") for name in names})
    found = quantise(net, net.evaluate, Floor(max_drop=0.01))
    assert found.blocks == [("/head", 3, pytest.approx(0.6))]


def test_what_no_evaluation_decides_stays_in_float() -> None:
    net = chain(1000, **{f"n{k}": 0.02 for k in range(0, 1000, 10)})
    found = quantise(net, net.evaluate, Floor(max_drop=0.1))
    assert found.evaluations <= MOST + PARTS
    assert found.accuracy.harmonic >= 0.8


def test_a_net_that_holds_nothing_is_refused() -> None:
    net = chain(5, **{f"n{k}": 0.5 for k in range(5)})
    with pytest.raises(UnreachableTarget, match=r"int8: no layer .*0\.900 in float, floor 0\.890"):
        quantise(net, net.evaluate, Floor(max_drop=0.01))


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=30), st.floats(0, 0.3))
@settings(deadline=None, max_examples=60)
def test_the_floor_always_holds(costs: list[float], drop: float) -> None:
    net = Formula({f"n{k}": cost for k, cost in enumerate(costs)})
    try:
        found = quantise(net, net.evaluate, Floor(max_drop=drop))
    except UnreachableTarget:
        assert min(costs) > drop - 1e-9
        return
    assert net.evaluate(found.model).harmonic >= 0.9 - drop - 1e-9
    assert set(found.kept) | set(found.model.graph.name.split()) == set(net.nodes)
    assert len(found.kept) + len(found.model.graph.name.split()) == len(net.nodes)


@given(st.integers(0, 50), st.integers(1, 20))
def test_parts_are_all_nodes_in_order(count: int, into: int) -> None:
    nodes = tuple(map(str, range(count)))
    parts = divided(nodes, into) if nodes else []
    assert tuple(name for part in parts for name in part) == nodes
    assert all(parts) and len({len(part) for part in parts}) <= 2


def told(net: Formula) -> list[tuple[int, int, float]]:
    """What a search tells of each evaluation: its number, those to come, the metric."""
    said: list[tuple[int, int, float]] = []
    quantise(net, net.evaluate, Floor(max_drop=0.01), on_trial=lambda *one: said.append(one))
    return said


def test_evaluations_are_told() -> None:
    said = told(chain(20, n3=0.5))
    assert [number for number, _, _ in said] == list(range(len(said)))
    assert [score for _, _, score in said[:2]] == pytest.approx([0.9, 0.4])


def test_one_evaluation_is_to_come_and_none_once_the_floor_holds() -> None:
    assert [ahead for _, ahead, _ in told(chain(20))] == [1, 0]


@pytest.mark.parametrize(("count", "bad"), [(20, 1), (200, 1), (200, 4), (600, 1), (1000, 30)])
def test_about_as_many_evaluations_come_as_was_said(count: int, bad: int) -> None:
    """Within a factor of two from the first that breaks the floor on, and closer halfway."""
    said = told(chain(count, **{f"n{k}": 0.5 for k in range(3, count, count // bad)}))
    last = len(said) - 1
    for number, ahead, _ in said[1:]:
        assert number + ahead <= MOST + PARTS
        assert 0.49 * last <= number + ahead <= 2 * last, f"at {number} of {last}: {ahead}"
    number, ahead, _ = said[max(last // 2, PARTS + 1)]
    assert number + ahead == pytest.approx(last, rel=0.35)
    assert said[-1][1] <= 0.25 * last
