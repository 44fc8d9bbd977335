"""Prune to the same filters, multiply-adds or latency by several ways.

A way of onnxprune walks down once; wherever it passes a goal, the step that passes it is taken
again with the goal as target, so that it ends as a run with that target does. A way that ranks once
takes one step to each goal.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import FloatArray
from onnxprune.data import Data
from onnxprune.evaluation import session
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import make_task
from onnxprune.search.controllers import find_controller, one_shot, search
from onnxprune.search.nets import Nets
from onnxprune.search.ranking import make_restore
from onnxprune.search.settings import Settings
from onnxprune.search.target import Target, share_removed
from onnxprune.search.task import State, Task
from onnxprune.surgery import count
from tests.benchmarks.peers import gone_by, importance, share_gone

LEAST = 0.03
"""Where a walk ends at the latest. Unit: share of the multiply-adds."""
SHARED = ("_damages", "_glances")
"""What the nets of all goals remember together: it depends on a net alone, not on the target."""
FINEST = 1 / 128
"""How finely the share that onnxsim is to remove of each layer is looked for."""


@dataclass(frozen=True)
class Goal:
    """What is left: a share of the filters that may go, the multiply-adds or the latency."""

    over: str
    share: float

    @property
    def name(self) -> str:
        return f"{self.over} {self.share:.0%}"


GOALS = tuple(Goal(over, share) for over in ("macs", "latency") for share in (0.5, 0.3))


@dataclass
class Stopwatch:
    """The latency of a net over that of the unpruned one, on one thread, timed in turn.

    The CPU time of the thread counts, because other work of the machine does not stop it.
    Units: patience, seconds.
    """

    unpruned: ModelProto
    shape: tuple[Any, ...]
    patience: float = 0.15

    def share(self, model: ModelProto, patience: float | None = None) -> float:
        """Return the ratio of the medians of five turns or more."""
        runs = (self._whole, self._start(model))
        times: tuple[list[float], list[float]] = ([], [])
        begun, enough = time.thread_time(), patience or self.patience
        while len(times[0]) < 5 or time.thread_time() - begun < enough:
            for run, found in zip(runs, times, strict=True):
                before = time.thread_time()
                run()
                found.append(time.thread_time() - before)
        return statistics.median(times[1]) / statistics.median(times[0])

    @cached_property
    def _whole(self) -> Callable[[], Any]:
        return self._start(self.unpruned)

    def _start(self, model: ModelProto) -> Callable[[], Any]:
        started = session(model, device="cpu", threads=1, exact=False)
        noise = np.random.default_rng(0).random((1, *self.shape), np.float32)
        run = partial(started.run, None, {started.get_inputs()[0].name: noise})
        for _ in range(2):
            run()
        return run


@dataclass(frozen=True)
class Way:
    """One way to prune: settings of onnxprune, another tool's importance, or onnxsim.

    By the importance `even` each layer loses the same share, first what the others can restore.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    importance: str = ""
    onnxsim: str = ""
    compensate: str = "none"

    @property
    def title(self) -> str:
        return f"{self.name}/{self.compensate}"

    def settings(self, common: Settings) -> Settings:
        """Return the settings with what the way changes."""
        return common.changed(**self.changes, compensate=self.compensate)


@dataclass(frozen=True)
class Reached:
    """A net at a goal."""

    goal: Goal
    model: ModelProto
    rate: float | None
    corrected: bool


