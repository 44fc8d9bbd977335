"""What the outputs of a model are judged by: class scores, what they hold, and the reference.

Without labels the unpruned model is the reference. What an output holds is read off its values, and
said, because a guess is never silent; `--outputs NAME=KIND` says it otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from onnxprune.data import ALL, KINDS, Data, Head, by_name
from onnxprune.detection import BoxAgreement
from onnxprune.errors import NOTICE, DataError, InvalidModel, InvalidValue, check_name
from onnxprune.evaluation import (
    FIDELITY,
    find_metric,
    highest,
    is_one_answer,
    likely_rows,
)
from onnxprune.graph import Graph
from onnxprune.search.detectors import guess_detectors, say_anchors
from onnxprune.search.evaluators import evaluator_of, metric_name
from onnxprune.search.holding import HANDING, head_of, measured, say, shared_places
from onnxprune.search.one_sample import warn_of_one
from onnxprune.search.remembered import NOTHING_SAID, OUTPUTS_KEY, Remembered
from onnxprune.search.scaling import listed_names
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

SELECTS = ("NonMaxSuppression", "TopK", "NonZero", "ArgMax", "ArgMin", "Unique", "Compress")
"""Operators whose outputs jump: what they choose from is judged in the place of what they give."""


LEAST_BOXES = 20
"""With fewer boxes on all samples nearly every place counts nothing, and what finds boxes there."""


def with_heads(graph: Graph, data: Data, settings: Settings, by: Remembered = NOTHING_SAID) -> Data:
    """Return samples that know what the outputs hold and, for fidelity, what they were.

    What the settings leave open is as the model says that it was pruned `by`.
    Raises: DataError or InvalidModel where the outputs cannot be judged.
    """
    name = metric_name(data, settings)
    asked = dict(_asked(graph, settings.outputs))
    known = by.of(graph, settings).outputs
    data = replace(data, reads=tuple(asked))
    if find_metric(name).answers or (name != FIDELITY and _are_classes(graph, data)):
        return _with_class_scores(graph, data, asked, known)
    if name == FIDELITY and not data.labelled:
        logger.log(
            NOTICE, "no labels: what the unpruned model says of the samples is the reference"
        )
    if name != FIDELITY and (chosen := [one for one, kind in known.items() if not kind]):
        data = replace(data, reads=_recalled(chosen))
    kinds = asked or known
    if known and name == FIDELITY:
        _recalled(known)
    tensors = list(kinds) or [t for output in graph.outputs for t in judged(graph, output)]
    tensors = list(dict.fromkeys(tensors))
    seen = None
    if name == FIDELITY:
        seen = None if kinds else _find_boxes(graph, data, settings)
        data = replace(data, detector=None, units=None)
    read = dict.fromkeys([*tensors, *(graph.outputs if seen else ())])
    reference = _reference(graph, data, settings, list(read))
    heads, said = [], []
    places = shared_places(reference[tensor] for tensor in tensors)
    for tensor in tensors:
        values = reference[tensor]
        if values.dtype == object or values.dtype.kind not in "f":
            if tensor in asked or len(tensors) == 1:
                raise _cannot_judge(tensor, values)
            logger.warning("%s; it is left out", _cannot_judge(tensor, values))
            continue
        head = head_of(graph, tensor, values, kinds.get(tensor, ""), places)
        if name == FIDELITY and not data.generated and is_one_answer(head, values):
            head = _of_one_answer(graph, head, values, settings, bool(kinds.get(tensor)))
        alone = len(graph.shape(tensor) or values.shape) < values.ndim
        given = _given(graph, data) if name == FIDELITY and not alone else []
        heads.append(replace(measured(head, values, given), alone=alone))
        said.append(say(heads[-1], values.shape))
    if not heads:
        raise _cannot_judge(tensors[0], reference[tensors[0]])
    if {head.tensor for head in heads} != set(graph.outputs):
        data = replace(data, units=None)
    data = replace(data, heads=tuple(heads))
    warn_of_one(graph, data)
    held = {head.tensor: reference[head.tensor] for head in heads}
    shows = any(likely_rows(head, held[head.tensor]) for head in heads)
    outputs = {output: reference[output] for output in graph.outputs} if seen else {}
    seen = None if seen is None else seen.told(outputs, shows=shows)
    if seen is not None:
        least = LEAST_BOXES if settings.head == Settings.head else 0
        boxed = _by_boxes(replace(data, reference=held), seen, outputs, least)
        if boxed is not None:
            return boxed
    elif name == FIDELITY and not kinds and set(held) == set(graph.outputs):
        say_anchors(graph, held)
    if name != FIDELITY:
        return data
    for line in said:
        logger.log(NOTICE if data.detector is None else logging.INFO, "%s", line)
    if not settings.trust_baseline and len(data) > 1 and all(map(_is_constant, held.values())):
        raise DataError(
            f"samples: the unpruned model gives the same outputs for all {len(data)} samples, so "
            "nothing can be told from them; look at --preprocess and the range of values "
            "(--trust-baseline goes on as it is)"
        )
    return _pseudo_labelled(replace(data, reference=held))


def check_head(asked: Settings, samples: Data) -> None:
    """Refuse a head that is asked for where no boxes are read off the outputs.

    Raises: DataError.
    """
    if asked.head != Settings.head and samples.detector is None:
        raise DataError(
            f"head '{asked.head}': no boxes are judged: samples have other labels, --outputs names "
            "what is judged, or the outputs are not of such a head; leave out --head, or give "
            "annotations of objects, or images with --metric fidelity"
        )


def _given(graph: Graph, data: Data) -> list[Any]:
    """The samples of each input, unless each sample is a run. Shapes: each `[n, ...]`."""
    given = by_name(data.x, graph.inputs[0])
    return [] if given.apart else list(given.arrays.values())


def _of_one_answer(
    graph: Graph, head: Head, values: Array, settings: Settings, is_given: bool
) -> Head:
    """What to judge in the place of class scores that give all samples the same answer.

    Raises: DataError where class scores are asked for.
    """
    found = f"output '{head.tensor}': the unpruned model gives all {len(values)} samples one answer"
    if not is_given:
        logger.warning("%s, so its numbers are judged (--outputs NAME=classes has it so)", found)
        return head_of(graph, head.tensor, values, "values")
    if settings.outputs and not settings.trust_baseline:
        raise DataError(
            f"{found}, so a model that always gives it agrees; give samples of other classes, or "
            f"--outputs {head.tensor}=values (--trust-baseline goes on as it is)"
        )
    logger.warning("%s, so that agreement in it says little", found)
    return head


@dataclass(frozen=True)
class _Seen:
    """The detectors that shapes allow, and whether more than shapes says that it is one.

    `names` are those of its classes, their numbers by default.
    """

    allowed: Sequence[Any]
    names: tuple[str, ...]
    certain: bool

    @property
    def detector(self) -> Any:
        """The only one."""
        (only,) = self.allowed
        return only

    def told(self, outputs: Mapping[str, Array], *, shows: bool) -> _Seen | None:
        """Return the one that it is, by what the outputs hold where shapes do not say enough.

        Shapes: outputs `[n, ...]`.
        """
        if len(self.allowed) > 1 or not (self.certain or shows):
            found = [one for one in self.allowed if one.shows(outputs)]
            return replace(self, allowed=found) if len(found) == 1 else None
        return self


@dataclass(frozen=True)
class _Reading:
    """A detector of the outputs of a model, where more tensors are read."""

    detector: Any
    outputs: tuple[str, ...]

    @property
    def head(self) -> str:
        """The name of its head."""
        return str(getattr(self.detector, "head", ""))

    def __call__(self, given: Mapping[str, Array]) -> Any:
        """Return what is found in each image. Shapes: given `[N, ...]`."""
        return self.detector({name: given[name] for name in self.outputs})

    def masks(self, given: Mapping[str, Array]) -> Any:
        """Return what is said of masks, None where nothing is. Shapes: given `[N, ...]`."""
        return self._asked("masks", given)

    def points(self, given: Mapping[str, Array], **told: int) -> Any:
        """Return what is said of points, None where nothing is. Shapes: given `[N, ...]`."""
        return self._asked("points", given, **told)

    def _asked(self, what: str, given: Mapping[str, Array], **told: int) -> Any:
        find = getattr(self.detector, what, None)
        read = {name: given[name] for name in self.outputs}
        return None if find is None else find(read, **told)


def _recalled(tensors: Iterable[str]) -> tuple[str, ...]:
    """Say that outputs are judged as the model says."""
    names = tuple(tensors)
    logger.log(
        NOTICE,
        "outputs: %s, by which the model was pruned, as its metadata says (%s; --outputs names "
        "others)",
        ", ".join(names),
        OUTPUTS_KEY,
    )
    return names


def _find_boxes(graph: Graph, data: Data, settings: Settings) -> _Seen | None:
    """The detector that samples are of, or that the outputs of the model look like."""
    if data.detector is not None:
        return _Seen([data.detector], data.classes, certain=True)
    found = guess_detectors(graph, settings)
    names = next(listed_names(graph), ())
    said = settings.head != Settings.head or bool(names) or any(one.anchors for one in found)
    return _Seen(found, names, certain=said) if found else None


def _by_boxes(data: Data, seen: _Seen, outputs: Mapping[str, Array], least: int) -> Data | None:
    """Samples judged by the boxes that are found in the outputs, None where these are too few."""
    read = _Reading(seen.detector, tuple(outputs))
    names = seen.names or tuple(map(str, range(seen.detector.classes)))
    boxes = BoxAgreement(read, outputs, names)
    count, head = int(boxes.counts.sum()), read.head
    if not boxes.parts or count < least:
        logger.warning(
            "head '%s': the unpruned model finds %d boxes, too few to judge by: outputs are "
            "compared as numbers; give images that show more (--head %s has it so)",
            head,
            count,
            head,
        )
        return None
    logger.log(
        NOTICE,
        "head '%s' of %d classes (--head names another): the %d boxes that the unpruned model "
        "finds are the reference",
        head,
        len(names),
        count,
    )
    y = np.zeros(len(data), np.int64)
    held = {**(data.reference or {}), **outputs}
    whole = {head.tensor for head in data.heads} == set(outputs)
    units = seen.detector.units if whole else None
    return replace(data, detector=read, units=units, y=y, classes=names, reference=held)


def _pseudo_labelled(data: Data) -> Data:
    """Samples with the class that the unpruned model gives them, where it gives classes."""
    head, *others = data.heads
    if others or head.kind != "classes" or data.reference is None:
        return replace(data, y=np.zeros(len(data), np.int64), classes=ALL)
    scores = data.reference[head.tensor]
    y = highest(head, scores)
    y = y.reshape(len(y)) if y.size == len(y) else y
    if y.ndim not in (1, 3):
        return replace(data, y=np.zeros(len(data), np.int64), classes=ALL)
    count = max(scores.shape[head.axis], 2)
    return replace(data, y=y, classes=tuple(map(str, range(count))))


def _asked(graph: Graph, outputs: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The tensors that are named, each with its kind, which may be empty."""
    for text in outputs:
        name, _, kind = (text, "", "") if _is_tensor(graph, text) else text.rpartition("=")
        if name and kind and kind not in KINDS:
            raise InvalidValue(f"outputs: '{kind}' of '{name}'; expected {', '.join(KINDS)}")
        if not _is_tensor(graph, name or text):
            check_name("outputs: tensor", name or text, graph.outputs)
        yield name or text, kind


