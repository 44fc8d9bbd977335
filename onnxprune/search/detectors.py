"""Detectors: their samples, as their outputs and metadata say, and whether they find anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.checks import is_whole
from onnxprune.data import PRESETS, Data, Inputs, of_preset, readings
from onnxprune.detection import (
    AUTO,
    ENOUGH,
    SHARES,
    SURE,
    Detector,
    Precision,
    anchors_problem,
    are_anchored,
    centre_maps,
    find_detector,
    fit_image,
    level_classes,
    limited,
    load_objects,
    map_classes,
    numbered,
    parse_anchors,
    read_annotations,
)
from onnxprune.errors import NOTICE, DataError, InvalidModel, OnnxPruneError
from onnxprune.evaluation import FIDELITY
from onnxprune.graph import Graph
from onnxprune.search.evaluators import evaluator_of
from onnxprune.search.scaling import Scaling, find_scaling, listed_names, metadata
from onnxprune.search.settings import Settings
from onnxprune.text import read_literal

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

LARGEST = 1 << 14
"""Pixels of a side of an image."""
LOOKED_AT = 64
"""Images that other readings are tried on."""
LOOKED_AT_ALONE = 16
"""The same where they have no labels."""
NOTHING = 0.05
"""A mean AP50 below this is as good as nothing."""
USUAL, GAINED = 0.5, 0.1
"""A mean AP50 below which other readings are tried, and what one has to gain to be named."""
AS_TRAINED = "as networks of such a head usually take them"


def open_objects(graph: Graph, source: Path, settings: Settings) -> Data:
    """Read images with their objects as a detector sees them, and say how it was recognised.

    Raises: DataError where the data set cannot be read, or does not fit the model.
    """
    found = limited(read_annotations(source), settings.per_class)
    shape, dtype = _input(graph)
    names = next(listed_names(graph), ())
    found = numbered(found, names)
    detector = _detector(graph, shape, names or found.classes, settings)
    logger.log(NOTICE, "%s", detector)

    def read(preset: str) -> Data:
        return load_objects(found, detector, shape, dtype, preset, memory=settings.memory)

    scaling = _scaling(graph, detector, settings)
    samples = read(scaling.preset)
    judged = Precision(detector, samples.targets, samples.classes)
    if judged.judged.any() and judged.left_out:
        logger.log(
            NOTICE,
            "not judged, as they have fewer than %d objects: %s",
            ENOUGH,
            ", ".join(judged.left_out),
        )
    guessed = settings.preprocess == "auto" and scaling.why in ("", AS_TRAINED)
    better = _better_preset(graph.model, samples, settings) if guessed else None
    if better is not None:
        logger.warning("preprocess: %s; name another to have it so", better[1])
        return read(better[0])
    logger.info("%s", scaling)
    return samples


def _input(graph: Graph) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of an image and its type; a size that is open is that of Ultralytics' metadata."""
    shape, dtype = graph.image_form
    if None in shape:
        said = metadata(graph).get("imgsz", "")
        try:
            sizes = iter(read_literal(said))
            shape = tuple(_side(next(sizes)) if size is None else size for size in shape)
        except (ValueError, TypeError, StopIteration) as error:
            raise DataError(
                f"detector: input '{graph.image}' leaves its size open; give it with "
                f"--input-shape {graph.image}:1,3,640,640"
            ) from error
    if len(shape) != 3 or not {shape[0], shape[2]} & {1, 3}:
        raise DataError(f"detector: input '{graph.image}' is {list(shape)}; expected an image")
    return tuple(int(size) for size in shape if size is not None), dtype


def _side(size: Any) -> int:
    if not is_whole(size) or not 1 <= size <= LARGEST:
        raise ValueError(f"{size} is no size of an image")
    return int(size)


def _detector(
    graph: Graph, shape: tuple[int, ...], names: tuple[str, ...], settings: Settings
) -> Detector:
    size = (shape[1], shape[2]) if shape[0] in (1, 3) else (shape[0], shape[1])
    if None in graph.image_form[0]:
        graph = Graph(graph.model, input_shapes={graph.image: (1, *shape)})
    shapes = {name: graph.shape(name) or _declared(graph, name) for name in graph.outputs}
    said = metadata(graph)
    task, anchors = said.get("task", ""), parse_anchors(said.get("anchors", ""))
    return find_detector(shapes, size, len(names), head=settings.head, task=task, anchors=anchors)


