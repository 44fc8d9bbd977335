"""Evaluators that run as the settings say."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.data import KINDS, Data
from onnxprune.evaluation import Evaluator, Metric
from onnxprune.search.settings import Settings


def evaluator_of(
    data: Data, settings: Settings, metric: str | Metric, outputs: Sequence[str] = ()
) -> Evaluator:
    """Return what measures models on the samples; `outputs` as `Evaluator` takes them."""
    return Evaluator(
        data,
        metric=metric,
        device=settings.device,
        threads=settings.threads,
        batch_size=settings.batch_size,
        outputs=outputs,
    )


def named_outputs(settings: Settings) -> tuple[str, ...]:
    """Return the outputs that are asked for, without what they hold.

    >>> named_outputs(Settings(outputs=("boxes", "scores=classes", "a=b")))
    ('boxes', 'scores', 'a=b')
    """
    parts = ((text, *text.rpartition("=")) for text in settings.outputs)
    return tuple(name if name and kind in KINDS else text for text, name, _, kind in parts)
