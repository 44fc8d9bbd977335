"""ONNX's own node suite through the mirror, for every operator version that is described.

A case that cannot pass is listed with its reason, and must then fail: the list cannot rot.
"""

import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from onnxprune.errors import OnnxPruneError
from onnxprune.graph.facts import is_float
from onnxprune.graph.graph import Graph
from onnxprune.ops import OPS, find_op
from onnxprune.ops.node import node_of
from onnxprune.relevance.mirror import Mirror

CANNOT = {
    r"(add|sub|div|mod|max|min|less|greater).*uint(16|32|64)": "torch cannot, for these types",
    r"cast.*_to_(U?INT[24]|FLOAT[48])": "torch has no such type, or cannot compute with it",
    r"training": "the mirror is for inference",
    r"resize.*(crop|antialias|not_)": "refused by name",
    r"resize_downsample_scales_.*_align_corners": "of a length that is not whole",
    r"quantizelinear_(e[45]m|e8m0|float4|u?int[24]$|u?int[24]_)": "torch has no such integers",
    r"col2im_5d|roialign_mode_max": "refused by name",
    r"equal_string|identity_(sequence|opt)": "not a tensor of numbers",
    r"reduce_(max|min)_empty_set": "torch has no maximum of nothing",
}
"""Patterns of test names, and why these cases fail."""

NO_CASES = {"GlobalLpPool"}
"""Operators for which ONNX has no node test; the laws compare them with onnxruntime."""

HALF_RTOL = 1e-2
"""float16 and bfloat16: the mirror computes in float32, the suite in the type itself."""
ATOL = 1e-6


@cache
def suite() -> dict[str, list[TestCase]]:
    """The cases of which every node is described, by the operators they hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, while ONNX makes its data
        cases = load_model_tests(kind="node")
    found: dict[str, list[TestCase]] = {}
    for case in cases:
        domains = {entry.domain: entry.version for entry in case.model.opset_import}
        nodes = [node_of(proto, domains) for proto in case.model.graph.node]
        if all(find_op(node) is not None for node in nodes):
            for name in {node.op_type for node in nodes}:
                found.setdefault(name, []).append(case)
    return found


def reason(case: TestCase) -> str | None:
    return next((why for pattern, why in CANNOT.items() if re.search(pattern, case.name)), None)


def array(value: Any) -> Any:
    if isinstance(value, list | np.ndarray):
        return value
    return value if np.isscalar(value) else numpy_helper.to_array(value)


def problem(case: TestCase) -> str | None:
    """What is wrong with the mirror of a case, or None; a case of several operators runs once."""
    if case.name not in PROBLEMS:
        PROBLEMS[case.name] = run(case)
    return PROBLEMS[case.name]


PROBLEMS: dict[str, str | None] = {}


def run(case: TestCase) -> str | None:
    graph = Graph(case.model)
    double = any(is_float(a) and a.itemsize == 8 for a in map(np.asarray, case.data_sets[0][1]))
    try:
        mirror = Mirror(graph, device="cpu", dtype=torch.float64 if double else torch.float32)
        for inputs, outputs in case.data_sets:
            feeds = dict(zip(graph.inputs, map(array, inputs), strict=False))
            found = mirror.run(feeds)
            for name, expected in zip(graph.outputs, map(array, outputs), strict=True):
                compare(found[name].numpy(), np.asarray(expected), case.rtol)
    except (OnnxPruneError, AssertionError, TypeError, AttributeError) as error:
        return f"{case.name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def compare(found: Any, expected: Any, rtol: float) -> None:
    assert found.shape == expected.shape
    if is_float(expected):
        rtol = rtol if expected.itemsize > 2 else HALF_RTOL
        np.testing.assert_allclose(found, expected.astype(np.float64), rtol=rtol, atol=ATOL)
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", sorted({name for domain, name in OPS if not domain} - NO_CASES))
def test_mirror_conforms(name: str) -> None:
    cases = [case for case in suite()[name] if reason(case) is None]
    assert cases, "no case is left: list the operator in NO_CASES"
    assert [found for case in cases if (found := problem(case))] == []


@pytest.mark.parametrize("pattern", CANNOT)
def test_what_is_listed_as_impossible_fails(pattern: str) -> None:
    named = {c.name: c for cases in suite().values() for c in cases if re.search(pattern, c.name)}
    assert named, "no case has this name"
    assert [name for name, case in named.items() if problem(case) is None] == []


def test_operators_without_cases_have_none() -> None:
    assert NO_CASES.isdisjoint(suite())
