"""What a model gets right and how fast it is, measured on the runtime that will run it.

Imports data and, from graph, how a model becomes a session. The controllers are given an evaluator
and do not import it.

* `evaluator`: a model over samples; `accuracy`: scores of each class, and their harmonic mean
* `metrics`: what scores them; `class_scores`: held against labels; `fidelity`: against the
  unpruned model; `residual`: what a network adds to a picture
* `unseen`: how much of the harmonic mean is lost on samples that nobody has seen
* `guessing`: whether a model clearly beats a guesser, and the order of classes that fits best
* `net`: a model that runs, on whatever runtime
* `runtime`: onnxruntime: sessions, devices, latency; `profile`: the time of each node
* `cards`: whether there is a card for CUDA
* `inputs`: inputs for a model that comes without samples
* `inside`: the first node that differs from another model's, or is not finite
"""

from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.cards import no_card
from onnxprune.evaluation.class_scores import agreement
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.fidelity import (
    REST,
    Fidelity,
    highest,
    is_one_answer,
    likely_rows,
    mean_of,
    rare_rows,
    spread_of,
    varying_rows,
)
from onnxprune.evaluation.guessing import Answers, Hits
from onnxprune.evaluation.inputs import TURNS, Feeds, made_up
from onnxprune.evaluation.inside import (
    Kept,
    Place,
    check_weights,
    difference,
    farthest,
    first_difference,
    first_not_finite,
    is_finite,
    nothing_lost,
)
from onnxprune.evaluation.metrics import (
    AUTO,
    AVERAGE_PRECISION,
    FIDELITY,
    METRIC_NAMES,
    METRICS,
    Metric,
    caption,
    find_metric,
)
from onnxprune.evaluation.net import Batch, Net, Port
from onnxprune.evaluation.profile import node_times
from onnxprune.evaluation.residual import residual_share
from onnxprune.evaluation.runtime import (
    Runnable,
    block_width,
    latencies,
    latency,
    reason,
    running,
    session,
)
from onnxprune.evaluation.unseen import Drop, drop_of_parts, expected_drop

__all__ = [
    "AUTO",
    "AVERAGE_PRECISION",
    "FIDELITY",
    "METRICS",
    "METRIC_NAMES",
    "REST",
    "TURNS",
    "Accuracy",
    "Answers",
    "Batch",
    "Drop",
    "Evaluator",
    "Feeds",
    "Fidelity",
    "Hits",
    "Kept",
    "Metric",
    "Net",
    "Place",
    "Port",
    "Runnable",
    "agreement",
    "block_width",
    "caption",
    "check_weights",
    "difference",
    "drop_of_parts",
    "expected_drop",
    "farthest",
    "find_metric",
    "first_difference",
    "first_not_finite",
    "highest",
    "is_finite",
    "is_one_answer",
    "latencies",
    "latency",
    "likely_rows",
    "made_up",
    "mean_of",
    "no_card",
    "node_times",
    "nothing_lost",
    "rare_rows",
    "reason",
    "residual_share",
    "running",
    "session",
    "spread_of",
    "varying_rows",
]