def _is_tensor(graph: Graph, name: str) -> bool:
    return name in graph.producers or name in graph.outputs


def _with_class_scores(
    graph: Graph, data: Data, asked: Mapping[str, str], known: Mapping[str, str]
) -> Data:
    """Samples judged by the class scores of one output: the one named or known, or the first."""
    if len(asked) > 1:
        raise InvalidValue(
            f"outputs: {', '.join(asked)}; expected one, that of the class scores; --metric "
            "fidelity judges several"
        )
    scores = [one for one, kind in known.items() if kind in ("", "classes")]
    if not asked and len(scores) == 1 and graph.outputs != (scores[0],):
        asked = dict.fromkeys(_recalled(scores), "")
        data = replace(data, reads=tuple(asked))
    if not asked and len(graph.outputs) > 1:
        logger.warning(
            "the model has %d outputs (%s): class scores are read from '%s'; --outputs names "
            "another",
            len(graph.outputs),
            ", ".join(graph.outputs),
            graph.outputs[0],
        )
    return replace(data, heads=tuple(map(Head, asked)))


def _are_classes(graph: Graph, data: Data) -> bool:
    """Return whether the labels are class numbers of the first output, as far as shapes tell."""
    if not data.labelled or (data.targets is not None and not data.y.any()):
        return False
    shape = graph.shape(graph.outputs[0]) or ()
    if data.y.ndim == 3:
        return len(shape) == 4
    flat = [n for n in shape[1:] if n != 1]
    if len(flat) > 1 or len(shape) < 2:
        return False
    return int(data.y.max(initial=0)) < max(flat[0] if flat else 1, 2)


