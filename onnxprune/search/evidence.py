"""Evidence: what a finished run shows of single samples and single layers.

A run directory keeps it as `evidence.json`, for the page: the samples whose answer changed, what
the unpruned and the pruned net look at in them, how sure the change of accuracy is, and what each
layer costs before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.data import Data
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation import FIDELITY, Accuracy, Evaluator, Runnable
from onnxprune.graph import Graph
from onnxprune.search.clocks import profiler
from onnxprune.search.generated import parted
from onnxprune.search.latency import timed_nodes
from onnxprune.search.nets import Nets
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.pictures import channels_of, of_classes, of_outputs
from onnxprune.search.settings import Settings
from onnxprune.search.spread import spreads
from onnxprune.search.task import State
from onnxprune.surgery import repeats

SHOWN = 12
"""Samples whose answer changed, of which a page shows pictures."""
FELL = 0.0005
"""A score that fell by less is written as the same."""
SCORED = 2000
"""Of more images than these none is measured by itself."""
MOVES = 20
"""Rows of what changed into what."""
PAIRED = "paired: only the samples whose answer changed count (Bonett and Price 2012)"
Score: TypeAlias = "Callable[[IntArray], Accuracy]"
"""What measures some of the samples, by their numbers."""
DRAWN = "the samples drawn again 1,000 times with replacement (Efron 1979)"


def evidence_of(
    nets: Nets, state: State, pruned: ModelProto, data: Data | None, settings: Settings
) -> dict[str, Any]:
    """Return what `evidence.json` holds."""
    graph, judging = nets.task.graph, parted(data)[1]
    timed = judging is not None
    found: dict[str, Any] = {"layers": layer_costs(nets, state, pruned, judging, settings, timed)}
    if judging is not None:
        for layer, one in spreads(nets.task, state, judging, settings).items():
            found["layers"][layer]["scores"] = one
        found |= changes(graph, (graph.model, pruned), judging, settings)
    return found


def layer_costs(
    nets: Nets,
    state: State,
    pruned: ModelProto,
    data: Data | None,
    settings: Settings,
    timed: bool,
) -> dict[str, Any]:
    """Return parameters, multiply-adds and, where `timed`, milliseconds of each layer.

    Each is a pair: before and after. What the runtime does in no layer is under the name "".
    """
    graph, costs = nets.task.graph, nets.task.costs
    sides = (np.zeros_like(state.dead), state.dead)
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, Any] = {}
    for layer in nets.task.groups.filters:
        node = nodes[layer.node]
        weights = costs.figure({n: 1 for n in node.inputs if n in costs.constants})
        products = costs.figure(dict(repeats(graph, node)))
        known = node.name not in costs.unknown
        found[layer.node] = {
            "params": [int(weights.of(dead)) for dead in sides],
            "macs": [int(products.of(dead)) for dead in sides] if known else None,
        }
    if not timed:
        return found
    profile = profiler(data, settings)
    after = Graph(pruned, input_shapes=graph.input_shapes)
    times = [
        _layer_times(graph, profile(graph.model), found),
        _layer_times(after, profile(pruned), found),
    ]
    for name in {**times[0], **times[1]}:
        found.setdefault(name, {})["ms"] = [round(side.get(name, 0.0), 5) for side in times]
    return found


def _layer_times(
    graph: Graph, times: Mapping[str, float], layers: Mapping[str, Any]
) -> dict[str, float]:
    """The time of each layer, with what the runtime joined to it. Units: ms."""
    found = {"": times.get("", 0.0)}
    parts = timed_nodes(graph, times.keys())
    for name, ms in times.items():
        if name:
            own = [node.name for node in parts.get(name, ()) if node.name in layers]
            for layer in own or [""]:
                found[layer] = found.get(layer, 0.0) + ms / max(len(own), 1)
    return found


@dataclass(frozen=True)
class _Sides:
    """What both nets answer. Shapes: each `[n]`, or maps `[n, H, W]`; labels alike."""

    before: IntArray
    after: IntArray
    labels: IntArray


def changes(
    graph: Graph, models: Sequence[Runnable], data: Data, settings: Settings
) -> dict[str, Any]:
    """Return the interval of the change, the classes, and the samples whose answer changed.

    `models` are the two that are compared, `graph` that of the first, or what it was made of.
    """
    judge = make_evaluator(data, settings)
    answers = _answers(judge, models, data)
    if answers is None:
        return _of_scores(judge, graph, models, data, settings)
    sides = (answers.before, answers.after)
    found: dict[str, Any] = {"classes": [], "labelled": data.labelled}
    found["names"] = list(data.classes) if data.labelled else []
    if answers.labels.ndim == 1:
        right = _right(judge, answers, models)
        parts = len(judge.metric.parts)
        by_class = data.labelled if not parts else parts > 1
        found["interval"] = _interval(right, answers.labels if by_class else 0 * answers.labels)
        found["classes"] = list(_by_class(answers, right)) if data.labelled else []
        changed = np.flatnonzero(answers.before != answers.after)
        found["moves"] = _moves(answers, changed)
    else:
        found["interval"] = _of_maps(answers, of_union=judge.metric.name == "mean-iou")
        shares = (answers.before != answers.after).reshape(len(data), -1).mean(1)
        changed = np.argsort(-shares, kind="stable")
        changed = changed[shares[changed] > 0]
    found["changed"], found["samples"] = len(changed), len(data)
    if answers.labels.ndim == 1:  # those that were right before come first
        was_right = answers.before[changed] == answers.labels[changed]
        changed = changed[np.argsort(~was_right, kind="stable")]
    chosen = changed[:SHOWN]
    pictures = of_classes(graph, models, data, [s[chosen] for s in sides], chosen, settings)
    told = (_told(answers, k) for k in chosen.tolist())
    found["shown"] = [one | said for one, said in zip(pictures, told, strict=False)]
    return found


def _told(answers: _Sides, k: int) -> dict[str, Any]:
    """What both nets answer for a sample."""
    if answers.labels.ndim == 1:
        sides = (answers.labels, answers.before, answers.after)
        return dict(zip(("label", "before", "after"), (int(one[k]) for one in sides), strict=True))
    return {"changed": float((answers.before[k] != answers.after[k]).mean())}


def _answers(judge: Evaluator, models: Sequence[Runnable], data: Data) -> _Sides | None:
    """The classes that both nets give, where the outputs are class scores."""
    if judge.metric.answers:
        sides = [judge.judge(model)[1] for model in models]
        return _Sides(sides[0], sides[1], data.y)
    heads = data.heads
    if judge.metric.name != FIDELITY or not heads or heads[0].kind != "classes":
        return None
    found = []
    for model in models:
        outputs = judge.outputs(model).get(heads[0].tensor)
        if outputs is None or outputs.dtype == object:
            return None
        found.append(outputs.argmax(heads[0].axis))
    if found[0].size != len(data):
        return None
    return _Sides(found[0].reshape(-1), found[1].reshape(-1), found[0].reshape(-1))


def _right(
    judge: Evaluator, answers: _Sides, models: Sequence[Runnable]
) -> tuple[BoolArray, BoolArray]:
    """Which samples both nets get right, as the metric has it. Shapes: `[n]`."""
    k = max(judge.metric.answers, 1)
    if k == 1:
        return answers.before == answers.labels, answers.after == answers.labels
    found = []
    for model in models:
        (rows,) = judge.outputs(model).values()
        true = rows[np.arange(len(rows)), answers.labels][:, None]
        lower = np.arange(rows.shape[1]) < answers.labels[:, None]
        found.append(((rows > true) | ((rows == true) & lower)).sum(1) < k)
    return found[0], found[1]


def _interval(right: tuple[BoolArray, BoolArray], labels: IntArray) -> dict[str, Any]:
    """The interval of the change of the mean over classes, which weigh alike."""
    from onnxprune.report import weighted

    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    lost, gained = right[0] & ~right[1], ~right[0] & right[1]
    ends = weighted(lost.astype(float), gained.astype(float), 1 / counts[place])
    return {
        "low": ends[0],
        "high": ends[1],
        "samples": len(labels),
        "lost": int(lost.sum()),
        "gained": int(gained.sum()),
        "method": PAIRED,
    }


def _by_class(answers: _Sides, right: tuple[BoolArray, BoolArray]) -> Iterator[dict[str, Any]]:
    """The samples of each class: how many, lost and gained, and the interval of the change."""
    from onnxprune.report import paired

    lost, gained = right[0] & ~right[1], ~right[0] & right[1]
    for number, count in zip(*np.unique(answers.labels, return_counts=True), strict=True):
        own = answers.labels == number
        down, up = int(lost[own].sum()), int(gained[own].sum())
        low, high = paired(down, up, int(count))
        yield {
            "class": int(number),
            "samples": int(count),
            "lost": down,
            "gained": up,
            "low": round(low, 4),
            "high": round(high, 4),
        }


def _moves(answers: _Sides, changed: IntArray) -> list[dict[str, Any]]:
    """What changed into what, the most frequent first: the difference of two confusion tables."""
    rows = zip(
        answers.labels[changed].tolist(),
        answers.before[changed].tolist(),
        answers.after[changed].tolist(),
        strict=True,
    )
    counts = sorted(Counter(rows).items(), key=lambda item: (-item[1], item[0]))
    return [
        {"label": label, "before": one, "after": other, "samples": count}
        for (label, one, other), count in counts[:MOVES]
    ]


def _of_maps(answers: _Sides, *, of_union: bool) -> dict[str, Any]:
    """The interval of the change of the mean over pixels, or IoU, with images drawn again."""
    from onnxprune.report import resampled

    classes = int(max(answers.labels[answers.labels != 255].max(initial=0), 0)) + 1
    sides = []
    for given in (answers.before, answers.after):
        both, union = (np.zeros((len(given), classes)) for _ in range(2))
        for row, (one, labels) in enumerate(zip(given, answers.labels, strict=True)):
            counted = labels != 255
            one, labels = one[counted], labels[counted]
            same = np.bincount(labels[one == labels], minlength=classes)[:classes]
            both[row] = same
            seen = np.bincount(labels, minlength=classes)[:classes]
            found = np.bincount(one, minlength=classes)[:classes]
            union[row] = seen + found - same if of_union else seen
        sides.append((both, union))
    low, high = resampled(sides[0], sides[1])
    return {"low": low, "high": high, "samples": len(answers.labels), "method": DRAWN}


def _of_scores(
    judge: Evaluator, graph: Graph, models: Sequence[Runnable], data: Data, settings: Settings
) -> dict[str, Any]:
    """The interval of a metric without answers, and the samples that lost most of it."""
    from onnxprune.report import resampled

    outputs = [judge.outputs(model) for model in models]
    measured = [judge.of_rows(one) for one in outputs]
    lost = _losses(measured, graph, models, data, settings)
    if not judge.metric.adds_up:
        return _of_own(judge, measured, len(data)) | lost
    counts = [[side(one) for one in np.arange(len(data))[:, None]] for side in measured]
    low, high = resampled(_sums(counts[0]), _sums(counts[1]))
    interval = {"low": low, "high": high, "samples": len(data), "method": DRAWN}
    return {"interval": interval, **lost}


def _sums(counts: Sequence[Accuracy]) -> tuple[FloatArray, FloatArray]:
    """What is right, and all there is. Shapes: each `[n, classes]`."""
    right = np.stack([np.maximum(one.correct, 0) for one in counts])
    return right, np.stack([one.total for one in counts])


def _losses(
    measured: Sequence[Score],
    graph: Graph,
    models: Sequence[Runnable],
    data: Data,
    settings: Settings,
) -> dict[str, Any]:
    """The images whose own score fell, those that fell most first."""
    if channels_of(data) is None or len(data) > SCORED:
        return {}
    try:
        scores = np.array(
            [[side(np.array([k])).mean for k in range(len(data))] for side in measured]
        )
    except OnnxPruneError:  # a metric of a user's own that needs more than one sample
        return {}
    fell = np.nan_to_num(scores[0] - scores[1])
    lost = np.argsort(-fell, kind="stable")[: int((fell >= FELL).sum())]
    chosen = lost[:SHOWN]
    told = [{"scores": [round(float(side[k]), 4) for side in scores]} for k in chosen.tolist()]
    pictures, explained = of_outputs(graph, models, data, chosen, settings)
    shown = [one | said for one, said in zip(pictures, told, strict=False)]
    return {
        "changed": len(lost),
        "samples": len(data),
        "shown": shown,
        "explained": explained,
    }


def _of_own(judge: Evaluator, measured: Sequence[Score], samples: int) -> dict[str, Any]:
    """The intervals of the mean and of each class, all samples measured again in each draw."""
    from onnxprune.report import redrawn

    def scores(rows: IntArray) -> tuple[FloatArray, FloatArray]:
        one, other = (side(rows) for side in measured)
        return np.append(one.per_class, one.mean), np.append(other.per_class, other.mean)

    drawn = redrawn(scores, samples)
    if drawn is None or not np.isfinite(drawn[0][:, -1]).all():
        return {}
    (low, high), times = drawn
    whole = measured[1](np.arange(samples))
    objects = bool(judge.metric.parts) and float(whole.total.max()) > 1
    counts = [int(n) if objects else samples for n in whole.total]
    return {
        "interval": {
            "low": float(low[-1]),
            "high": float(high[-1]),
            "samples": samples,
            "method": f"the samples drawn again {times} times with replacement (Efron 1979)",
        },
        "classes": [
            {
                "class": k,
                "samples": counts[k],
                "low": round(float(low[k]), 4),
                "high": round(float(high[k]), 4),
            }
            for k in np.flatnonzero(np.isfinite(low[:-1])).tolist()
        ],
    }
