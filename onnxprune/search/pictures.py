"""Pictures of samples for a page: each image, and what both nets look at in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.data import Data, Inputs
from onnxprune.detection import SURE
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation import FIDELITY, Runnable
from onnxprune.graph import Graph
from onnxprune.relevance import heat_maps
from onnxprune.search.evaluators import evaluator_of
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Boxes = Sequence[FloatArray]
"""Those of each image. Shapes: `[m, 4]` each."""


def channels_of(data: Data) -> int | None:
    """Return the axis of the channels of samples that are images, None of others."""
    if isinstance(data.x, Inputs) or data.generated or data.x.ndim != 4:
        return None
    return next((axis for axis in (1, 3) if data.x.shape[axis] in (1, 3, 4)), None)


def of_classes(
    graph: Graph,
    models: Sequence[Runnable],
    data: Data,
    answers: Sequence[IntArray],
    chosen: IntArray,
    settings: Settings,
) -> list[dict[str, Any]]:
    """Return pictures of the chosen samples; each net is explained for the class that it gives.

    Shapes: answers `[m]` or maps of the chosen samples, before and after; chosen `[m]`.
    """
    return _pictures(graph, models, data, chosen, list(answers), settings)


def of_outputs(
    graph: Graph, models: Sequence[Runnable], data: Data, chosen: IntArray, settings: Settings
) -> tuple[list[dict[str, Any]], str]:
    """Return pictures of the chosen samples, and what both nets are explained for.

    That is `scores`, those of the boxes that a detector is sure of, which the maps show as well;
    only these `boxes` where the head works out scores from several outputs; and `outputs` of other
    nets: how far they are from their mean over the samples. Shapes: chosen `[m]`.
    """
    found, boxes = list[dict[str, Array]](), list[Boxes]()
    heads = [head.tensor for head in data.heads]
    if not len(chosen) or not heads:  # nothing to show, or nobody knows what the outputs hold
        return _pictures(graph, models, data, chosen, [], settings), "outputs"
    for model in models:
        if data.detector is None:
            given = evaluator_of(data, settings, FIDELITY, heads).outputs(model, chosen)
            found.append(_from_the_mean(data, given))
            continue
        names = list(dict.fromkeys([*heads, *graph.outputs]))
        given = evaluator_of(data, settings, FIDELITY, names).outputs(model, chosen)
        sure = data.detector({name: given[name] for name in graph.outputs})
        kept = [one.scores >= SURE for one in sure]
        boxes.append([one.boxes[rows] for one, rows in zip(sure, kept, strict=True)])
        scores = [one.scores[rows] for one, rows in zip(sure, kept, strict=True)]
        found.append({name: _equal_to(given[name], scores) for name in heads})
    if not boxes:
        return _pictures(graph, models, data, chosen, found, settings), "outputs"
    named = all(any(map(np.any, one.values())) for one in found)
    maps = _heat(graph, models, data, chosen, found if named else [], settings)
    return _shown(data, chosen, maps, boxes), "scores" if maps else "boxes"


def _from_the_mean(data: Data, given: dict[str, Array]) -> dict[str, Array]:
    """How far each number is from its mean over all samples, in squared deviations."""
    found = {}
    for head in data.heads:
        values = given[head.tensor].astype(np.float64)
        held = (data.reference or {}).get(head.tensor, values)
        spread = 1.0 if head.deviation is None else np.asarray(head.deviation)
        found[head.tensor] = (values - held.mean(0)) / np.maximum(spread, 1e-12) ** 2
    return found


def _equal_to(values: Array, scores: Sequence[FloatArray]) -> Array:
    """Where an output holds one of the scores of its image. Shapes: values `[m, ...]`, as it."""
    rows = [np.isin(one, held.astype(one.dtype)) for one, held in zip(values, scores, strict=True)]
    return np.stack(rows).astype(np.float32)


def _pictures(
    graph: Graph,
    models: Sequence[Runnable],
    data: Data,
    chosen: IntArray,
    explained: Sequence[Any],
    settings: Settings,
) -> list[dict[str, Any]]:
    return _shown(data, chosen, _heat(graph, models, data, chosen, explained, settings))


def _shown(
    data: Data, chosen: IntArray, maps: Sequence[FloatArray], boxes: Sequence[Boxes] = ()
) -> list[dict[str, Any]]:
    """Each sample's picture, and both maps of it, or else both nets' boxes."""
    from onnxprune.report import data_uri, heat, outlined, photo

    axis = channels_of(data)
    if axis is None or not len(chosen):
        return []
    images = np.moveaxis(_rows(data, chosen), axis, -1)
    photos = [photo(one) for one in images]
    size = images.shape[1:3]
    sides = [[heat(one, shown) for one, shown in zip(side, photos, strict=True)] for side in maps]
    sides = sides or [list(photos) for _ in boxes]
    names = data.names or tuple(f"sample {k}" for k in range(len(data)))
    for side, found in zip(sides, boxes, strict=False):
        side[:] = [outlined(one, held, size) for one, held in zip(side, found, strict=True)]
    return [
        {
            "name": names[k],
            "picture": data_uri(photos[row]),
            "maps": [data_uri(side[row]) for side in sides],
        }
        for row, k in enumerate(chosen.tolist())
    ]


def _rows(data: Data, chosen: IntArray) -> Array:
    assert not isinstance(data.x, Inputs)
    return np.asarray(data.x[chosen])


def _heat(
    graph: Graph,
    models: Sequence[Runnable],
    data: Data,
    chosen: IntArray,
    explained: Sequence[Any],
    settings: Settings,
) -> list[FloatArray]:
    """The relevance maps of both nets, or none. Shapes: each `[m, H, W]`."""
    axis = channels_of(data)
    if axis is None or not len(chosen):
        return []
    nets = [
        Graph(model, input_shapes=graph.input_shapes)
        for model in models
        if isinstance(model, ModelProto)
    ]
    if len(nets) < len(explained):
        return []  # nobody sees into a file of another runtime
    x = _rows(data, chosen)
    try:
        return [
            heat_maps(
                net,
                x,
                what,
                axis,
                criterion=settings.criterion,
                heads=data.heads,
                device=settings.device,
            )
            for net, what in zip(nets, explained, strict=bool(explained))
        ]
    except OnnxPruneError as error:
        logger.info("relevance maps are left out: %s", error)
        return []
