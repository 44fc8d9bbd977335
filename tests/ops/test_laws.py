"""The laws, written once and held by every case of every operator."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.relevance.mirror import Mirror
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.ops.cases import CASES
from tests.ops.sandwich import Array, Case, elements, half, run, silence

RTOL = 1e-5
"""Of the largest output: float32 sums of some hundred terms, in another order."""

each_case = pytest.mark.parametrize("case", CASES, ids=str)


@cache
def analysed(case: Case) -> tuple[Graph, ChannelGroups]:
    graph = Graph(case.model)
    return graph, find_groups(graph)


def close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=RTOL * scale)


def identity(model: ModelProto) -> list[object]:
    """What surgery may not change."""
    graph = model.graph
    return [
        model.ir_version,
        [(entry.domain, entry.version) for entry in model.opset_import],
        [value.name for value in (*graph.input, *graph.output)],
    ]


def nodes(model: ModelProto) -> list[tuple[str, tuple[str, ...]]]:
    return [(node.name, tuple(node.output)) for node in model.graph.node]


@each_case
def test_mirror_agrees_with_onnxruntime(case: Case) -> None:
    model = case.model
    mirror = Mirror(Graph(model), device="cpu")
    for batch in case.batches:
        feeds = case.feeds(batch)
        found = mirror.run(feeds)
        for value, expected in zip(model.graph.output, run(model, feeds), strict=True):
            close(found[value.name].numpy(), expected)


@each_case
def test_channels_found_are_as_declared(case: Case) -> None:
    _, groups = analysed(case)
    assert int(groups.removable.sum()) == case.removable, groups.reasons
    if case.why:
        assert any(case.why in reason.text for reason in groups.reasons.values()), groups.reasons


@each_case
def test_pruned_equals_masked(case: Case) -> None:
    model = case.model
    graph, groups = analysed(case)
    for seed in range(2):
        dead = half(groups, seed)
        if not dead.any():
            continue
        pruned, masked = remove_channels(graph, groups, dead), mask(graph, groups, dead)
        onnx.checker.check_model(pruned, full_check=True)
        assert identity(pruned) == identity(masked) == identity(model)
        assert nodes(masked) == nodes(model)
        assert set(nodes(pruned)) <= set(nodes(model))
        assert elements(pruned) < elements(model) == elements(masked)
        expected_of = masked if case.masked else silence(model, masked)
        for batch in case.batches:
            feeds = case.feeds(batch)
            for found, expected in zip(run(pruned, feeds), run(expected_of, feeds), strict=True):
                close(found, expected)


@each_case
def test_nothing_removed_is_nothing_changed(case: Case) -> None:
    model = case.model
    graph, groups = analysed(case)
    nothing = np.zeros(len(groups), np.bool_)
    before = model.SerializeToString(deterministic=True)
    assert remove_channels(graph, groups, nothing).SerializeToString(deterministic=True) == before
    assert mask(graph, groups, nothing).SerializeToString(deterministic=True) == before
    remove_channels(graph, groups, half(groups, 0))
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("case", [c for c in CASES if not c.masked], ids=str)
def test_only_cases_that_cannot_be_masked_are_exempt(case: Case) -> None:
    graph, groups = analysed(case)
    masked = mask(graph, groups, half(groups, 0))
    results = run(masked, case.feeds(case.batches[0]))
    assert not all(np.isfinite(result).all() for result in results)
