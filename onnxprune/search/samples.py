"""Samples for a model: their pixels scaled and their classes numbered as the model has them."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from onnxprune.data import Data, SampleSource, check_classes, load_data
from onnxprune.detection import annotation_kind
from onnxprune.errors import NOTICE, DataError
from onnxprune.evaluation import FIDELITY, find_metric
from onnxprune.graph import Graph
from onnxprune.search.baseline import better_preset
from onnxprune.search.detectors import open_objects, scaling_of_boxes
from onnxprune.search.generated import generate, generated_count
from onnxprune.search.scaling import class_names, find_scaling
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

STEPS = (64, 128)
"""Sizes of a first axis at which outputs are looked at; many, as time is pooled."""


def open_samples(graph: Graph, source: SampleSource, settings: Settings) -> Data:
    """Read samples in the form that a model takes.

    Of image files, `preprocess="auto"` scales the pixels as the model's metadata or its first nodes
    say; where they say nothing the usual preset is held against the others on some of the samples,
    without labels against that of a head that finds boxes.
    Class folders are numbered by the names that the metadata gives to the classes, if it does.
    Annotations of boxes, and folders of such, are read for a detector.
    Raises: DataError where the samples cannot be read or do not fit the model.
    """
    count = generated_count(source)
    if count is not None:
        return generate(graph, count, settings)
    if annotation_kind(source):
        return open_objects(graph, Path(str(source)), settings)
    own = find_metric(settings.metric).answers == 0 and settings.metric != FIDELITY
    of_files = isinstance(source, (str, Path)) and Path(source).is_dir()
    runs = samples_are_runs(graph)
    if runs:
        logger.log(NOTICE, "input '%s' has no batch axis: each sample is a run", graph.inputs[0])

    def read(preset: str) -> Data:
        found = load_data(
            source,
            inputs=graph.input_forms,
            preprocess=preset,
            limit=settings.per_class,
            any_target=own,
            memory=settings.memory,
            runs=runs,
            unread=graph.unread,
        )
        if of_files and found.labelled and found.y.ndim == 1 and settings.metric != FIDELITY:
            check_classes(Path(str(source)))
            return _numbered(found, class_names(graph))
        return found

    if not of_files or len(graph.inputs) > 1:
        return read(settings.preprocess)
    if settings.preprocess != "auto":
        _warn_of(settings.preprocess, graph)
        return read(settings.preprocess)
    scaling = find_scaling(graph)
    samples = read(scaling.preset)
    if not scaling.why:
        better = better_preset(graph.model, samples, settings)
        alone = not samples.labelled or settings.metric == FIDELITY
        if better is None and alone:
            better = scaling_of_boxes(graph, samples, settings)
        if better is not None:
            logger.warning("%s; name another to have it so", better)
            return read(better.preset)
        if alone:
            logger.log(NOTICE, "%s (--preprocess names another)", scaling)
            return samples
    logger.info("%s", scaling)
    return samples


def samples_are_runs(graph: Graph) -> bool:
    """Return whether the open first axis of the one input is no batch axis.

    Then the outputs do not grow in proportion to it, as where it is time that is averaged over. It
    is one where it is called so, or where an output has an axis of its name, as `[T, N, K]` has.
    """
    forms = graph.input_forms
    if len(forms) != 1:
        return False
    ((name, (shape, _)),) = forms.items()
    if shape[:1] != (None,) or len(shape) > len("TCF") or _is_called_batch(graph, name):
        return False
    rest = (graph.shape(name) or ())[1:]
    looks = [Graph(graph.model, input_shapes={name: (n, *rest)}) for n in STEPS]
    found = [[look.shape(output) for look in looks] for output in graph.outputs]
    few, many = STEPS
    return all(a and b and a[0] * many != b[0] * few for a, b in found)


def _is_called_batch(graph: Graph, name: str) -> bool:
    """Whether the first axis of an input is called a batch, or as another axis of an output."""
    values = {value.name: value for value in (*graph.proto.input, *graph.proto.output)}
    axes = {
        one: [dim.dim_param for dim in values[one].type.tensor_type.shape.dim]
        for one in (name, *graph.outputs)
    }
    called = axes[name][0] if axes[name] else ""
    behind = {axis for one in graph.outputs for axis in axes[one][1:]}
    return "batch" in called.lower() or (called != "" and called in behind)


def _warn_of(preset: str, graph: Graph) -> None:
    """Say so where the model asks for another preset than is given."""
    try:
        scaling = find_scaling(graph)
    except DataError:
        return  # whoever names a preset knows better
    if scaling.why and scaling.preset != preset:
        logger.warning(
            "preprocess: '%s' is given, but '%s' seems right, %s",
            preset,
            scaling.preset,
            scaling.why,
        )


def _numbered(data: Data, names: tuple[str, ...]) -> Data:
    """Number the classes of folders as the model does, where it has their names.

    Raises: DataError where it has some of them only.
    """
    if not names or all(name.isdecimal() for name in data.classes):
        return data
    numbers = {_plain(name): number for number, name in enumerate(names)}
    found = [numbers.get(_plain(name)) for name in data.classes]
    known = [number for number in found if number is not None]
    if len(numbers) < len(names) or len(known) <= len(found) / 2:
        return data  # two of one name, or names of another kind
    if None in found:
        name = data.classes[found.index(None)]
        close = get_close_matches(name, names, 1, 0)
        raise DataError(
            f"samples: class folder '{name}' is none of the {len(names)} classes that the model's "
            f"metadata names (nearest: {close[0]}); rename or remove it"
        )
    if known != list(range(len(known))):
        logger.info("samples: the classes are numbered by their names in the model's metadata")
    return replace(data, y=np.array(known)[data.y], classes=names)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
