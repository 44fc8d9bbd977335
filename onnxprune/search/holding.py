"""What an output holds, read off its values on the samples: class scores, a vector, or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data import KINDS, Head
from onnxprune.evaluation import mean_of, rare_rows, residual_share, spread_of, varying_rows
from onnxprune.graph import Graph
from onnxprune.search.places import counts_places

Array = npt.NDArray[Any]

SUMS = 1e-2
"""How far from 1 probabilities may sum up."""
SURE = 0.4
"""Mean probability of the highest class, after a softmax, above which logits are class scores."""
ROWS = 256
"""Of more rows than this none is judged by itself."""
SIDE = 8
"""Pixels along the shorter side of a map; of fewer it is a table, as of boxes."""
SPECTRUM, LONGER = 64, 3
"""Bands over time, at least, and how many times as many moments there are at most: a table, as of
boxes, is longer or has fewer columns."""
LEAST = 16
"""Elements of a vector; fewer are numbers of their own."""
APART = ("Sigmoid", "HardSigmoid")
"""What gives each number a meaning of its own, as of labels that may hold together."""
BOX, RIVALS = 4, 0.04
"""Numbers of a box. So many are class scores only if they are surer, by this, than the same numbers
of other samples brought together: where one class is high the others are low."""
STEPS, LOOKED_AT = 1000, 4096
"""Steps of a sequence at most; an output of more rows is one of places. Rows that are looked at."""
VARIED, MOSTLY = 3, 0.95
"""Classes that stand out along a sequence at least, and the share of the commonest at most."""
TRIES, MIXED = 8, 512
"""How often the numbers of other samples are brought together, and of how many rows at most."""
PLACED = 3
"""Axes of an output that holds a row of numbers for each of many places."""
HANDING = ("Pad", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")
"""Operators that hand numbers on as they are."""
NAMES = {"classes": ("logit", "prob", "class", "softmax"), "vector": ("embed", "feature")}
"""Parts of names that say what an output holds."""


def head_of(
    graph: Graph, tensor: str, values: Array, kind: str = "", places: Collection[int] = ()
) -> Head:
    """Return what an output holds, of a kind that is given or read off its values.

    `places` are the lengths of what `shared_places` finds: rows of so many are neither classes nor
    a sequence. One number at each of many places, as of moments, is one row.
    Shapes: values `[n, ...]`.
    """
    axis = _scores_axis(graph, tensor, values)
    along = sum(n > 1 for n in values.shape[1:]) == 1 and counts_places(graph, tensor)
    if not kind and values.ndim == PLACED and values.shape[1] in places:
        kind = "values" if axis is None else "classes"
    if not kind:
        scores = not _is_like_an_input(graph, tensor)
        axis = _letters_axis(values) if axis is None and scores else axis
        kind = "values" if along and axis is None else ""
        kind = kind or _kind(graph, tensor, values, axis, scores=scores)
    if kind in ("classes", "sequence"):
        alone = len(graph.shape(tensor) or values.shape) < values.ndim
        return Head(tensor, kind, _class_axis(values, alone=alone) if axis is None else axis)
    one = kind == "vector" or along or _are_bands(values)
    return Head(tensor, kind, 0 if one else _row_axis(values.shape))


def shared_places(outputs: Iterable[Array]) -> set[int]:
    """Return the lengths that several outputs have in common, as boxes and their scores have.

    Shapes: each `[n, places, k]`; others have no places.
    """
    lengths = Counter(values.shape[1] for values in outputs if values.ndim == PLACED)
    return {length for length, outputs in lengths.items() if length > 1 and outputs > 1}


def say(head: Head, shape: Sequence[int]) -> str:
    """Say what an output is judged by."""
    sizes = ", ".join(map(str, ("N", *shape[1:])))
    is_one = head.kind == "values" and head.axis == 0
    held = "numbers: all of them together have to stay close" if is_one else KINDS[head.kind]
    if head.residual is not None:
        held = "a picture that it is given: what it adds to it has to stay"
    return f"output '{head.tensor}' [{sizes}] is {held} (--outputs NAME=KIND)"


def say_ranked(head: Head, shape: Sequence[int], metric: str) -> str:
    """Say what an output is for the order of filters, where a metric of one's own judges it."""
    sizes = ", ".join(map(str, ("N", *shape[1:])))
    return (
        f"output '{head.tensor}' [{sizes}]: which filters go first is told by it as "
        f"{KINDS[head.kind].partition(':')[0]} (--outputs NAME=KIND); how many, by {metric}"
    )


