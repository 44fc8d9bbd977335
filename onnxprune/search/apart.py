"""Searches that do without a fold of the samples, which then can judge what they come to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.compensate import FOLDS, Corrector
from onnxprune.data import Data, part_of
from onnxprune.evaluation import Evaluator
from onnxprune.progress import phase
from onnxprune.search.ranking import make_damage, make_rank, make_relevance, make_restore
from onnxprune.search.settings import Settings
from onnxprune.search.task import Apart, Task

MANY = 1000
"""An order that is chosen on so many samples holds for others as well."""


def with_searches_apart(
    task: Task,
    evaluator: Evaluator | None,
    correct: Corrector | None,
    fitted: Data | None,
    folds: IntArray | None,
    settings: Settings,
) -> Task:
    """Return the task with the searches that a floor asks of unseen samples, if it does.

    Shapes: folds, of the samples that are `fitted`, `[n]`.
    """
    asked = task.floor and task.floor.confidence and task.foresee is not None
    if evaluator is None or folds is None or not asked or len(evaluator.data) >= MANY:
        return task
    whole = _Whole(task, evaluator, correct, fitted, settings, folds)
    numbers = np.unique(folds[: len(evaluator.data)]).tolist()
    return replace(task, apart=tuple(map(whole.without, numbers)))


def folds_of(y: IntArray, unlabelled: int = 0, mirrored: int = 0) -> IntArray:
    """Return the fold of each sample, counted class by class, and of what is fitted beside them.

    So no fold is a class, in whatever order samples come. The last of them all have mirror images,
    which are in the folds of what they mirror.
    Shapes: y `[n]` or maps `[n, H, W]` -> `[n + unlabelled + mirrored]`.

    >>> folds_of(np.array([0, 1, 2, 0, 1, 2, 0]), mirrored=6).tolist()
    [0, 0, 2, 1, 1, 0, 2, 0, 2, 1, 1, 0, 2]
    """
    found = np.arange(len(y) + unlabelled) % FOLDS
    for fold in range(FOLDS):
        found[part_of(y, FOLDS, fold)] = fold
    return np.concatenate([found, found[len(found) - mirrored :]])


@dataclass(frozen=True)
class _Whole:
    """A search of all samples, and what it was made of."""

    task: Task
    evaluator: Evaluator
    correct: Corrector | None
    fitted: Data | None
    settings: Settings
    folds: IntArray

    def without(self, fold: int) -> Apart:
        """The search without a fold. It goes down beside the other one, and has no end."""
        task, data = self.task, self.evaluator.data
        own = self.folds[: len(data)]
        seen, fit = np.flatnonzero(own != fold), np.flatnonzero(self.folds != fold)
        damage = make_damage(task.graph, data, self.settings, seen)
        rank = task.rank
        if damage is None:
            fitted = None if self.fitted is None else self.fitted.rows(fit)
            rank = make_rank(task.graph, data.rows(seen), fitted, self.settings)
        correct = None
        if self.correct is not None:
            correct = phase("compensation")(partial(self.correct, without=fold))
        alone = Task(
            task.graph,
            task.groups,
            rank=rank,
            damage=damage,
            restore=make_restore(task.graph, task.groups, self.fitted, self.settings, fit),
            relevance=task.relevance and make_relevance(task.graph, data, self.settings, seen),
            evaluate=phase("evaluation")(partial(self.evaluator.some, rows=seen)),
            compensate=correct,
            few=task.few,
            limits=task.limits,
            tuning=task.tuning,
            strategy=task.strategy,
            aims=task.aims,
            block=task.block,
        )
        return Apart(alone, np.flatnonzero(own == fold))