def walk(
    way: Way,
    graph: Graph,
    data: Data,
    common: Settings,
    watch: Stopwatch,
    table: Any,
    goals: Sequence[Goal] = GOALS,
) -> Iterator[Reached]:
    """Yield the net of every goal that a way reaches.

    `table` is what a latency is made of, or None to measure it.
    """
    settings = way.settings(common)
    task = replace(make_task(graph, data, settings), clock=watch.share)
    if way.onnxsim:
        yield from _onnxsim(way, task, watch, goals)
        return
    if settings.control == "one-shot":
        scores = _scores(way, task, data, settings)
        task = replace(task, rank=lambda *_: scores)
    ends = {goal: Nets(replace(task, target=_target(goal))) for goal in goals}
    nets = Nets(replace(task, target=Target(macs=LEAST)))
    for one in (nets, *ends.values()):
        if table is not None:
            vars(one)["latency"] = table
    if settings.control == "one-shot":
        for goal, end in ends.items():
            yield _reached(goal, end, one_shot(end, nets.start()))
        return
    states = search(nets, find_controller(settings.control))
    before = next(states)
    for end in ends.values():
        vars(end).update({name: vars(nets)[name] for name in ("unpruned", *SHARED)})
    for state in states:
        for goal in [goal for goal, end in ends.items() if _passed(goal, end, state)]:
            yield _reached(goal, ends[goal], _end(ends.pop(goal), settings, before))
        before = state
        if not ends:
            return


def _scores(way: Way, task: Task, data: Data, settings: Settings) -> FloatArray:
    """The one ranking that a way follows. Shapes: -> `[channels]`."""
    if way.importance == "even":
        by_damage = settings.changed(
            control="accuracy-aware", criterion="lrp", compensate="least-squares"
        )
        restore = make_restore(task.graph, task.groups, data, by_damage)
        assert restore is not None
        return restore(np.zeros(len(task.groups), np.bool_), 1.0)
    if way.importance:
        return importance(way.importance, task.graph, task.groups, data, settings)
    return task.rank(task.graph, task.groups)


def _target(goal: Goal) -> Target:
    """Latencies are shares, so that the target of 1 ms is that of the unpruned net."""
    if goal.over == "filters":
        return Target(rate=1 - goal.share)
    return Target(macs=goal.share) if goal.over == "macs" else Target(latency_ms=goal.share)


def _passed(goal: Goal, end: Nets, state: State) -> bool:
    costs = end.task.costs
    macs = costs.of(state.dead).macs / costs.of().macs
    may = goal.over != "latency" or macs <= 1.1 * goal.share  # what takes time is asked last
    return may and end.reach.near(state.dead)


def _end(end: Nets, settings: Settings, state: State) -> State:
    """Go from the last net before a goal to the goal."""
    advance = find_controller(settings.control)
    while not end.reach.near(state.dead):
        state = advance(end, state)
    return state


def _reached(goal: Goal, end: Nets, state: State) -> Reached:
    rate = share_removed(end.task.groups, state.dead)
    return Reached(goal, end.build(state), rate, state.corrected)


def _onnxsim(way: Way, task: Task, watch: Stopwatch, goals: Sequence[Goal]) -> Iterator[Reached]:
    """Yield the nets of the smallest shares that reach a goal."""
    from onnxsim.pruning import apply_structured_pruning

    models: dict[int, ModelProto] = {}

    def pruned(step: int) -> ModelProto:
        if step not in models:
            copy = ModelProto()
            copy.CopyFrom(task.graph.model)
            models[step] = apply_structured_pruning(copy, step * FINEST, way.onnxsim)
        return models[step]

    for goal in goals:
        low, high = 0, int(1 / FINEST) - 1
        if _left(goal, task, pruned(high), watch) > goal.share:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            reached = _left(goal, task, pruned(middle), watch) <= goal.share
            low, high = (low, middle) if reached else (middle, high)
        model, rate = pruned(high), share_gone(task.groups, pruned(high))
        if task.compensate is not None:
            model = task.compensate(model, gone_by(task.graph, task.groups, model))
        yield Reached(goal, model, rate, task.compensate is not None)


def _left(goal: Goal, task: Task, model: ModelProto, watch: Stopwatch) -> float:
    """The share that a model still has of what a goal is about."""
    if goal.over == "filters":
        return 1 - share_gone(task.groups, model)
    if goal.over == "latency":
        return watch.share(model)
    net = Graph(model, input_shapes=task.graph.input_shapes)
    return count(net).macs / task.costs.of().macs
