"""Very many samples are taken one class after the other, so that a shard has few sums."""

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.channels import find_groups
from onnxprune.data import Data, Streamed, load_data
from onnxprune.engine import each
from onnxprune.graph import Graph
from onnxprune.relevance import class_sums, score
from onnxprune.relevance.batches import shards
from onnxprune.relevance.criteria import find_criterion
from tests.support.small_net import Small

RNG = np.random.default_rng(0)


def mixed(small: Small) -> Data:
    data = load_data(small.data, shape=(1, 8, 8))
    return data.rows(RNG.permutation(len(data)))


def classes_of_shards(graph: Graph, data: Data) -> list[int]:
    measure = find_criterion("lrp").from_samples
    assert measure is not None
    job = class_sums.ClassSums(graph, find_groups(graph), data, measure, "summed", "cpu", 4)
    (batches,) = each(job, [None])
    return [len(classes) for classes, _ in each(job, shards(batches))]


def test_a_shard_is_of_few_classes_where_there_are_many_samples(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, data = Graph.load(small.path), mixed(small)
    assert max(classes_of_shards(graph, data)) > 1
    usual = score(graph, find_groups(graph), data, device="cpu", batch_size=4).values
    monkeypatch.setattr(class_sums, "MANY", 0)
    assert classes_of_shards(graph, data) == [1] * (len(data) // 4)
    found = score(graph, find_groups(graph), data, device="cpu", batch_size=4).values
    np.testing.assert_allclose(found, usual, rtol=1e-5, atol=1e-7)


def test_rows_that_are_read_together_stay_together(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_sums, "MANY", 0)
    graph, data = Graph.load(small.path), mixed(small)
    x = replace(Streamed.of(np.asarray(data.x)), together=True)
    assert max(classes_of_shards(graph, replace(data, x=x))) > 1