def judged(graph: Graph, output: str) -> list[str]:
    """Return the tensors that are judged for an output: it, or what is selected from.

    Numbers and places that a selection gives jump with the smallest change, so agreement in them
    says little, and no gradient crosses it.
    """
    behind: set[str] = set()
    for node in graph.nodes:
        if node.op_type in SELECTS or behind.intersection(node.inputs):
            behind.update(filter(None, node.outputs))
    if output not in behind:
        return [output]
    needed, into = {output}, []
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.outputs) or not behind.intersection(node.outputs):
            continue
        for name in filter(None, node.inputs):
            if name in behind:
                needed.add(name)
            elif _varies(graph, name):
                into.append(_unmasked(graph, name))
    return list(dict.fromkeys(reversed(into))) or [output]


def _unmasked(graph: Graph, name: str) -> str:
    """The tensor that a mask is laid on, such as minus infinity where a choice is not allowed."""
    node = graph.producers[name]
    while node.op_type in HANDING and node.inputs[0] in graph.producers:
        node = graph.producers[node.inputs[0]]
    into = [one for one in node.inputs[1:] if one not in graph.constant_names]
    if node.op_type != "Where" or len(into) != 1 or not _varies(graph, into[0]):
        return name
    return _unmasked(graph, into[0])


def _varies(graph: Graph, name: str) -> bool:
    """Whether a tensor holds floats that are computed from the inputs."""
    held = graph.facts.types.get(name)
    kind = held.tensor_type.elem_type if held is not None else 0
    return name in graph.producers and name not in graph.constant_names and kind in FLOATS


def _reference(
    graph: Graph, data: Data, settings: Settings, tensors: list[str]
) -> Mapping[str, Array]:
    """The outputs of the unpruned model for all samples."""
    return evaluator_of(data, settings, FIDELITY, tensors).outputs(graph.model)


def _cannot_judge(tensor: str, values: Array) -> InvalidModel:
    found = "of another shape for each sample" if values.dtype == object else str(values.dtype)
    return InvalidModel(
        f"output '{tensor}' is {found}, so agreement in it cannot be measured; name floats of a "
        "fixed shape, also inside the model, with --outputs, or give --metric file.py:function"
    )


def _is_constant(values: Array) -> bool:
    return bool((values == values[:1]).all())
