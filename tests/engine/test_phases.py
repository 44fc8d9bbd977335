"""Every sum over samples has the same bits on workers, one of which dies in the midst of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune import memory
from onnxprune.channels import find_groups
from onnxprune.data import Data, Head, load_data
from onnxprune.data.archives import Mapped
from onnxprune.engine.worker import Call
from onnxprune.evaluation import Evaluator
from onnxprune.graph import Graph, copied
from onnxprune.relevance import Meter, find_composite, score
from tests.support.crew import SimulatedCrew, on_crew, once
from tests.support.models import model
from tests.support.small_net import Small

pytestmark = pytest.mark.usefixtures("one_thread")

AWARE = {"rate": 0.5, "correct": "seen"}
ITERATIVE = {"rate": 0.5, "control": "iterative"}
PHASES: dict[str, tuple[dict[str, Any], int]] = {
    "ClassSums": (ITERATIVE, 0),
    "_Products": (ITERATIVE, 0),
    "_Unpruned": (AWARE, 0),
    "_Effects": (AWARE, 0),
    "_Pass": (AWARE, 0),
    "Refit": (ITERATIVE, 3),
    "_Inputs": ({**ITERATIVE, "compensate": "bias"}, 0),
}
"""A job of each phase, what asks for it, and the round in which a worker dies."""


def pruned(small: Small, options: dict[str, Any]) -> tuple[str, bytes, Any]:
    found = onnxprune.prune(small.path, small.data, batch_size=5, threads=1, **options)
    return found.plan.to_json(), found.model.SerializeToString(), found.report["after"]["accuracy"]


def dies_of(job: str, number: int) -> Any:
    """Whether a call is that round of the second batch of a job."""
    told: dict[int, Any] = {}

    def wanted(call: Call) -> bool:
        told.update(call.places)
        later = call.shards.get(1) is not None and len(call.answers) == number
        return later and job.encode() in told[call.job].content

    return once(wanted)


@pytest.mark.parametrize("job", PHASES)
def test_a_plan_is_the_same_where_a_worker_dies(small: Small, job: str) -> None:
    options, number = PHASES[job]
    alone = pruned(small, options)
    with on_crew(SimulatedCrew(3, dies=dies_of(job, number))) as crew:
        assert pruned(small, options) == alone
    assert crew.hired == 4


MAPS = """
maps (float[N,1,6,6] x) => (float[N,3,6,6] y) <float[4,1,3,3] w1, float[3,4,1,1] w2> {
  one = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(one)
  y = Conv(r, w2)
}
"""
HEADS = (Head("y", "classes", 1), Head("r", "values", 1))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(11, 1, 6, 6)).astype(np.float32)
LABELLED = Data(X, RNG.integers(0, 3, (11, 6, 6)), ("a", "b", "c"))
UNLABELLED = Data(X, np.zeros(11, np.int64), ("all",), labelled=False, heads=HEADS)


def drawn(data: Data) -> tuple[Graph, Meter]:
    graph = Graph(model(MAPS))
    meter = Meter(graph, data, find_composite("epsilon"), device="cpu", batch_size=2, seed=3)
    return graph, meter


@pytest.mark.parametrize("data", [LABELLED, UNLABELLED], ids=["pixels", "heads"])
def test_random_signs_are_those_of_one_generator(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch skips what the batches before it draw: the signs go on where they ended."""
    graph, meter = drawn(data)
    groups = find_groups(graph)
    found = meter(graph, groups)
    whole = np.random.default_rng(3)

    def go_on(*_: Any) -> None:
        """Skip nothing: the generator is the one of the batch before."""

    monkeypatch.setattr("onnxprune.relevance.damage.skip_signs", go_on)
    monkeypatch.setattr(np.random, "default_rng", lambda _: whole)
    again = meter(graph, groups)
    assert np.array_equal(found.effects, again.effects)
    assert np.array_equal(found.slope, again.slope)


def test_outputs_classes_and_answers_come_in_the_order_of_the_samples(small: Small) -> None:
    data = load_data(small.data, shape=(1, 8, 8))
    judge = Evaluator(data, device="cpu", threads=1, batch_size=5)
    folds = np.arange(len(data)) % 3

    def all_that_it_tells() -> list[Any]:
        accuracy, classes = judge.judge(small.proto)
        (outputs,) = judge.outputs(small.proto).values()
        apart = judge.apart([small.proto] * 3, folds)
        answers = judge.answers(small.proto)
        assert answers is not None
        return [accuracy, classes.tolist(), outputs.tolist(), apart, vars(answers)]

    alone = all_that_it_tells()
    with on_crew(SimulatedCrew(3, seed=5)):
        assert all_that_it_tells() == alone


@pytest.mark.parametrize("fixed", [None, 4])
def test_no_worker_waits_until_another_one_opened_the_model(
    small: Small, fixed: int | None
) -> None:
    """How many samples a model fixes is read off it."""
    proto = copied(small.proto)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    batch.Clear()
    if fixed is not None:
        batch.dim_value = fixed
    data = load_data(small.data, shape=(1, 8, 8))
    judge = Evaluator(data, device="cpu", threads=1, batch_size=5)
    alone = judge(proto).counts()
    with on_crew(SimulatedCrew(2)) as crew:
        assert judge(proto).counts() == alone
    given = [shard for call in crew.calls for shard in call.shards.values()]
    assert {rows.stop - rows.start for rows, _ in given} == {fixed or 5}


def test_scores_have_the_same_bits(small: Small) -> None:
    graph = Graph(small.proto)
    data = load_data(small.data, shape=(1, 8, 8))
    groups = find_groups(graph)

    def values(criterion: str) -> bytes:
        return score(graph, groups, data, criterion, device="cpu", batch_size=5).values.tobytes()

    for criterion in ("lrp", "lrp:zplus,absolute", "taylor"):
        alone = values(criterion)
        with on_crew(SimulatedCrew(2, seed=1)):
            assert values(criterion) == alone


def test_samples_in_files_do_not_go_through_the_process_that_leads(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker reads its own once, though they would fit into memory here."""
    monkeypatch.setattr(memory, "LITTLE", 0)
    file = tmp_path / "stored.npz"
    np.savez(file, x=small.x, y=small.y)
    alone = onnxprune.prune(small.path, file, threads=1, batch_size=5, **AWARE)
    reads = Counter[bytes]()
    usual = Mapped.__call__

    def counted(self: Mapped, numbers: Any) -> Any:
        reads[numbers.tobytes()] += 1
        return usual(self, numbers)

    with on_crew(SimulatedCrew(2)) as crew:
        found = onnxprune.prune(small.path, file, threads=1, batch_size=5, **AWARE)
        sent = b"".join(bytes(part) for one in crew.parcels for part in (one.content, *one.arrays))
        assert small.x[3:5].tobytes() not in sent
        graph = Graph.load(small.path)
        data = load_data(file, shape=(1, 8, 8))
        monkeypatch.setattr(Mapped, "__call__", counted)
        for _ in range(3):
            score(graph, find_groups(graph), data, device="cpu", batch_size=5)
    assert found.plan.to_json() == alone.plan.to_json()
    assert found.model.SerializeToString() == alone.model.SerializeToString()
    assert set(reads.values()) <= {1, 2}  # two workers may have had the same batch
