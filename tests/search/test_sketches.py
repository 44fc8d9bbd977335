"""Corrections on the way may be rough; what is handed out, and what is said of it, is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.arrays import BoolArray
from onnxprune.compensate import ROUGH
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import make_task
from onnxprune.search.controllers import accuracy_aware, search
from onnxprune.search.settings import Settings
from onnxprune.search.target import Target
from onnxprune.search.task import State
from tests.support.crew import SimulatedCrew, on_crew
from tests.support.models import images, run
from tests.support.simulated import UNSEEN, Simulated, accuracy
from tests.support.small_net import Small


class Sketched(Simulated):
    """Weights help from the first step on; roughly corrected ones are a little worse."""

    def __init__(self, **asked: Any) -> None:
        def worth(dead: BoolArray, corrected: bool) -> float:
            return 1.0 - (0.001 if corrected else 0.01) * float(dead.sum())

        self.rough = list[int]()

        def sketch(model: State, dead: BoolArray) -> State:
            self.rough.append(int(dead.sum()))
            return State(dead, corrected=True)

        held_out = {"held_out": lambda _: 0.99, "strategy": UNSEEN}
        super().__init__(worth, sketch=sketch, **held_out, **asked)


def test_nets_on_the_way_are_corrected_roughly_and_the_last_one_exactly() -> None:
    nets = Sketched(target=Target(rate=0.5))
    *_, before, last = search(nets, accuracy_aware)
    assert last.corrected and last.stopped == "target"
    assert (last.dead == before.dead).all()
    measured = [gone for gone, corrected in nets.seen.measured if corrected]
    assert nets.rough == measured[:-1], "each net once, roughly"
    assert measured[-1] == int(last.dead.sum()), "and the last one as it is handed out"
    assert last.accuracy == accuracy(1 - 0.001 * last.dead.sum())


@pytest.mark.parametrize(
    ("asked", "samples", "rough"),
    [
        ({}, 2 * ROUGH, True),
        ({"mirrored": "never"}, 9, True),
        ({"max_drop": 0.1}, 2 * ROUGH, False),
        ({"compensate": "bias"}, 2 * ROUGH, False),
        ({"compensate": "none"}, 2 * ROUGH, False),
        ({"control": "iterative"}, 2 * ROUGH, False),
    ],
    ids=str,
)
def test_corrections_on_the_way_are_rough_where_no_floor_looks(
    small: Small, asked: dict[str, Any], samples: int, rough: bool
) -> None:
    x = images(small.proto, samples)
    data = Data(x, np.arange(samples) % 3, ("a", "b", "c"))
    settings = Settings.of(**{"compensate": "least-squares", "rate": 0.5, "threads": 1, **asked})
    assert (make_task(Graph(small.proto), data, settings).sketch is not None) == rough


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("compensate", ["none", "least-squares"])
def test_workers_find_the_same_of_many_samples(small: Small, compensate: str) -> None:
    """Tries on a part, rough corrections and exact ones, to the last bit."""
    x = images(small.proto, 2 * ROUGH + 7)
    data = Data(x, run(small.proto, x)[0].argmax(1), ("a", "b", "c"))

    def pruned() -> tuple[str, bytes, Any]:
        asked = {"compensate": compensate, "correct": "start", "rate": 0.4, "batch_size": 16}
        found = onnxprune.prune(small.proto, data, threads=1, trust_baseline=True, **asked)
        return found.plan.to_json(), found.model.SerializeToString(), found.report["after"]

    alone = pruned()
    with on_crew(SimulatedCrew(2)):
        again = pruned()
    assert again[:2] == alone[:2]
    assert again[2]["accuracy"] == alone[2]["accuracy"]
