"""Remembered: what a run decided of a model's outputs and pixels, in the pruned model's metadata.

What an output holds is guessed from samples, and others might say otherwise. So a pruned model says
what it was judged by, and whoever measures it again goes by that. An option still wins. A decoding
of one's own is code, which no model may name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onnx import ModelProto

from onnxprune.data import KINDS, Data, find_preset
from onnxprune.detection import HEADS
from onnxprune.errors import NOTICE, DataError, InvalidValue
from onnxprune.evaluation import find_metric
from onnxprune.graph import Graph, read_metadata
from onnxprune.records import parse_json
from onnxprune.search.evaluators import metric_name
from onnxprune.search.scaling import OWN_KEY, find_scaling, metadata
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

OUTPUTS_KEY, HEAD_KEY = "onnxprune.outputs", "onnxprune.head"
"""Where a pruned model says what it was judged by: kinds by output, or how its boxes are read."""


@dataclass(frozen=True)
class Remembered:
    """What a model says of itself: kinds of outputs by tensor, a head, a preset.

    A kind is empty where an output was only named, for a metric that reads it.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    head: str = ""
    preprocess: str = ""

    def into(self, settings: Settings, graph: Graph) -> Settings:
        """Return settings with the head and the preset, where they and a graph leave these open."""
        if self.head and settings.head == Settings.head:
            settings = replace(settings, head=self.head)
        own = metadata(graph).get(OWN_KEY, "")
        if self.preprocess not in ("", own) and settings.preprocess == Settings.preprocess:
            said = "preprocess: '%s', as the pruned model's metadata says (%s)"
            logger.log(NOTICE, said, self.preprocess, OWN_KEY)
            settings = replace(settings, preprocess=self.preprocess)
        return settings

    def of(self, graph: Graph, settings: Settings) -> Remembered:
        """Return what is of use in a graph, and is not said otherwise by the settings."""
        if settings.outputs or settings.head not in (Settings.head, self.head):
            return NOTHING_SAID
        known = {
            name: kind
            for name, kind in self.outputs.items()
            if name in graph.producers or name in graph.outputs
        }
        if left := [name for name in self.outputs if name not in known]:
            logger.warning(
                "metadata, %s: the model has no tensor %s", OUTPUTS_KEY, ", ".join(map(repr, left))
            )
        return replace(self, outputs=known)


NOTHING_SAID = Remembered()


def remembered(model: ModelProto) -> Remembered:
    """Read what a model's metadata says that it was pruned by; what makes no sense says nothing."""
    said = read_metadata(model)
    head, preset = said.get(HEAD_KEY, ""), said.get(OWN_KEY, "")
    if head and head not in HEADS:
        logger.warning("metadata, %s: '%s' is no head that is known; left out", HEAD_KEY, head)
        head = ""
    outputs = _outputs(said[OUTPUTS_KEY]) if OUTPUTS_KEY in said else {}
    return Remembered(outputs, head, preset if _is_preset(preset) else "")


def _outputs(text: str) -> dict[str, str]:
    try:
        held = parse_json(text)
    except ValueError:
        held = None
    if not isinstance(held, dict) or not {"", *KINDS}.issuperset(map(str, held.values())):
        logger.warning("metadata, %s: is no list of outputs; left out", OUTPUTS_KEY)
        return {}
    return {str(name): str(kind) for name, kind in held.items()}


def _is_preset(name: str) -> bool:
    try:
        find_preset(name)
    except InvalidValue:
        return False
    return bool(name)


def to_remember(graph: Graph, data: Data | None, settings: Settings) -> dict[str, str]:
    """Return what to write into the metadata of a pruned model, by key; empty texts take keys away.

    A preset is written where the model itself does not say it.
    """
    if data is None or data.generated:
        return {}
    said, head = {OUTPUTS_KEY: "", HEAD_KEY: ""}, getattr(data.detector, "head", "")
    if data.detector is not None:
        said[HEAD_KEY] = head if head in HEADS else ""
    elif data.reference is not None:
        said[OUTPUTS_KEY] = json.dumps({one.tensor: one.kind for one in data.heads})
    elif data.reads:
        kind = "classes" if find_metric(metric_name(data, settings)).answers else ""
        said[OUTPUTS_KEY] = json.dumps(dict.fromkeys(data.reads, kind))
    if data.preprocess and data.preprocess != _usual(graph):
        said[OWN_KEY] = data.preprocess
    return said


def _usual(graph: Graph) -> str:
    try:
        return find_scaling(graph).preset
    except DataError:
        return ""
