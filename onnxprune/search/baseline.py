"""The baseline: whether the unpruned model recognises the samples at all, and what is wrong if not.

A floor is relative to what the unpruned model is right for. If that is no more than guessing, the
samples are not as the model takes them, and a floor holds nothing. Then other readings of the same
samples are tried: presets, the order of the channels, the layout, and the order of the classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from onnxprune.data import Data, SampleSource, load_data, readings
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.evaluation import Answers, Hits
from onnxprune.relevance import find_criterion
from onnxprune.search.assemble import choose_strategy
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

USUAL = 0.5
"""Share of the samples below which other readings are tried, though guessing is beaten clearly."""
TRIED = 200
"""Samples that other readings are tried on."""
GAINED = 0.1
"""Share of the samples that another reading has to gain to be named."""
LEVEL = 0.002
"""The level of a reading's test: some twenty are tried."""
ALIKE = 0.95
"""Share of what the best reading is right for that makes another one worth naming beside it."""
NAMED = 6
"""Classes of another order that a message names."""
TRUST = "--trust-baseline (trust_baseline=True in Python) goes on as it is"


def check_baseline(
    model: ModelProto,
    data: Data | None,
    settings: Settings,
    source: SampleSource | None,
    *,
    decide: bool,
) -> None:
    """Refuse samples on which the unpruned model no more than guesses, unless it is trusted.

    `source` is what they were read from. Where they do not `decide` anything, a warning will do.
    Raises: DataError saying what fits; InvalidModel or DataError where the model cannot be
    evaluated on the samples.
    """
    if data is None or source is None or settings.trust_baseline:
        return
    problem = find_problem(model, data, settings, source)
    if problem is None:
        return
    if decide:
        raise DataError(f"{problem}; {TRUST}")
    logger.warning("%s", problem)


def samples_decide(settings: Settings) -> bool:
    """Whether the samples of a run decide what goes or what weights become, not only figures."""
    fitted = settings.compensate != "none"
    return (
        fitted
        or choose_strategy(settings).measures
        or find_criterion(settings.criterion).needs_samples
    )


def find_problem(
    model: ModelProto, data: Data, settings: Settings, source: SampleSource
) -> str | None:
    """Return what is wrong with the samples, or None where the model recognises them.

    A user's own metric says itself what is right: it is only asked to find something right at all.
    Raises: InvalidModel or DataError where the model cannot be evaluated on the samples.
    """
    judge = make_evaluator(data, settings)
    answers = judge.answers(model)
    if answers is None:
        if judge(model).mean > 0:
            return None
        return f"metric '{settings.metric}': is 0 for every class of the unpruned model"
    hits = answers.hits
    if hits.clear and not answers.is_out_of_order and hits.right >= USUAL * hits.of:
        return None
    fits = _what_fits(model, data, settings, source, answers)
    if hits.clear and not fits:
        return None
    found = f"samples: the unpruned model is {hits}; "
    if fits:
        return f"{found}what fits: {'; '.join(fits)}"
    return (
        f"{found}no other preset, range of values, layout, order of channels or of classes that "
        f"was tried fits, so look whether its first output is class scores, and of these classes"
    )


@dataclass(frozen=True)
class _Fit:
    """A reading that the model recognises better."""

    words: str
    hits: Hits

    def __str__(self) -> str:
        return f"{self.words} ({self.hits.right:,} of {self.hits.of:,})"


def _what_fits(
    model: ModelProto, data: Data, settings: Settings, source: SampleSource, answers: Answers
) -> list[str]:
    """Return, best first, the readings by which the model is right clearly more often."""
    fits = [_Fit(_order(answers, data), answers.reordered)] if answers.is_out_of_order else []
    for words, tried in _others(data, settings, source):
        try:
            found = make_evaluator(tried, settings).answers(model)
        except OnnxPruneError:
            continue  # the model does not take such samples
        assert found is not None
        fits.append(_Fit(words, found.hits))
        if found.is_out_of_order:
            fits.append(_Fit(f"{words} and {_order(found, tried)}", found.reordered))
    now = answers.hits.right / answers.hits.of
    better = [fit for fit in fits if fit.hits.beats(LEVEL) and _share(fit) >= now + GAINED]
    best = sorted(better, key=lambda fit: (-_share(fit), len(fit.words)))
    return [str(fit) for fit in best[:2] if _share(fit) >= ALIKE * _share(best[0])]


def _share(fit: _Fit) -> float:
    return fit.hits.right / fit.hits.of


def _others(data: Data, settings: Settings, source: SampleSource) -> Iterator[tuple[str, Data]]:
    """Yield other readings of some of the samples."""
    of_files = isinstance(source, (str, Path)) and Path(source).is_dir()
    if of_files:
        classes = max(len(np.unique(data.y)), 1) if data.y.ndim == 1 else 1
        some = load_data(
            source,
            shape=data.x.shape[1:],
            preprocess="raw",
            limit=min(settings.per_class or TRIED, -(-TRIED // classes)),
        )
    else:
        some = data.every(-(-len(data) // TRIED))
    for words, x in readings(some.x, of_files=of_files):
        yield words, Data(np.ascontiguousarray(x), some.y, some.classes)


def _order(answers: Answers, data: Data) -> str:
    """Say which class of the model each class of the samples seems to be."""
    moved = {true: given for true, given in answers.order.items() if true != given}
    names = {k: data.classes[k] if k < len(data.classes) else str(k) for k in moved}
    said = ", ".join(f"'{names[k]}' is its class {moved[k]}" for k in list(moved)[:NAMED])
    more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    return f"the classes in another order: {said}{more}"