def guess_detectors(graph: Graph, settings: Settings) -> list[Detector]:
    """Return the detectors that a model may be by the shapes of its outputs alone.

    Without names in the metadata the number of classes follows from the columns of the outputs.
    Raises: DataError where a head is given and does not fit.
    """
    try:
        shape, _ = _input(graph)
    except (DataError, InvalidModel):
        return []
    names = next(listed_names(graph), ())
    given, last = settings.head != AUTO, None
    found = []
    for count in [len(names)] if names else _class_counts(graph):
        try:
            found.append(_detector(graph, shape, names or ("",) * count, settings))
        except DataError as error:
            last = error
    if given and not found and last is not None:
        raise last
    anchored = [one for one in found if one.anchors]
    return found[:1] if given else anchored or found


def say_anchors(graph: Graph, outputs: Mapping[str, Array]) -> None:
    """Warn where outputs are judged as numbers because nobody has said the anchors of their boxes.

    Shapes: outputs `[n, ...]`.
    """
    try:
        shape, _ = _input(graph)
    except (DataError, InvalidModel):
        return
    size = (shape[1], shape[2]) if shape[0] in (1, 3) else (shape[0], shape[1])
    shapes = {name: array.shape for name, array in outputs.items()}
    names = next(listed_names(graph), ())
    for count in [len(names)] if names else sorted(map_classes(shapes)):
        if are_anchored(outputs, size, count):
            anchors = parse_anchors(metadata(graph).get("anchors", ""))
            said = {name: (None, *one[1:]) for name, one in shapes.items()}
            problem = anchors_problem("yolov5-maps", said, size, anchors)
            logger.warning("%s; until then outputs are compared as numbers", problem)
            return


def _class_counts(graph: Graph) -> list[int]:
    """How many classes there may be: columns of outputs, fewer than rows, or channels of maps."""
    shapes = [graph.shape(name) or _declared(graph, name) for name in graph.outputs]
    sizes = [[size or 0 for size in shape[1:]] for shape in shapes if len(shape) == 3]
    columns = {min(pair) for pair in sizes}
    found = {count - beside for count in columns for beside in (4, 5, SHARES) if count > beside}
    named = dict(zip(graph.outputs, ([n or 0 for n in shape] for shape in shapes), strict=True))
    centres = centre_maps(named)
    apart = named[centres.scores][1] if centres else level_classes(named)
    return [apart] if apart else sorted(found | map_classes(named))


def _declared(graph: Graph, name: str) -> tuple[int | None, ...]:
    """The shape of an output as the model states it: how many boxes there are may be open."""
    (value,) = (value for value in graph.proto.output if value.name == name)
    return tuple(axis.dim_value or None for axis in value.type.tensor_type.shape.dim)


def _scaling(graph: Graph, detector: Detector, settings: Settings) -> Scaling:
    """The preset that is given, that the model asks for, or that its head usually takes."""
    if settings.preprocess != "auto":
        return Scaling(settings.preprocess, "as given")
    found = find_scaling(graph)
    return Scaling(detector.preset, AS_TRAINED) if detector.preset and not found.why else found


