"""Conservation of relevance, a law that every case of every operator holds.

A case is a few nodes between convolutions (`tests.ops.registry`). The relevance that the last
convolutions give to the nodes must arrive at the first convolutions.
"""

from collections.abc import Iterable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.ops import OPS, Relevance
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror, Step
from onnxprune.relevance.routes import find_logits, find_routes
from onnxprune.relevance.rules import RULES
from tests.ops.cases import CASES
from tests.ops.sandwich import TAIL, Array, Case
from tests.support.dense import STABILISERS

REFUSED = {
    name
    for (_, name), described in OPS.items()
    if any(
        {Relevance.NONE, Relevance.REAL, Relevance.SLOPE}.intersection(op.ways_of_relevance)
        for op in described
    )
}
"""Operators that LRP cannot cross, or not with every attribute, or not but to first order."""

LAYERS = {
    name
    for (_, name), described in OPS.items()
    if any(op.relevance is Relevance.LINEAR and op.weights for op in described)
}
"""Operators that weigh their input by a weight."""


def operators(case: Case) -> set[str]:
    return {node.op_type for node in case.nodes}


class CaseMirror(Mirror):
    """The mirror of a case, which has an image for each of its branches."""

    def start(self, x: object) -> dict[str, Tensor]:
        assert isinstance(x, dict)
        return {**self.constants, **{n: torch.from_numpy(v).double() for n, v in x.items()}}


def mirror_of(case: Case) -> Mirror:
    """The mirror; biases that nodes compute are computed first."""
    mirror = CaseMirror(Graph(case.model), device="cpu", dtype=torch.float64)
    made = {name for step in mirror.steps for name in step.node.outputs}
    return (
        folded(mirror)
        if made & {name for step in mirror.steps for name in biases(step)}
        else mirror
    )


def biases(step: Step) -> list[str]:
    return [step.node.inputs[k] for k in step.op.biases if k < len(step.node.inputs)]


def change(mirror: Mirror, names: Iterable[str], how: str) -> None:
    """Change the constants among some tensors: to `zeros_like` or `abs`."""
    for name in mirror.constants.keys() & set(names):
        if mirror.constants[name].is_floating_point():
            mirror.constants[name] = getattr(torch, how)(mirror.constants[name])


def assert_conserved(mirror: Mirror, case: Case, feeds: dict[str, Array], rule: str) -> None:
    """What the last convolutions give, the first ones get, along the main path.

    Gates get relevance besides, to rank their filters: of a product only the signal counts.
    """
    logits, tensors = find_logits(mirror), {n for step in mirror.steps for n in step.node.inputs}
    tensors = (tensors | {logits}) - mirror.constants.keys() - {""}
    routes = find_routes(mirror, RULES[rule], tensors, logits)
    main, given = {logits}, {logits}
    for step in reversed(mirror.steps):
        route = routes.get(step.node.name)
        if route is not None and not main.isdisjoint(step.node.outputs):
            product = step.op.relevance in (Relevance.GATE, Relevance.LINEAR)
            main.update(route.inputs[:1] if product else route.inputs)
        if any(name.endswith(TAIL) for name in step.node.inputs):
            given = given - set(step.node.outputs) | {step.node.inputs[0]}
    heads = {name for name, shape in case.tensors.items() if isinstance(shape, tuple)}
    labels = np.zeros(case.batches[0], np.int64)
    found = relevance(mirror, feeds, labels, RULES[rule], tensors)
    first, last = (sum(float(found[n].sum()) for n in ns & main) for ns in (heads, given))
    assert first == pytest.approx(last, rel=STABILISERS, abs=STABILISERS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_epsilon_conserves_what_no_constant_gets(case: Case) -> None:
    """Constants that are added take a share, so they are 0 here."""
    mirror = mirror_of(case)
    for step in mirror.steps:
        shares = step.op.relevance_at(step.node) in (Relevance.SHARE, Relevance.COPY)
        change(mirror, step.node.inputs if shares else biases(step), "zeros_like")
    try:
        assert_conserved(mirror, case, case.feeds(case.batches[0]), "epsilon")
    except UnsupportedOp as error:
        refused = [f"LRP is not defined across {name}" for name in REFUSED & operators(case)]
        assert any(one in str(error) for one in refused)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if LAYERS & operators(case) and not REFUSED & operators(case)],
    ids=str,
)
def test_zplus_conserves_where_every_output_has_a_positive_contribution(case: Case) -> None:
    """As it has where images and weights are positive; biases take no share."""
    mirror = mirror_of(case)
    for step in mirror.steps:
        if step.op.relevance is Relevance.LINEAR:
            change(mirror, step.node.inputs, "abs")
    feeds = {name: np.abs(image) for name, image in case.feeds(case.batches[0]).items()}
    assert_conserved(mirror, case, feeds, "zplus")


IN_PLACE = {
    'ScatterND<reduction = "add">(h, i, z)': np.arange(2)[:, None],
    'ScatterElements<axis = 1, reduction = "add">(h, i, z)': np.zeros((2, 4, 6, 6), np.int64)
    + np.arange(4)[:, None, None],
}
"""Nodes that add z to all of h, and their indices."""


def mirror_that_writes(line: str, held: dict[str, Array]) -> Mirror:
    """A convolution, a line that reads it as h and names s, and a dense layer."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18]>
        g (float[2, 3, 8, 8] x) => (float[2, 5] y)
        {{ h = Conv(x, w) s = {line} f = Flatten(s) y = MatMul(f, m) }}"""
    )
    for name, value in held.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return Mirror(Graph(model), device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("written", IN_PLACE)
def test_what_is_added_in_place_shares_as_a_sum_does(written: str) -> None:
    """Relevance does not cross what is multiplied there."""
    rng, labels = np.random.default_rng(4), np.array([1, 3])
    shapes = {"w": (4, 3, 3, 3), "m": (144, 5), "z": (2, 4, 6, 6)}
    held = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    held["i"], x = IN_PLACE[written], rng.normal(size=(2, 3, 8, 8))
    expected, found = (
        relevance(mirror_that_writes(line, held), x, labels, RULES["epsilon"], {"h"})["h"]
        for line in ("Add(h, z)", written)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    product = mirror_that_writes(written.replace('"add"', '"mul"'), held)
    with pytest.raises(UnsupportedOp, match="LRP is not defined across Scatter"):
        relevance(product, x, labels, RULES["epsilon"], {"h"})
