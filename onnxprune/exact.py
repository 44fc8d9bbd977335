"""Whether two models compute the same, within a tolerance; if not, the first node that differs.

With a plan the first model is masked by it: what a run pruned by that plan, without corrected
weights, computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.channels import find_groups
from onnxprune.checks import Number
from onnxprune.data import Inputs, SampleSource, by_name
from onnxprune.errors import DataError, InvalidModel
from onnxprune.evaluation import (
    TURNS,
    Feeds,
    Kept,
    Net,
    difference,
    farthest,
    first_difference,
    first_not_finite,
    is_finite,
    made_up,
    nothing_lost,
    running,
)
from onnxprune.graph import STEPS, Graph, ModelSource, load_model, naming_file
from onnxprune.runtimes import is_deployed, running_file
from onnxprune.search import Plan, Settings, merged, open_samples
from onnxprune.surgery import mask

Array = npt.NDArray[Any]

EXACT = 1e-4
"""Share of an output's largest number; single precision rounds at 1e-7, and layers add that up."""
SHARE = Number(
    least=0,
    metavar="X",
    help="The largest difference of an output, relative to its largest number.",
)


def compare_exactly(
    before: ModelSource,
    after: ModelSource,
    data: SampleSource | None = None,
    *,
    plan: Plan | str | Path | None = None,
    tolerance: float = EXACT,
    settings: Settings | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return whether two models give the same outputs: on samples, or without them on noise.

    With a plan `before` is masked by it. `after` may be a file that `deploy` wrote, with samples.
    Of outputs that differ, `problem` says which, how and on what, and from which node on.
    `options` are fields of `Settings`; what they do not name is as in `settings`.
    Units: tolerance, `largest`, shares of the largest number of an output.
    Raises: OnnxPruneError for whatever is wrong with a model, the plan or the samples.
    """
    settings = merged(settings, options)
    tolerance = SHARE("tolerance", tolerance)
    proto = load_model(before)
    with naming_file(before):
        graph = Graph(proto, input_shapes=settings.input_shapes)
    samples = None if data is None else open_samples(graph, data, settings)
    kept: Kept = nothing_lost
    if plan is not None:
        plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        groups = find_groups(graph, allow_inexact=plan.allow_inexact, also=plan.also)
        dead = plan.dead(groups)
        proto, kept = mask(graph, groups, dead), partial(groups.kept, dead=dead)
    other: ModelProto | None
    with ExitStack() as stack:
        if is_deployed(after):
            if samples is None:
                raise DataError("data: is None; expected samples to compare a deployed file on")
            other = None
            file = running_file(Path(str(after)), graph, settings.threads)
            found: Net = stack.enter_context(file)
        else:
            other = load_model(after)
            found = started(other, after, settings)
        pair = _Pair(started(proto, before, settings), found, proto, other, kept, tolerance)
        drawn = _made_up(graph) if samples is None else pair.parts(samples.x, settings)
        return pair.compare(drawn)


def started(model: ModelProto, source: ModelSource, settings: Settings) -> Net:
    """Start a model. Raises: InvalidModel, naming its file, where onnxruntime refuses it."""
    with naming_file(source):
        return running(model, settings.device, settings.threads, exact=True)


def _made_up(graph: Graph) -> Iterator[Inputs]:
    """Inputs of every size and choice that the proof of a pruned model tries."""
    for batch, steps in ((1, (0,)), (3, (0,)), (1, STEPS)):
        for more in steps:
            for turn in range(TURNS):
                feeds = made_up(graph, batch=batch, more=more, turn=turn)
                if feeds is None:
                    break
                yield Inputs({name: x[None] for name, x in feeds.items()}, apart=True)


@dataclass
class _Pair:
    """Two nets that run, and where they are known their models."""

    before: Net
    after: Net
    model: ModelProto
    other: ModelProto | None
    kept: Kept
    tolerance: float
    largest: float = 0.0

    def parts(self, x: Any, settings: Settings) -> Iterator[Inputs]:
        """Samples in batches that both take."""
        given = by_name(x, next(iter(self.before.ports)))
        fixed = [net.batch for net in (self.before, self.after) if net.batch]
        size = 1 if given.apart else max(fixed, default=settings.batch_size)
        for start in range(0, len(given), size):
            rows = np.arange(start, start + size)
            yield given[rows % len(given) if fixed else rows[rows < len(given)]]

    def compare(self, parts: Iterator[Inputs]) -> dict[str, Any]:
        """Run both on all parts, or until they differ."""
        runs, refused = 0, ""
        for part in parts:
            try:
                wanted = self._run(self.before, part)
            except (InvalidModel, DataError) as error:
                refused = refused or str(error)
                continue
            runs += 1
            problem = self._problem(part, wanted)
            if problem:
                return self._found(runs, problem)
        if not runs:
            raise InvalidModel(refused or f"{self.before.name}: no inputs can be made for it")
        return self._found(runs, "")

    def _found(self, runs: int, problem: str) -> dict[str, Any]:
        return {
            "equal": not problem,
            "problem": problem,
            "largest": self.largest,
            "tolerance": self.tolerance,
            "runs": runs,
        }

    def _problem(self, part: Inputs, wanted: Mapping[str, Array]) -> str:
        """How the outputs differ, and from which node on; empty where they do not."""
        for name, array in wanted.items():
            if not is_finite(array):
                place = first_not_finite(self.model, self._feeds(self.before, part))
                where = "" if place is None else f"; it begins at {place}"
                raise InvalidModel(
                    f"{self.before.name}: output '{name}' holds NaN or infinity{where}"
                )
        found = self._run(self.after, part)
        if len(found) != len(wanted):
            return f"outputs are {', '.join(wanted)}, and {', '.join(found)}"
        by_place = found.keys() != wanted.keys()
        for (name, array), other in zip(wanted.items(), found.values(), strict=True):
            other = other if by_place else found[name]
            if array.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
                continue
            if problem := difference(other, array, self.tolerance):
                return f"output '{name}' {problem} on {_at(part)}{self._first(part)}"
            scale = max(farthest(array, np.zeros_like(array)), 1e-6)
            self.largest = max(self.largest, farthest(other, array) / scale)
        return ""

    def _first(self, part: Inputs) -> str:
        if self.other is None:
            return ""
        first = first_difference(
            self.model,
            self.other,
            [self._feeds(self.before, part), self._feeds(self.after, part)],
            self.tolerance,
            self.kept,
        )
        return f"; the first node that differs is {first}" if first else ""

    @staticmethod
    def _run(net: Net, part: Inputs) -> dict[str, Array]:
        given = Inputs({n: x[None] for n, x in _Pair._feeds(net, part).items()}, apart=True)
        return net.run(net.bind(given, net.place), net.outputs)

    @staticmethod
    def _feeds(net: Net, part: Inputs) -> Feeds:
        """The values that a net takes, by its names, or by place where it has others."""
        feeds, names = part.feeds, list(net.ports)
        if not set(names) <= feeds.keys():
            if len(names) != len(feeds):
                raise DataError(
                    f"{net.name}: takes {', '.join(names)}, the other model {', '.join(feeds)}; "
                    "expected the same inputs"
                )
            feeds = dict(zip(names, feeds.values(), strict=True))
        return {name: feeds[name].astype(port.dtype) for name, port in net.ports.items()}


def _at(part: Inputs) -> str:
    return ", ".join(f"{name} {list(x.shape)}" for name, x in part.feeds.items())