def scaling_of_boxes(graph: Graph, data: Data, settings: Settings) -> Scaling | None:
    """Return the preset that a head usually takes, where it finds boxes by it.

    So it is where neither labels nor the model say how pixels are scaled. None where no head fits
    the outputs, or clearly more is found by the preset of the samples.
    """
    if isinstance(data.x, Inputs):
        return None
    some = data.every(-(-len(data) // LOOKED_AT_ALONE))
    given = np.asarray(some.x)
    by_preset = dict(readings(given, some.preprocess))
    found = []
    for detector in guess_detectors(graph, settings):
        x = by_preset.get(of_preset(detector.preset))
        if x is None or detector.preset == some.preprocess:
            continue
        read = replace(some, x=np.ascontiguousarray(x, given.dtype))
        many, few = (_count_boxes(graph, one, detector, settings) for one in (read, some))
        if many >= ENOUGH and 2 * many >= few:
            why = f"by which head '{detector.head}' finds {many} boxes ('{some.preprocess}': {few})"
            found.append((many, Scaling(detector.preset, why)))
    return max(found, key=lambda one: one[0])[1] if found else None


def _count_boxes(graph: Graph, data: Data, detector: Detector, settings: Settings) -> int:
    """How many boxes that fit the image a head finds in samples."""
    outputs = evaluator_of(data, settings, FIDELITY, list(graph.outputs)).outputs(graph.model)
    return sum(
        int((fit_image(one.boxes, detector.size) & (one.scores >= SURE) & (one.scores <= 1)).sum())
        for one in detector(outputs)
    )


# Does it find anything?


def box_problem(model: ModelProto, data: Data, settings: Settings) -> str | None:
    """Return what is wrong with the samples of a detector, or None where it finds their objects.

    Raises: InvalidModel or DataError where the model cannot be run on the samples.
    """
    found = _mean(model, data, settings)
    if found >= USUAL:
        return None
    fits = sorted(_readings(model, data, settings), reverse=True)
    if fits and fits[0][0] >= found + GAINED:
        best, words = fits[0]
        return f"samples: the unpruned model's AP50 is {found:.3f}; with {words} it is {best:.3f}"
    if found >= NOTHING:
        return None
    alike = _mean(model, _of_one_class(data), settings)
    if alike >= max(GAINED, 2 * found):
        return (
            f"samples: the unpruned model's AP50 is {found:.3f}, and {alike:.3f} if classes do not "
            "matter, so the classes are in another order; list the model's in its metadata (names) "
            "or in data.yaml"
        )
    return (
        f"samples: the unpruned model's AP50 is {found:.3f}, next to nothing, and no other preset "
        "or order of channels that was tried fits; look at --head, the size of its input and the "
        "class names"
    )


def _mean(model: ModelProto, data: Data, settings: Settings) -> float:
    """The mean AP50 of the classes."""
    assert data.detector is not None
    metric = Precision(data.detector, data.targets, data.classes).metric("map50")
    return evaluator_of(data, settings, metric)(model).mean


def _readings(model: ModelProto, data: Data, settings: Settings) -> Iterator[tuple[float, str]]:
    """The mean AP50 of other readings of the same pixels, with the words for each."""
    some = data.every(-(-len(data) // LOOKED_AT))
    assert not isinstance(some.x, Inputs)
    given = np.asarray(some.x)
    for words, x in readings(given, some.preprocess):
        if x.shape != given.shape or np.allclose(x, given, atol=1e-3):
            continue
        try:
            tried = replace(some, x=np.ascontiguousarray(x, given.dtype))
            yield _mean(model, tried, settings), words
        except OnnxPruneError:
            continue


def _better_preset(model: ModelProto, data: Data, settings: Settings) -> tuple[str, str] | None:
    """A preset by which clearly more is found than by that of the samples, and what to say."""
    some = data.every(-(-len(data) // LOOKED_AT))
    before = _mean(model, some, settings)
    if before >= USUAL:
        return None
    names = {of_preset(name): name for name in PRESETS}
    found = [one for one in _readings(model, data, settings) if one[1] in names]
    best, words = max(found, default=(0.0, ""))
    if best < before + GAINED:
        return None
    return names[words], f"'{names[words]}', by which AP50 is {best:.3f}, not {before:.3f}"


def _of_one_class(data: Data) -> Data:
    """The same samples, with all objects and all that is found of one class."""
    detector, objects = data.detector, np.empty(len(data), object)
    assert detector is not None and data.targets is not None
    for row, held in enumerate(data.targets):
        objects[row] = held.copy()
        objects[row][:, 4] = 0

    def alike(outputs: object) -> list[object]:
        return [replace(one, classes=np.zeros_like(one.classes)) for one in detector(outputs)]

    return replace(data, targets=objects, classes=("object",), detector=alike)
