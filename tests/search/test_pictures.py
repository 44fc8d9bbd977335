"""Pictures of samples that lost: the right ones, with what both nets look at in them."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, numpy_helper
from PIL import Image

from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.relevance import heat_maps
from onnxprune.report.png import OUTLINE
from onnxprune.samples import detection
from onnxprune.search import Settings, open_model
from onnxprune.search.evidence import SHOWN, changes
from tests.search.test_detectors import MODEL, SETTINGS

NET = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, 8, 8] x) => (float[N, 2, 6, 6] y)
<float[2, 3, 3, 3] w = {WEIGHT}> { y = Conv(x, w) }"""


def linear(weight: np.ndarray) -> ModelProto:
    numbers = ", ".join(f"{value:.6f}" for value in weight.ravel())
    return onnx.parser.parse_model(NET.replace("WEIGHT", numbers))


def pixels(uri: str) -> np.ndarray:
    raw = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(raw)))


def without(model: ModelProto, kind: int) -> ModelProto:
    """The detector, which is unsure of all objects of a class."""
    blind = ModelProto()
    blind.CopyFrom(model)
    for held in blind.graph.initializer:
        if "scores" in held.name and held.dims == [4]:
            bias = numpy_helper.to_array(held).copy()
            bias[kind] -= 20.0
            held.CopyFrom(numpy_helper.from_array(bias, held.name))
    return blind


def test_images_that_lost_an_object_are_shown_with_the_boxes_of_both() -> None:
    graph, data = open_model(MODEL, detection.REFERENCE, SETTINGS)
    assert data is not None
    lost = data.classes.index("triangle")
    found = changes(graph, (graph.model, without(graph.model, lost)), data, SETTINGS)
    held = [objects[objects[:, 4] == lost] for objects in data.targets]
    assert found["explained"] == "scores"
    assert found["changed"] >= sum(map(bool, map(len, held))) > SHOWN == len(found["shown"])
    falls = [round(one["scores"][0] - one["scores"][1], 6) for one in found["shown"]]
    assert falls == sorted(falls, reverse=True)
    assert falls[-1] > 0
    counts = []
    for one in found["shown"]:
        assert len(held[data.names.index(one["name"])]) > 0
        marked = [(pixels(side) == OUTLINE).all(-1).sum() for side in one["maps"]]
        counts.append(marked)
    before, after = np.array(counts).T
    assert (before > after).all()  # the boxes of the class are gone


def test_weights_of_outputs_are_explained_as_a_linear_net_has_it() -> None:
    rng = np.random.default_rng(0)
    model = linear(rng.standard_normal((2, 3, 3, 3)))
    x = rng.standard_normal((5, 3, 8, 8)).astype(np.float32)
    weights = rng.standard_normal((5, 2, 6, 6))
    graph, kernel = Graph(model), numpy_helper.to_array(model.graph.initializer[0])
    found = heat_maps(graph, x, {"y": weights}, 1)
    shares, total = np.zeros_like(x, np.float64), np.zeros(5)
    for i in range(6):
        for j in range(6):
            part = np.einsum("nchw,kchw->nkchw", x[:, :, i : i + 3, j : j + 3], kernel)
            part = part * weights[:, :, i, j, None, None, None]
            shares[:, :, i : i + 3, j : j + 3] += part.sum(1)
            total += np.abs(part.sum((2, 3, 4))).sum(1)
    np.testing.assert_allclose(found, shares.sum(1) / total[:, None, None], atol=1e-4)


def test_numbers_are_explained_by_what_sets_them_apart() -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((2, 3, 3, 3))
    settings = Settings.of(device="cpu", threads=1, outputs=("y=values",))
    x = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    graph, data = open_model(linear(weight), {"x": x}, settings)
    assert data is not None
    weight[0, 0] = 0
    found = changes(graph, (graph.model, linear(weight)), data, settings)
    assert found["explained"] == "outputs"
    assert found["changed"] == 6
    assert all(one["scores"][0] == 1.0 > one["scores"][1] for one in found["shown"])
    first = found["shown"][0]["maps"]
    assert [pixels(side).shape for side in first] == [(8, 8, 3)] * 2
    assert first[0] != first[1]


def test_boxes_alone_are_drawn_beside_a_picture_that_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crossed(*_: Any, **__: Any) -> Any:
        raise UnsupportedOp("nobody crosses this")

    monkeypatch.setattr("onnxprune.search.pictures.heat_maps", crossed)
    graph, data = open_model(MODEL, detection.REFERENCE, SETTINGS.changed(per_class=12))
    assert data is not None
    found = changes(graph, (graph.model, without(graph.model, 2)), data, SETTINGS)
    assert found["explained"] == "boxes"
    one = found["shown"][0]
    sides = [pixels(side) for side in (one["picture"], *one["maps"])]
    marked = [int((side == OUTLINE).all(-1).sum()) for side in sides]
    assert marked[0] == 0 < marked[2] < marked[1]


def test_nothing_is_shown_where_nothing_is_lost() -> None:
    graph, data = open_model(MODEL, detection.REFERENCE, SETTINGS.changed(per_class=12))
    assert data is not None
    found = changes(graph, (graph.model, graph.model), data, SETTINGS)
    assert (found["changed"], found["shown"]) == (0, [])


def test_images_are_shown_by_a_metric_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(outputs, targets, _): return 1 / (1 + abs(outputs['y']).mean())")
    weight = np.ones((2, 3, 3, 3))
    settings = Settings.of(device="cpu", threads=1, metric=f"{file}:score")
    x = np.random.default_rng(2).standard_normal((6, 3, 8, 8)).astype(np.float32)
    graph, data = open_model(linear(weight), {"x": x, "y": np.arange(6) / 2}, settings)
    assert data is not None
    found = changes(graph, (graph.model, linear(3 * weight)), data, settings)
    assert found["changed"] == 6
