"""Nets: what one search builds, ranks and measures; what is dear is remembered.

All of it depends on the task and the state asked about, on nothing that happened before.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph, fits_message, write_metadata
from onnxprune.progress import phase
from onnxprune.search.control import SLACK
from onnxprune.search.floors import Floors
from onnxprune.search.latency import Latency, measure_latency
from onnxprune.search.memory import Memory
from onnxprune.search.objective import ESTIMATE, Figure, FilterCount, Objective
from onnxprune.search.orders import soft
from onnxprune.search.picker import Picker
from onnxprune.search.protocols import Damage, Measured
from onnxprune.search.reach import Reach, first
from onnxprune.search.task import State, Task
from onnxprune.surgery import estimate_time, remove_channels


def _held(task: Task) -> int:
    """How many nets are remembered: the two tries of a step and the net before it.

    Of a model of over 2 GB fewer are: cutting a net again costs less than its memory.
    """
    if fits_message(task.graph.model):
        return 3
    return 1 if task.compensate is None else 2


class Nets:
    """The nets of one search. `evaluations` counts the runs over the reference samples.

    `tried` are the nets that were measured since `taken_back` was last asked.
    """

    def __init__(self, task: Task, evaluations: int = 0) -> None:
        self.task = task
        self.evaluations = evaluations
        self.tried: list[State] = []
        self.reach = Reach(task.graph, task.costs, task.target, self.build, task.clock, task.picker)
        self.floors = Floors(self)
        self._models = Memory[ModelProto](_held(task))
        self._glances = Memory[Measured](5)  # the tries at two sizes, and the net before them
        self._sketches = Memory[ModelProto](_held(task))
        self._scores = Memory[FloatArray](1)
        self._damages = Memory[Damage](2)  # a floor tries weights as they are, and corrected
        self._orders = Memory[FloatArray](2)
        self._pickers = Memory[Picker](2)

    @cached_property
    def unpruned(self) -> Measured | None:
        """The accuracy of the model as it came, on the reference samples.

        A search counts this evaluation when it begins, not when it is resumed.
        """
        task = self.task
        return None if task.evaluate is None else task.evaluate(task.graph.model)

    @cached_property
    def objective(self) -> Objective:
        """What the search brings down."""
        task = self.task
        figures: dict[str, Figure] = {}
        for aim in task.aims:
            figures[aim] = self._figure(aim)
        return Objective(figures, self.reach.goals(figures), task.picker.allowed)

    @cached_property
    def latency(self) -> Latency:
        """What the widths of layers cost in time. Measured, unless it was given before."""
        task = self.task
        assert task.profile is not None
        with phase("latency"):
            return measure_latency(task.graph, task.costs, task.picker, task.profile)

    def _figure(self, aim: str) -> Figure:
        costs = self.task.costs
        if aim == "rate":
            return FilterCount(self.task.groups)
        if aim == "size":
            return self.reach.bytes
        if aim == ESTIMATE:
            return estimate_time(self.task.graph, self.task.groups)
        if aim == "latency":
            return self.latency.figure(self.task.graph, self.task.groups)
        return costs.params if aim == "params" else costs.macs

    @cached_property
    def apart(self) -> tuple[Nets, ...]:
        """The nets of the same search without some samples."""
        found = tuple(Nets(one.task) for one in self.task.apart)
        for nets in found:
            nets.objective = self.objective
        return found

    def start(self) -> State:
        """Return the state of the unpruned net, and count its evaluation."""
        task = self.task
        self.evaluations += task.evaluate is not None
        return State(
            np.zeros(len(task.groups), np.bool_),
            task.tuning.step,
            self.unpruned,
            corrected=task.strategy.corrects == "start",
        )

    def build(self, state: State) -> ModelProto:
        """Return the model of a state, with corrected weights where it has them."""

        def make() -> ModelProto:
            with phase("surgery"):
                pruned = remove_channels(self.task.graph, self.task.groups, state.dead)
            if not state.dead.any():
                return pruned
            if state.corrected and self.task.compensate is not None:
                pruned = self.task.compensate(pruned, state.dead)
            write_metadata(pruned, self.task.said)
            return pruned

        return self._models.get(state.net, make)

    def sketch(self, state: State) -> ModelProto:
        """Return the model of a state as a search looks at it: corrections may be rough."""
        task = self.task
        if task.sketch is None or not state.corrected or not state.dead.any():
            return self.build(state)
        correct, plain = task.sketch, replace(state, corrected=False)
        return self._sketches.get(state.net, lambda: correct(self.build(plain), state.dead))

    def measure(self, state: State) -> State:
        """Return the state with its accuracy on the reference samples, if there are any."""
        if self.task.evaluate is None:
            return state
        self.evaluations += 1
        measured = replace(state, accuracy=self.task.evaluate(self.sketch(state)))
        self.tried.append(measured)
        return measured

    def look(self, state: State) -> Measured | None:
        """Return the accuracy of a net on the samples that tries are judged by, if there are any.

        A net is not measured again for it where these are all samples.
        """
        glance = self.task.glance
        if glance is None:
            return state.accuracy
        return self._glances.get(state.net, lambda: glance(self.sketch(state)))

    def judge(self, state: State) -> Measured | None:
        """Return the accuracy on samples that no order has seen, else on all."""
        return self.look(state) if self.task.unseen else state.accuracy

    @cached_property
    def beginning(self) -> Measured | None:
        """As `judge` has it, of the model as it came."""
        glance = self.task.glance if self.task.unseen else None
        return self.unpruned if glance is None else glance(self.task.graph.model)

    @cached_property
    def relevance(self) -> FloatArray:
        """The conventional relevance of the channels of the unpruned net. Shapes: `[channels]`."""
        assert self.task.relevance is not None
        return self.task.relevance(self.task.graph, self.task.groups)

    def attempt(self, state: State) -> State:
        """Return the state with its accuracy on the samples that tries are judged by."""
        if self.task.glance is None:
            return self.measure(state)
        self.evaluations += 1
        tried = replace(state, accuracy=self.look(state))
        self.tried.append(tried)
        return tried

    def settle(self, tried: State) -> State:
        """Return what was tried with its accuracy on all reference samples.

        Where nothing hangs on more it stays at what it was tried with: so does a net that is only
        sketched.
        """
        if self.task.rest is None or self._is_glanced(tried):
            return tried
        return replace(tried, accuracy=self.task.rest(self.sketch(tried), self.look(tried)))

    def _is_glanced(self, state: State) -> bool:
        """Whether a net on the way is only measured on the samples that tries are judged by."""
        task = self.task
        alone = task.glance is not None and task.rest is None
        return alone or (task.sketch is not None and state.corrected)

    def finish(self, state: State) -> State:
        """Return the last state of a search with the accuracy of what is handed out."""
        evaluate = self.task.evaluate
        if evaluate and state.stopped and self._is_glanced(state):
            self.evaluations += 1
            return replace(state, accuracy=evaluate(self.build(state)))
        return state

    def taken_back(self, state: State) -> list[State]:
        """Return the nets that were measured on the way to a state and given up; forget them."""
        tried = {one.net: one for one in self.tried if one.net != state.net}
        self.tried.clear()
        return list(tried.values())

    def foresee(self, state: State) -> float:
        """Return what H corrected weights would reach, by the samples that decide about them."""
        task = self.task
        if task.hold_out is None or task.strategy.corrects == "seen":
            return soft(self, self.judge(self.measure(replace(state, corrected=True))))
        if task.judged is None:
            return soft(self, self.hold_out(state, roughly=True))
        self.evaluations += 1
        pair = task.judged(self.build(replace(state, corrected=False)), state.dead)
        levels = ((soft(self, one), one.shrunk_harmonic) for one in pair)
        ratio: float = max(then / max(now, 1e-12) for now, then in zip(*levels, strict=True))
        return soft(self, self.judge(state)) * ratio

    def hold_out(self, state: State, *, roughly: bool = False) -> Measured | None:
        """Return the accuracy with weights corrected on other samples, if any can be left out."""
        if self.task.hold_out is None:
            return None
        self.evaluations += 1
        plain = self.build(replace(state, corrected=False))
        return self.task.hold_out(plain, state.dead, roughly)

    def picker(self, state: State) -> Picker:
        """Return what chooses the channels of a step, in blocks as wide as the state has them."""
        whole = self.task.picker
        return self._pickers.get(state.halved, lambda: whole.halved(state.halved))

    def view(self, state: State) -> tuple[Graph, ChannelGroups]:
        """Return the net and its channels, which keep their order."""
        if not state.dead.any():
            return self.task.graph, self.task.groups
        net = Graph(self.sketch(state), input_shapes=self.task.graph.input_shapes)
        return net, self.task.groups.without(state.dead).on(net)

    def scores(self, state: State) -> FloatArray:
        """Return the score of each channel of the net; infinity for those that are gone.

        Shapes: `[channels]`.
        """
        return self._scores.get(
            state.net, lambda: self._spread(state, self.task.rank(*self.view(state)))
        )

    def order(
        self, state: State, share: float, layer_share: float, own_squares: float
    ) -> FloatArray:
        """Return the place of each channel in the order of least damage for what it saves.

        The order is that of a step of a share of what could still be saved. The square of a
        channel's own effect counts `own_squares` times. Shapes: `[channels]`.
        """

        def places() -> FloatArray:
            task = self.task
            damage = self._damage(state)
            alive = np.flatnonzero(~state.dead)
            allowance = self.picker(state).allowance(state.dead, layer_share, state.barred)
            worth = self.objective.saved(state.dead)[alive]
            order = damage.order(
                worth,
                allowance.among(alive),
                share * float(worth[task.picker.allowed[alive]].sum()),
                own_squares,
            )
            return self._spread(state, np.argsort(order, kind="stable").astype(np.float64))

        key = *state.net, state.barred, state.halved, share, layer_share, own_squares
        return self._orders.get(key, places)

    def _damage(self, state: State) -> Damage:
        measure = self.task.damage
        assert measure is not None
        return self._damages.get(state.net, lambda: measure(*self.view(state)))

    def _spread(self, state: State, ranking: FloatArray) -> FloatArray:
        """Give the channels that are gone a place at the end."""
        spread = np.full(len(self.task.groups), np.inf)
        spread[~state.dead] = ranking
        return spread

    def step(self, state: State, ranking: FloatArray, size: float) -> State:
        """Remove the lowest-ranked channels, `size` of the filters, never past the target.

        Shapes: ranking `[channels]`. Units: size, share of the filters of which a rate is a share.
        """
        groups = self.task.groups
        worth = groups.filter_count.astype(np.float64)
        whole = float(worth[self.task.picker.counted].sum())
        return self._measured(state, self._next(state, ranking, worth, size * whole * SLACK))

    def bring_down(
        self, state: State, ranking: FloatArray, share: float, layer_share: float | None = None
    ) -> State:
        """Remove the lowest-ranked channels that bring down what the search is for by a share.

        The net is not measured. It never goes past the target. `layer_share` as `Picker.allowance`
        takes it.
        Shapes: ranking `[channels]`. Units: share, of what could still be saved.
        """
        worth = self.objective.saved(state.dead)
        budget = share * self.objective.left(state.dead) * SLACK
        return replace(state, dead=self._next(state, ranking, worth, budget, layer_share))

    def _measured(self, state: State, dead: BoolArray) -> State:
        if (dead == state.dead).all():
            return state
        return self.measure(replace(state, dead=dead))

    def _next(
        self,
        state: State,
        ranking: FloatArray,
        worth: FloatArray,
        budget: float,
        layer_share: float | None = None,
    ) -> BoolArray:
        picker, dead = self.picker(state), state.dead
        order = np.argsort(ranking, kind="stable")
        chosen = picker.pick(order, dead, layer_share=layer_share, barred=state.barred)

        def without(count: int) -> BoolArray:
            return picker.remove(chosen[:count], dead)

        def too_many(count: int) -> bool:
            return float(worth[without(count) & ~dead].sum()) > budget

        most = first(too_many, len(chosen) + 1) - 1
        if (without(most) == dead).all():
            most += 1  # a block wider than the step goes whole
        if layer_share is not None and (without(most) == dead).all():
            return self._next(state, ranking, worth, budget, None)
        if not self.task.goals or not self.reach.near(without(most)):
            return without(most)
        trimmed = self.reach.trim(picker, chosen[:most], dead)
        passed = self.objective.beyond(trimmed)
        if passed <= self.task.tuning.little or not picker.may_halve(dead):
            return trimmed
        narrow = replace(state, halved=state.halved + 1)
        return self._next(narrow, ranking, worth, budget, layer_share)
