"""Whether nets hold the floor: on the reference samples, and as far as known on unseen ones.

The order in which filters go is chosen on the reference samples, so these flatter the net that is
left. What it loses on others is told by searches that do without a third of the samples each: at
every step they go as far down as the search itself, in an order of their own, and the third that
was left out judges. That is a cross-validation of the whole search, not of its last fit.

Source: Stone 1974 (cross-validation); Ambroise and McLachlan 2002 (what is selected on all samples
before it is cross-validated is too good).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from onnxprune.search.memory import Memory
from onnxprune.search.orders import as_they_are, best_step, corrected
from onnxprune.search.protocols import Foreseen, Measured, Unseeing
from onnxprune.search.task import State

if TYPE_CHECKING:
    from onnxprune.search.nets import Nets


class Floors:
    """Whether the nets of a search hold its floor.

    `broken` holds, of those that break it on unseen samples alone, what they may lose there.
    """

    def __init__(self, nets: Nets) -> None:
        self.broken: dict[Hashable, float] = {}
        self._nets = nets
        self._task = nets.task
        self._foreseen = Memory[Foreseen](3)
        self._apart = Memory[tuple[State, ...]](3)

    @property
    def level(self) -> float:
        """The lowest harmonic mean that the floor allows."""
        unpruned = self._nets.unpruned
        if not self._task.floor or unpruned is None:
            return 0.0
        return self._task.floor.level(self.judged(unpruned))

    @property
    def allowed(self) -> float:
        """The drop of the harmonic mean that the floor allows."""
        assert self._nets.unpruned is not None
        return self.judged(self._nets.unpruned) - self.level

    def judged(self, accuracy: Measured) -> float:
        """Return what the floor looks at: the harmonic mean of the class accuracies.

        With few samples that says little, and where a class of the unpruned net is never right it
        is 0, and no floor under it would break. Then it is that of accuracies that are shrunk.
        """
        return accuracy.shrunk_harmonic if self.shrinks else accuracy.harmonic

    @cached_property
    def shrinks(self) -> bool:
        """Whether the floor looks at class accuracies that are shrunk towards their mean."""
        unpruned = self._nets.unpruned
        if self._task.few or unpruned is None:
            return self._task.few
        return self._task.floor.is_void(unpruned.harmonic)

    def hold_on_references(self, state: State) -> bool:
        """Return whether the floor holds on the reference samples."""
        if not self._task.floor or state.accuracy is None:
            return True
        return self.judged(state.accuracy) >= self.level - 1e-9

    def held(self, state: State) -> State | None:
        """Return a state that holds the floor, with the searches apart beside it, or None.

        It has to hold on the reference samples, and as far as known on others.
        """
        if not self.hold_on_references(state):
            return None
        if not (self._looks_further and state.dead.any()) or state.accuracy is None:
            return state
        state = replace(state, apart=self._beside(state))
        found = self.foreseen(state)
        if found is None:
            return state
        self._nets.evaluations += 1
        bound = found.bound(self._task.floor.confidence)
        if bound <= self.allowed + 1e-9:
            return state
        self.broken[state.net] = bound
        return None

    def foreseen(self, state: State) -> Foreseen | None:
        """Return the drop to expect of unseen samples, None where nobody can foresee it."""
        foresee = self._task.foresee
        if foresee is None:
            return None
        key = state.net, tuple(one.net for one in state.apart)
        return self._foreseen.get(key, lambda: foresee(self._unseeing(state)))

    @property
    def _looks_further(self) -> bool:
        return bool(self._task.floor and self._task.floor.confidence)

    def _unseeing(self, state: State) -> Iterable[Unseeing]:
        """Nets, and the samples that each has not seen."""
        nets, apart = self._nets, self._task.apart
        if not apart or not state.apart:
            assert self._task.on_others is not None
            plain = nets.build(replace(state, corrected=False))
            return self._task.on_others(plain, state.dead, state.corrected)
        states = (replace(one, corrected=state.corrected) for one in state.apart)
        pairs = zip(nets.apart, states, apart, strict=True)
        return ((own.build(one), held.rows) for own, one, held in pairs)

    def _beside(self, state: State) -> tuple[State, ...]:
        """Where the searches apart are when they are as far down as a state."""
        apart = self._nets.apart
        starts = state.apart
        if len(starts) != len(apart):
            starts = tuple(own.start() for own in apart)
        left = self._nets.objective.left(state.dead)
        key = state.net, state.barred, state.halved, tuple(one.net for one in starts)
        down = partial(_down, to=state, left=left)
        return self._apart.get(key, lambda: tuple(map(down, apart, starts)))


def _down(nets: Nets, state: State, *, to: State, left: float) -> State:
    """Take one step down, to where so much is left to save."""
    if to.corrected != state.corrected:
        state = corrected(state) if to.corrected else as_they_are(state, state.limit)
    share = 1 - left / max(nets.objective.left(state.dead), 1e-12)
    if share <= 0:
        return replace(state, size=State.size)
    begun = replace(state, size=share, barred=to.barred, halved=to.halved)
    if (
        nets.task.relevance is not None
    ):  # samples that have chosen an order cannot choose among them
        begun = replace(begun, better=to.took, rests=1)
    found = best_step(nets, begun, share)
    nets.tried.clear()
    return replace(found, size=State.size, barred=(), halved=0)