def _is_like_an_input(graph: Graph, tensor: str) -> bool:
    """Whether an output is shaped like an input: the next state, or a better image."""
    shape = graph.shape(tensor)
    return shape is not None and any(graph.shape(name) == shape for name in graph.inputs)


def _kind(graph: Graph, tensor: str, values: Array, axis: int | None, *, scores: bool) -> str:
    """What an output holds; it may hold logits where `scores` says so."""
    wide = [n for n in values.shape[1:] if n != 1]
    if axis is not None:
        return "sequence" if len(wide) == 2 and values.ndim in (3, 4) else "classes"
    if len(wide) != 1:
        return "values"
    named = [kind for kind, parts in NAMES.items() if any(p in tensor.lower() for p in parts)]
    alone = values.min() >= 0 and values.max() <= 1  # probabilities that are no shares of one
    if named:
        return "values" if alone and named[0] == "classes" else named[0]
    rows = values.reshape(len(values), -1).astype(np.float64)
    if scores and rows.min() < 0 and _are_logits(rows):
        return "classes"
    return "vector" if rows.shape[1] >= LEAST and _last(graph, tensor) not in APART else "values"


def _last(graph: Graph, tensor: str) -> str:
    """The operator that computes a tensor, but for moves; nothing where none does."""
    while tensor in graph.producers:
        node = graph.producers[tensor]
        if node.op_type not in HANDING:
            return node.op_type
        tensor = node.inputs[0]
    return ""


def _are_logits(rows: Array) -> bool:
    """Whether one number of a row stands out: after a softmax, and farther than by chance.

    The largest of k normal numbers is about `sqrt(2 log k)` deviations above their mean. Four may
    be the offsets of a box.
    """
    sure = _sureness(rows)
    if rows.shape[1] == BOX and sure < _mixed_sureness(rows) + RIVALS:
        return False
    if rows.shape[1] < LEAST:
        return bool(sure >= max(SURE, 1.5 / rows.shape[1]))
    ahead = (rows.max(1) - rows.mean(1)) / np.maximum(rows.std(1), 1e-30)
    return bool(sure >= SURE and ahead.mean() >= np.sqrt(2 * np.log(rows.shape[1])))


def _sureness(rows: Array) -> float:
    """The mean probability of the highest class, after a softmax. Shapes: `[n, k]`."""
    return float(_surenesses(rows).mean())


def _surenesses(rows: Array) -> Array:
    """The probability of the highest class of each row. Shapes: `[n, k]` -> `[n]`."""
    e = np.exp(rows - rows.max(1, keepdims=True))
    found: Array = e.max(1) / e.sum(1)
    return found


def _mixed_sureness(rows: Array) -> float:
    """The same of rows whose numbers come from different samples. Shapes: `[n, k]`."""
    rng = np.random.default_rng(0)
    centred = rows - rows.mean(1, keepdims=True)
    return float(np.mean([_sureness(rng.permuted(centred, axis=0)) for _ in range(TRIES)]))


def _scores_axis(graph: Graph, tensor: str, values: Array) -> int | None:
    """The axis along which values are probabilities or logits of a softmax, or None."""
    if values.ndim < 2 or values.size == 0:
        return None
    for axis in range(values.ndim - 1, 0, -1):
        if values.shape[axis] > 1 and values.min() >= 0:
            total = values.sum(axis, dtype=np.float64)
            if np.abs(total - 1).max() <= SUMS:
                return axis
    for node in graph.consumers.get(tensor, ()):
        if node.op_type in ("Softmax", "LogSoftmax", "ArgMax"):
            given = node.attributes.get("axis", -1 if node.op_type != "ArgMax" else 0)
            rank = len(graph.shape(tensor) or values.shape)
            return int(given) % rank + values.ndim - rank
    return None


