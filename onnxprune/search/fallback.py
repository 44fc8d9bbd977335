"""What ranks the filters where relevance cannot cross the network: another criterion, by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.errors import OnnxPruneError, UnsupportedOp
from onnxprune.evaluation import session
from onnxprune.graph import Graph
from onnxprune.progress import phase
from onnxprune.relevance import score
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

LEFT = 0.5
"""Share of the harmonic mean that has to be left where nobody asked for the criterion."""


@phase("analysis")
def with_fallback(graph: Graph, data: Data | None, settings: Settings) -> Settings:
    """Return settings with a criterion that can be computed, where the usual one cannot.

    Any other criterion was asked for by its name, so it is kept, and refused when it is computed.
    Raises: UnsupportedOp where no criterion can be computed; InvalidModel where onnxruntime does
    not run the model either, so that another criterion helps nobody.
    """
    if data is None or settings.criterion != Settings.criterion:
        return settings
    groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    try:
        score(graph, groups, data.rows(slice(0, 1)), settings.criterion, device="cpu")
    except UnsupportedOp as error:
        if error.instead is None:
            raise
        session(graph.model, device=settings.device, threads=1)
        name, runs = error.instead
        logger.warning("%s; filters go by '%s' in place of relevance", error.what, name)
        compensate = settings.compensate if runs else "none"
        return replace(settings, criterion=name, compensate=compensate)
    except OnnxPruneError:
        pass  # who looks at the samples says it better
    return settings


def check_fallback(asked: Settings, used: Settings, report: Mapping[str, Any]) -> None:
    """Refuse what another criterion left of a model, where most of its accuracy is gone.

    Whoever asks for a criterion by its name may have that.
    Raises: UnsupportedOp.
    """
    if used.criterion == asked.criterion or report["after"]["accuracy"] is None:
        return
    key = report["decisive"]
    before, after = (report[side]["accuracy"][key] for side in ("before", "after"))
    if after >= LEFT * before:
        return
    raise UnsupportedOp(
        f"criterion '{used.criterion}', in place of relevance, left a harmonic mean of "
        f"{100 * after:.1f} % of {100 * before:.1f} %, so nothing is written; ask for less, bound "
        f"the loss with --max-drop, or have it so with --criterion {used.criterion}"
    )
