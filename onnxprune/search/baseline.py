"""The baseline: whether the unpruned model recognises the samples at all, and what is wrong if not.

A floor is relative to what the unpruned model is right for. If that is no more than guessing, the
samples are not as the model takes them, and a floor holds nothing. Then other readings of the same
samples are tried: presets, the order of the channels, the layout, and the order of the classes.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from onnxprune.data import PRESETS, Data, Inputs, of_preset, readings
from onnxprune.detection import OVERLAPS
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.evaluation import FIDELITY, Answers, Hits
from onnxprune.graph import Graph, copied
from onnxprune.progress import phase
from onnxprune.search.detectors import box_problem
from onnxprune.search.evaluators import evaluator_of, metric_name
from onnxprune.search.holding import head_of
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.scaling import Scaling
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

USUAL = 0.5
"""Share of the samples below which other readings are tried, though guessing is beaten clearly."""
LOOKED_AT = 64
"""Samples on which a preset that is a guess is held against the others."""
ENOUGH = 0.9
"""Share of these that has to be right for the others not to be tried."""
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


@phase("evaluation")
def check_baseline(
    model: ModelProto,
    data: Data | None,
    settings: Settings,
    *,
    decide: bool,
) -> None:
    """Refuse samples on which the unpruned model no more than guesses, unless it is trusted.

    Where they do not `decide` anything, a warning will do.
    Raises: DataError saying what fits; InvalidModel or DataError where the model cannot be
    evaluated on the samples.
    """
    if data is None:
        return
    trusted = settings.trust_baseline or data.reference is not None
    if trusted and ":" not in metric_name(data, settings):
        return
    problem = find_problem(model, data, settings)
    if problem is None or trusted:
        return
    if decide:
        raise DataError(f"{problem}; {TRUST}")
    logger.warning("%s", problem)


def find_problem(model: ModelProto, data: Data, settings: Settings) -> str | None:
    """Return what is wrong with the samples, or None where the model recognises them.

    A user's own metric says itself what is right: it is only asked to find something right at all.
    Raises: InvalidModel or DataError where the model cannot be evaluated on the samples, or the
    user's metric measures nothing.
    """
    if data.detector is not None and metric_name(data, settings) in OVERLAPS:
        return box_problem(model, data, settings)
    judge = make_evaluator(data, settings)
    answers = judge.answers(model)
    if answers is None:
        measured = judge(model)
        if np.isnan(measured.per_class).all():
            raise DataError(
                f"metric '{settings.metric}': returns only NaN for the unpruned model, so that "
                "nothing is measured; expected a score from 0 to 1 for each class, or one for all"
            )
        if measured.mean > 0:
            return None
        return f"metric '{settings.metric}': is 0 for every class of the unpruned model"
    hits = answers.hits
    if hits.clear and not answers.is_out_of_order and hits.right >= USUAL * hits.of:
        return None
    fits = [] if isinstance(data.x, Inputs) else _what_fits(model, data, settings, answers)
    if hits.clear and not fits:
        return None
    found = f"samples: the unpruned model is {hits}; "
    if _is_embedding(model, data, settings):
        found += (
            f"output '{model.graph.output[0].name}' may be an embedding, which --metric fidelity "
            "judges without labels, or --metric file.py:function; "
        )
    if fits:
        return f"{found}what fits: {'; '.join(fits)}"
    return (
        f"{found}no other preset, range of values, layout, order of channels or of classes that "
        f"was tried fits, so look whether output '{model.graph.output[0].name}' is class scores, "
        f"and of these classes"
    )


def _is_embedding(model: ModelProto, data: Data, settings: Settings) -> bool:
    """Whether the output that labels are held against looks like a vector."""
    name, graph = model.graph.output[0].name, Graph(model, input_shapes=settings.input_shapes)
    some = data.every(-(-len(data) // TRIED))
    values = evaluator_of(some, settings, FIDELITY, [name]).outputs(model)[name]
    return values.dtype.kind == "f" and head_of(graph, name, values).kind == "vector"


def better_preset(model: ModelProto, data: Data, settings: Settings) -> Scaling | None:
    """Return a preset by which the model is right clearly more often than by that of the samples.

    None, too, where nobody can tell: the metric is a user's, or the model does not run.
    """
    if not data.labelled or isinstance(data.x, Inputs):
        return None
    some = data.every(-(-len(data) // LOOKED_AT))
    answers = _answers(model, some, settings)
    if answers is None or answers.hits.right >= ENOUGH * answers.hits.of:
        return None
    presets = {of_preset(name): name for name in PRESETS}
    fits = _fits(model, some, settings, answers, presets)
    if not fits:
        return None
    hits = fits[0].hits
    why = f"by which the model is right for {hits.right} of {hits.of}, not {answers.hits.right}"
    return Scaling(presets[fits[0].words], why)


@dataclass(frozen=True)
class _Fit:
    """A reading that the model recognises better."""

    words: str
    hits: Hits

    @property
    def share(self) -> float:
        """The share of the samples that it is right for."""
        return self.hits.right / self.hits.of

    def __str__(self) -> str:
        return f"{self.words} ({self.hits.right:,} of {self.hits.of:,})"


def _what_fits(model: ModelProto, data: Data, settings: Settings, answers: Answers) -> list[str]:
    """Say, best first, by which readings the model is right clearly more often."""
    best = _fits(model, data, settings, answers)
    return [str(fit) for fit in best[:2] if fit.share >= ALIKE * best[0].share]


def _fits(
    model: ModelProto,
    data: Data,
    settings: Settings,
    answers: Answers,
    wanted: Container[str] | None = None,
) -> list[_Fit]:
    """Return, best first, the readings by which the model is right clearly more often.

    Of all, or as they come of those `wanted`.
    """
    fits = []
    if answers.is_out_of_order and wanted is None:
        fits.append(_Fit(_order(answers, data), answers.reordered))
    some = data.every(-(-len(data) // TRIED))
    for name in [output.name for output in model.graph.output][1:] if wanted is None else []:
        found = _answers(_with_first(model, name), some, settings)
        if found is not None:
            fits.append(
                _Fit(f"output '{name}' in place of '{model.graph.output[0].name}'", found.hits)
            )
    assert not isinstance(some.x, Inputs)
    given = np.asarray(some.x)
    for words, x in readings(given, some.preprocess):
        as_it_is = x.shape == given.shape and np.allclose(x, given, atol=1e-3)
        if as_it_is or (wanted is not None and words not in wanted):
            continue
        tried = replace(some, x=np.ascontiguousarray(x))
        found = _answers(model, tried, settings)
        if found is None:
            continue
        fits.append(_Fit(words, found.hits))
        if found.is_out_of_order and wanted is None:
            fits.append(_Fit(f"{words} and {_order(found, tried)}", found.reordered))
    least = answers.hits.right / answers.hits.of + GAINED
    better = [fit for fit in fits if fit.hits.beats(LEVEL) and fit.share >= least]
    return sorted(better, key=lambda fit: (-fit.share, len(fit.words)))


def _answers(model: ModelProto, data: Data, settings: Settings) -> Answers | None:
    """What a model says of samples, None where it does not take them or says nothing of classes."""
    try:
        return make_evaluator(data, settings).answers(model)
    except OnnxPruneError:
        return None


def _with_first(model: ModelProto, name: str) -> ModelProto:
    """Return the model with the output of that name before the others."""
    other = copied(model)
    outputs = sorted(model.graph.output, key=lambda output: output.name != name)
    del other.graph.output[:]
    other.graph.output.extend(outputs)
    return other


def _order(answers: Answers, data: Data) -> str:
    """Say which class of the model each class of the samples seems to be."""
    moved = {true: given for true, given in answers.order.items() if true != given}
    names = {k: data.classes[k] if k < len(data.classes) else str(k) for k in moved}
    said = ", ".join(f"'{names[k]}' is its class {moved[k]}" for k in list(moved)[:NAMED])
    more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    return f"the classes in another order: {said}{more}"