def _letters_axis(values: Array) -> int | None:
    """The last axis, where each place of another holds logits that no softmax reads, or None.

    What stands out has to vary from place to place; of a feature that is always large it does not.
    And where one is high the others have to be low, which the offsets of boxes are not.
    """
    wide = [k for k, n in enumerate(values.shape) if k and n > 1]
    last = values.ndim - 1
    if values.ndim not in (3, 4) or len(wide) != 2 or wide[1] != last or not values.size:
        return None
    if values.shape[last] < LEAST or values.shape[wide[0]] > STEPS or values.min() >= 0:
        return None
    rows = values.reshape(-1, values.shape[last])
    rows = rows[:: -(-len(rows) // LOOKED_AT)].astype(np.float64)
    _, counts = np.unique(rows.argmax(1), return_counts=True)
    if len(counts) < VARIED or counts.max() > MOSTLY * len(rows):
        return None
    ahead = (rows.max(1) - rows.mean(1)) / np.maximum(rows.std(1), 1e-30)
    stands_out = np.median(ahead) >= np.sqrt(2 * np.log(rows.shape[1]))
    if not stands_out or np.median(_surenesses(rows)) < SURE:
        return None
    rows = rows[:: -(-len(rows) // MIXED)]
    return last if _sureness(rows) >= _mixed_sureness(rows) + RIVALS else None


def _class_axis(values: Array, *, alone: bool) -> int:
    """The axis of class scores where nothing says it: the only long one, else the last of three.

    Those of samples that are run `alone` have an axis more, in front, as of `[T, 1, K]`.
    """
    wide = [k for k, n in enumerate(values.shape) if k and n > 1]
    if len(wide) == 1:
        return wide[0]
    last = values.ndim - 1
    return last if last == 2 + alone and values.shape[last] > 1 else 1


def _are_bands(values: Array) -> bool:
    """Whether an output is bands or notes over time, and no table: all of one kind, and nearly so.

    Boxes stand beside scores, of which only the ones are probabilities.
    Shapes: `[n, T, F]`.
    """
    short, long = (
        (min(values.shape[1:]), max(values.shape[1:])) if values.ndim == PLACED else (0, 0)
    )
    if short < SPECTRUM or long > LONGER * short:
        return False
    axes = tuple(k for k in range(PLACED) if k != _row_axis(values.shape))
    scores = (values.min(axes) >= 0) & (values.max(axes) <= 1)
    return bool(scores.all() or not scores.any())


def _row_axis(shape: Sequence[int]) -> int:
    """The axis of the rows: the smaller one where there are two; 0 for one row in all.

    A map of one channel, as of depth, is one row.
    """
    wide = [(n, k) for k, n in enumerate(shape) if k and n > 1]
    axes = [k for _, k in wide]
    if not wide or (len(shape) == 4 and axes in ([1, 2], [2, 3]) and min(wide)[0] >= SIDE):
        return 0
    count, axis = min(one for one in wide if axes != [1, 2, 3] or one[1] != 2)
    return axis if count <= ROWS else 0


def measured(head: Head, values: Array, inputs: Iterable[Array] = ()) -> Head:
    """Return the head with what the numbers of each row are measured in.

    That is how far they are from their mean over samples, as a root mean, of rows that count as one
    all together. Rows that hardly vary are not judged: they have an infinite deviation. Of a
    picture among the `inputs`, what the network adds to it is its own.
    Shapes: values and inputs `[n, ...]`; the deviation broadcasts to one sample with a batch axis.
    """
    if head.is_scores:
        return head
    spread = spread_of(head, values, mean_of(values))
    chosen = varying_rows(head, values, spread)
    rare = rare_rows(head, values, chosen)
    spread = np.where(rare, spread[rare].sum() / max(rare.sum(), 1), spread)
    count = values.size / max(len(spread), 1)
    with np.errstate(divide="ignore"):
        found = np.where(chosen & (spread > 0), np.sqrt(spread / count), np.inf)
    shape = [1] * values.ndim
    if head.axis:
        shape[head.axis] = -1
    added = residual_share(inputs, values, head.axis) if head.kind == "values" else None
    return replace(head, deviation=found.reshape(shape), residual=added)
