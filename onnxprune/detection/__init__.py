"""Detectors: boxes read from data sets and from outputs, and how well they agree.

Imports data, evaluation and plugins.

* `reading`: the way in: data sets of any layout; `yolo`, `coco`, `voc`: a reader for each;
  `annotations`: what they read; `samples`: the same as a model sees it
* `heads`: what outputs say; `maps`, `centres`, `levels`: those of undecoded heads
* `recognise`: which head a model has; `masks`, `points`: what a YOLO says beside boxes
* `boxes`: overlap and suppression; `precision`: average precision and its soft form
* `metrics`: both as a metric of one model's outputs; `agreement`: its boxes against another's
"""

from onnxprune.detection.agreement import BoxAgreement
from onnxprune.detection.annotations import Annotated, annotation_kind
from onnxprune.detection.boxes import SURE, fit_image
from onnxprune.detection.centres import centre_maps
from onnxprune.detection.heads import HEADS
from onnxprune.detection.levels import SHARES, level_classes
from onnxprune.detection.maps import are_anchored, map_classes, parse_anchors
from onnxprune.detection.metrics import ENOUGH, OVERLAPS, Precision
from onnxprune.detection.reading import limited, numbered, read_annotations
from onnxprune.detection.recognise import (
    AUTO,
    HEAD_NAMES,
    Detector,
    anchors_problem,
    check_head,
    find_detector,
)
from onnxprune.detection.samples import load_objects

__all__ = [
    "AUTO",
    "ENOUGH",
    "HEADS",
    "HEAD_NAMES",
    "OVERLAPS",
    "SHARES",
    "SURE",
    "Annotated",
    "BoxAgreement",
    "Detector",
    "Precision",
    "anchors_problem",
    "annotation_kind",
    "are_anchored",
    "centre_maps",
    "check_head",
    "find_detector",
    "fit_image",
    "level_classes",
    "limited",
    "load_objects",
    "map_classes",
    "numbered",
    "parse_anchors",
    "read_annotations",
]
