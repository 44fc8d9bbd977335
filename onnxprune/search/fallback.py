"""What ranks the filters where relevance cannot cross the network: another criterion, by name."""

from __future__ import annotations

import logging
from dataclasses import replace

from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.errors import OnnxPruneError, UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.progress import phase
from onnxprune.relevance import score
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)


@phase("analysis")
def with_fallback(graph: Graph, data: Data | None, settings: Settings) -> Settings:
    """Return settings with a criterion that can be computed, where the usual one cannot.

    Any other criterion was asked for by its name, so it is kept, and refused when it is computed.
    Raises: UnsupportedOp where no criterion can be computed.
    """
    if data is None or settings.criterion != Settings.criterion:
        return settings
    groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    try:
        score(graph, groups, data.rows(slice(0, 1)), settings.criterion, device="cpu")
    except UnsupportedOp as error:
        if error.instead is None:
            raise
        name, runs = error.instead
        logger.warning("%s; filters go by '%s' in place of relevance", error.what, name)
        compensate = settings.compensate if runs else "none"
        return replace(settings, criterion=name, compensate=compensate)
    except OnnxPruneError:
        pass  # who looks at the samples says it better
    return settings
