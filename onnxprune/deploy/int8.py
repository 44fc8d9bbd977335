"""Which nodes stay in float: as few as the floor allows, found with few evaluations.

A network loses its accuracy in INT8 in a few places: where tensors of different ranges get one
scale, as boxes in pixels and scores up to 1 do, or where a handful of channels is much larger than
the rest. So the nodes, in the order in which they run, are divided into parts. Each part is
quantised alone and the metric is measured. Those that harm least are quantised together, as many as
the floor allows; the parts that are left are halved, and so on down to single nodes.

The quantiser is onnxruntime's or NNCF's (`onnxprune.deploy.quantiser`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto

from onnxprune.deploy.quantiser import Quantiser
from onnxprune.errors import UnreachableTarget
from onnxprune.evaluation import Accuracy
from onnxprune.search import Floor

PARTS = 16
"""Into how many parts the nodes are divided first."""
MOST = 64
"""How many models are evaluated at most; what is not decided then stays in float."""

Part = tuple[str, ...]
OnTrial = Callable[[int, int, float], object]
"""Hears of each evaluation: how many there were, about how many are to come, and what the floor
looks at. The first, number 0, is of the model in float."""


@dataclass(frozen=True)
class Int8:
    """A model in INT8 whose metric holds.

    `kept` says of each node that stays in float what the metric would be with it in INT8, `nodes`
    are all that could be quantised. `plain` is the accuracy with all of them in INT8, `unquantised`
    with none. `level` is the lowest harmonic mean that the floor allows.
    Units: `kept`, the harmonic mean of the class accuracies that the floor looks at.
    """

    model: ModelProto
    nodes: tuple[str, ...]
    kept: Mapping[str, float]
    accuracy: Accuracy
    plain: Accuracy
    unquantised: Accuracy
    level: float
    evaluations: int
    made_by: str = ""

    @property
    def blocks(self) -> list[tuple[str, int, float]]:
        """The nodes in float, those of a whole module in one: name, how many, and the metric."""
        found: dict[str, list[float]] = {}
        for name, score in self.kept.items():
            found.setdefault(_module(name, self.nodes, self.kept), []).append(score)
        return [(name, len(scores), min(scores)) for name, scores in found.items()]


def quantise(
    quantiser: Quantiser,
    evaluate: Callable[[ModelProto], Accuracy],
    floor: Floor,
    *,
    on_trial: OnTrial | None = None,
) -> Int8:
    """Return the model in INT8, with as few nodes in float as the floor needs.

    The floor is relative to the same model in float, and is measured by `evaluate`.
    Raises: UnreachableTarget where no layer can be quantised without breaking the floor.
    """
    search = _Search(quantiser, evaluate, floor, on_trial)
    nodes = tuple(quantiser.nodes)
    if not search.holds(nodes):
        nodes = search.most(nodes)
    model = search.model(nodes)
    if not _has_weights(model):
        raise search.refusal()
    chosen = frozenset(nodes)
    return Int8(
        model,
        tuple(quantiser.nodes),
        {name: search.harm[name] for name in quantiser.nodes if name not in chosen},
        search.of(nodes).accuracy,
        search.of(quantiser.nodes).accuracy,
        search.unquantised,
        search.level,
        len(search.trials),
        quantiser.made_by,
    )


@dataclass(frozen=True)
class _Trial:
    """What a model with some nodes in INT8 came to: what the floor looks at, and what sorts."""

    accuracy: Accuracy
    score: float

    @property
    def rank(self) -> float:
        return self.score + self.accuracy.soft_harmonic


@dataclass
class _Round:
    """Parts that are tried one by one: how many were, and how many of those break the floor."""

    parts: Sequence[Part]
    tried: int = 0
    broken: int = 0

    def count(self, *, broke: bool) -> None:
        """Take what came of a part, or of several together when all were tried."""
        if self.tried < len(self.parts):
            self.tried, self.broken = self.tried + 1, self.broken + broke

    @property
    def ahead(self) -> int:
        """About how many trials are to come.

        Few of the other parts are supposed to break the floor until many were tried. What breaks it
        is halved down to single nodes, and of two halves one breaks it.
        """
        left, count = len(self.parts) - self.tried, len(self.parts)
        if count == 1 and not self.broken:
            return left
        broken = max(round(self.broken * (1 + left / (self.tried + count))), 1)
        halvings = (max(map(len, self.parts)) - 1).bit_length()
        return left + 1 + halvings * (2 * broken + 1)  # 1 for those that are fine, together


@dataclass
class _Search:
    """The trials so far, by the nodes that were in INT8."""

    quantiser: Quantiser
    evaluate: Callable[[ModelProto], Accuracy]
    floor: Floor
    on_trial: OnTrial | None
    trials: dict[frozenset[str], _Trial] = field(default_factory=dict)
    harm: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._round = _Round([tuple(self.quantiser.nodes)])
        self.unquantised = self.evaluate(self.quantiser.float_model)
        self._shrunk = self.floor.is_void(self.unquantised.harmonic)
        self.level = self.floor.level(self._score(self.unquantised))
        self._tell(self._score(self.unquantised))

    def _score(self, accuracy: Accuracy) -> float:
        """What the floor looks at, as in a pruning run."""
        return accuracy.shrunk_harmonic if self._shrunk else accuracy.harmonic

    def model(self, nodes: Collection[str]) -> ModelProto:
        """Return the model with these nodes in INT8."""
        chosen = frozenset(nodes)
        return self.quantiser([name for name in self.quantiser.nodes if name not in chosen])

    def of(self, nodes: Collection[str]) -> _Trial:
        """Evaluate the model with these nodes in INT8, all others in float."""
        key = frozenset(nodes)
        if key not in self.trials:
            accuracy = self.evaluate(self.model(key))
            trial = self.trials[key] = _Trial(accuracy, self._score(accuracy))
            self._round.count(broke=trial.score < self.level)
            self._tell(trial.score)
        return self.trials[key]

    def _tell(self, score: float) -> None:
        if self.on_trial is not None:
            most = MOST + PARTS.bit_length() - len(self.trials)
            self.on_trial(len(self.trials), max(min(self._round.ahead, most), 0), score)

    def holds(self, nodes: Collection[str]) -> bool:
        """Return whether the floor holds with these nodes in INT8."""
        return not nodes or self.of(nodes).score >= self.level

    def most(self, nodes: Part) -> Part:
        """Return the nodes that can be in INT8 together."""
        taken: Part = ()
        parts = divided(nodes, PARTS)
        while parts := parts[: max(MOST - len(self.trials), 0)]:
            self._round = _Round(parts)
            trials = {part: self.of(taken + part) for part in parts}
            for part, trial in trials.items():
                self.harm |= dict.fromkeys(part, trial.score)
            order = sorted(parts, key=lambda part: -trials[part].rank)
            fine = [part for part in order if self.holds(taken + part)]
            count = self._together(taken, fine)
            taken += _joined(fine[:count])
            left = [part for part in order if part not in fine[:count]]
            parts = [half for part in left if len(part) > 1 for half in divided(part, 2)]
            parts += [part for part in fine[count:] if len(part) == 1 and (parts or count)]
        return taken

    def _together(self, taken: Part, parts: Sequence[Part]) -> int:
        """Return how many of the parts, the first ones, can be in INT8 beside those taken."""
        least, most = 0, len(parts)
        middle = most  # mostly all of them can
        while least < most:
            if self.holds(taken + _joined(parts[:middle])):
                least = middle
            else:
                most = middle - 1
            middle = (least + most + 1) // 2
        return least

    def refusal(self) -> UnreachableTarget:
        """The error where nothing can be quantised."""
        found = f"{self._score(self.unquantised):.3f} in float, floor {self.level:.3f}"
        all_in = self.of(self.quantiser.nodes).score
        return UnreachableTarget(
            f"int8: no layer can be quantised within the floor ({found}, all in INT8 "
            f"{all_in:.3f}); loosen --max-drop, or give more calibration samples"
        )


def divided(nodes: Part, count: int) -> list[Part]:
    """Divide nodes into at most so many parts of like size, in order.

    >>> divided(("a", "b", "c", "d", "e"), 2)
    [('a', 'b'), ('c', 'd', 'e')]
    """
    ends = np.linspace(0, len(nodes), min(count, len(nodes)) + 1).astype(int).tolist()
    return [nodes[start:end] for start, end in itertools.pairwise(ends)]


def _joined(parts: Sequence[Part]) -> Part:
    return tuple(name for part in parts for name in part)


def _has_weights(model: ModelProto) -> bool:
    """Whether a model has weights in INT8."""
    integers = (TensorProto.INT8, TensorProto.UINT8)
    return any(t.data_type in integers and len(t.dims) > 1 for t in model.graph.initializer)


def _module(name: str, nodes: Collection[str], kept: Collection[str]) -> str:
    """The largest module of a node that stays in float as a whole, else the node."""
    parts = name.split("/")
    for length in range(1, len(parts)):
        prefix = "/".join(parts[:length])
        if prefix and all(one in kept for one in nodes if one.startswith(f"{prefix}/")):
            return prefix
    return name
