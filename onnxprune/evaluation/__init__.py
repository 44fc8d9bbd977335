"""What a model gets right and how fast it is, measured on the runtime that will run it.

Imports data and, from graph, how a model becomes a session. The controllers are given an evaluator
and do not import it.

* `evaluator`: a model over samples; `metrics`: scores of each class, and their harmonic mean
* `guessing`: whether a model clearly beats a guesser, and the order of classes that fits best
* `runtime`: onnxruntime: sessions, devices, latency; `profile`: the time of each node
"""

from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.guessing import Answers, Hits
from onnxprune.evaluation.metrics import (
    METRIC_NAMES,
    METRICS,
    Accuracy,
    agreement,
    caption,
    find_metric,
)
from onnxprune.evaluation.profile import node_times
from onnxprune.evaluation.runtime import block_width, latencies, latency, reason, session

__all__ = [
    "METRICS",
    "METRIC_NAMES",
    "Accuracy",
    "Answers",
    "Evaluator",
    "Hits",
    "agreement",
    "block_width",
    "caption",
    "find_metric",
    "latencies",
    "latency",
    "node_times",
    "reason",
    "session",
]
