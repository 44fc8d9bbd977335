"""Quantise, then prune: exact on onnxruntime. Prune, then quantise: within the floor."""

import numpy as np
import pytest

from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.deploy.int8 import quantise
from onnxprune.deploy.quantiser import StaticQuantiser
from onnxprune.graph import Graph, load_model
from onnxprune.run import prune
from onnxprune.samples import fashion_mnist
from onnxprune.search import Floor, Settings, make_evaluator, open_model
from onnxprune.surgery import mask, remove_channels
from tests.support.assertions import SHARES, some
from tests.support.exports import EXPORTERS
from tests.support.models import images, run
from tests.support.networks import build

SAMPLE = fashion_mnist.__path__[0]
KINDS = ("small/resnet", "small/mobilenet_v3", "small/shufflenet")


@pytest.mark.parametrize("exporter", ["classic-17", "dynamo"])
@pytest.mark.parametrize("name", KINDS)
def test_a_quantised_network_is_pruned_exactly(name: str, exporter: str) -> None:
    """Sums of integers round nowhere, so that not one value differs."""
    proto = EXPORTERS[exporter](build(name), name.replace("/", "-"), 64)
    x = images(proto, 4)
    data = Data(x, np.zeros(4, np.int64), ("all",), labelled=False)
    before = find_groups(Graph(proto))
    graph = Graph(StaticQuantiser(proto, data)([]))
    groups = find_groups(graph)
    assert groups.removable_filters >= 0.9 * before.removable_filters
    for seed, share in enumerate(SHARES):
        dead = some(groups, share, seed)
        small, masked = remove_channels(graph, groups, dead), mask(graph, groups, dead)
        assert np.array_equal(run(small, x)[0], run(masked, x)[0])


def test_a_quantised_sample_is_pruned_and_a_pruned_one_quantised() -> None:
    model = load_model(f"{SAMPLE}/model.onnx")
    asked = Settings(threads=1, per_class=8)
    _, data = open_model(model, f"{SAMPLE}/reference", asked)
    assert data is not None
    judge = make_evaluator(data, asked)
    floor = Floor(max_drop=0.05)
    whole = judge(model).harmonic

    quantised = quantise(StaticQuantiser(model, data), judge, floor)
    assert quantised.accuracy.harmonic >= whole - 0.05
    both = prune(
        quantised.model,
        data,
        rate=0.1,
        control="one-shot",
        compensate="none",
        trust_baseline=True,
        threads=1,
    )
    assert both.report["after"]["size_bytes"] < both.report["before"]["size_bytes"]

    pruned = prune(model, data, rate=0.2, control="one-shot", trust_baseline=True, threads=1).model
    small = quantise(StaticQuantiser(pruned, data), judge, floor)
    assert small.accuracy.harmonic >= judge(pruned).harmonic - 0.05
