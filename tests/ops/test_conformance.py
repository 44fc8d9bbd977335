"""ONNX's own node suite through the mirror, for every operator version that is described.

A case that cannot pass is listed with its reason, and must then fail: the list cannot rot.
"""

import logging
import re
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from onnxprune.arrays import is_float
from onnxprune.errors import OnnxPruneError
from onnxprune.graph.graph import Graph
from onnxprune.ops import OPS, Node, why_unknown
from onnxprune.ops.node import node_of
from onnxprune.ops.unknown import DOMAINS, REASONS
from onnxprune.relevance.mirror import Mirror

logger = logging.getLogger(__name__)

UNSIGNED = "torch does not compute with unsigned integers of 16 bits and more"
SMALL = "torch has no type for these numbers of 8 bits and less, or does not compute with it"
REFUSED = "the mirror refuses an attribute, input or output by name"

CANNOT = {
    r"(add|sub|div|mod|max|min|less|greater|bitshift).*uint(16|32|64)": UNSIGNED,
    r"bitwise_not_3d": UNSIGNED,
    r"cast.*_to_(U?INT[24]|FLOAT[48])": SMALL,
    r"quantizelinear_(e[45]m|e8m0|float4|u?int[24]$|u?int[24]_)": SMALL,
    r"training": "the mirror is for inference, not for training",
    r"resize.*(crop|antialias|not_)|col2im_5d|roialign_mode_max": REFUSED,
    r"attention_(?!.*_expanded)(.*_qk_matmul|.*mode3_zero$|24_qk|local_window_gqa_)": REFUSED,
    r"attention_(?!.*_expanded)(.*padded_kv|.*nonpad|local_window_ext)": REFUSED,
    r"resize_downsample_scales_.*_align_corners": "the resized axis has a length that is not whole",
    r"equal_string|identity_(sequence|opt)": "its tensors hold text, or are no tensors",
    r"reduce_(max|min)_empty_set": "torch has no maximum of nothing",
    r"bitcast_float64": "a mirror of single precision does not hold the bits of doubles",
}
"""Patterns of test names, and why these cases fail."""

NO_CASES = {"GlobalLpPool", "MaxRoiPool"}
"""Operators for which ONNX has no node test; the laws compare them with onnxruntime."""

HALF_RTOL = 1e-2
"""float16 and bfloat16: the mirror computes in float32, the suite in the type itself."""
ATOL = 1e-6


@cache
def suite() -> dict[str, list[TestCase]]:
    """The cases of which every node is described, by the operators they hold."""
    found: dict[str, list[TestCase]] = {}
    for case in all_cases():
        if undescribed(case) is None:
            for name in {node.op_type for node in nodes(case)}:
                found.setdefault(name, []).append(case)
    return found


@cache
def all_cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, while ONNX makes its data
        return load_model_tests(kind="node")


def nodes(case: TestCase) -> list[Node]:
    domains = {entry.domain: entry.version for entry in case.model.opset_import}
    return [node_of(proto, domains) for proto in case.model.graph.node]


def undescribed(case: TestCase) -> str | None:
    """Why a node of the case is not described, as `inspect` says it."""
    return next((why_unknown(node) for node in nodes(case) if node.op is None), None)


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


def test_every_case_is_run_or_skipped_with_a_reason() -> None:
    counts = Counter(undescribed(case) or reason(case) or "run" for case in all_cases())
    for why, count in counts.most_common():
        logger.info("%5d %s", count, why)
    assert not [why for why in counts if "does not know" in why]
    assert counts["run"] >= 0.75 * counts.total()
    assert {undescribed(case) for case in all_cases()} - {None} <= {*REASONS, *DOMAINS.values()}
