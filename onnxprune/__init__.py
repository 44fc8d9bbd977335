"""Prune convolution filters of a trained CNN on its ONNX graph, guided by relevance.

    result = onnxprune.prune("model.onnx", "reference/", max_drop=0.01)
    onnx.save(result.model, "small.onnx")

What is public is listed here, and imported when it is first used; torch only where it is needed.
"""

import importlib
import os
import typing

# onnxruntime 1.32 tells its makers what it runs, and keeps a number of the machine in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if typing.TYPE_CHECKING:
    from onnxprune.channels import ChannelGroups as ChannelGroups
    from onnxprune.channels import find_groups as find_groups
    from onnxprune.comparison import compare as compare
    from onnxprune.data import Data as Data
    from onnxprune.data import load_data as load_data
    from onnxprune.engine import use_engine as use_engine
    from onnxprune.errors import OnnxPruneError as OnnxPruneError
    from onnxprune.evaluation import Accuracy as Accuracy
    from onnxprune.evaluation import Evaluator as Evaluator
    from onnxprune.graph import Graph as Graph
    from onnxprune.modules import cut_module as cut_module
    from onnxprune.modules import export_weights as export_weights
    from onnxprune.modules import load_pruned_module as load_pruned_module
    from onnxprune.modules import save_pruned_module as save_pruned_module
    from onnxprune.relevance import Scores as Scores
    from onnxprune.relevance import score as score
    from onnxprune.report import inspect as inspect
    from onnxprune.retraining import prune_module as prune_module
    from onnxprune.run import Interrupted as Interrupted
    from onnxprune.run import Result as Result
    from onnxprune.run import apply as apply
    from onnxprune.run import prune as prune
    from onnxprune.search import Floor as Floor
    from onnxprune.search import Limits as Limits
    from onnxprune.search import Plan as Plan
    from onnxprune.search import Settings as Settings
    from onnxprune.search import Target as Target
    from onnxprune.surgery import Cost as Cost
    from onnxprune.surgery import find_costs as find_costs

__version__ = "0.1.0"

_ROOMS = {
    "channels": ("ChannelGroups", "find_groups"),
    "comparison": ("compare",),
    "data": ("Data", "load_data"),
    "engine": ("use_engine",),
    "errors": ("OnnxPruneError",),
    "evaluation": ("Accuracy", "Evaluator"),
    "graph": ("Graph",),
    "modules": ("cut_module", "export_weights", "load_pruned_module", "save_pruned_module"),
    "relevance": ("Scores", "score"),
    "report": ("inspect",),
    "retraining": ("prune_module",),
    "run": ("Interrupted", "Result", "apply", "prune"),
    "search": ("Floor", "Limits", "Plan", "Settings", "Target"),
    "surgery": ("Cost", "find_costs"),
}

__all__ = [
    "Accuracy",
    "ChannelGroups",
    "Cost",
    "Data",
    "Evaluator",
    "Floor",
    "Graph",
    "Interrupted",
    "Limits",
    "OnnxPruneError",
    "Plan",
    "Result",
    "Scores",
    "Settings",
    "Target",
    "apply",
    "compare",
    "cut_module",
    "export_weights",
    "find_costs",
    "find_groups",
    "inspect",
    "load_data",
    "load_pruned_module",
    "prune",
    "prune_module",
    "save_pruned_module",
    "score",
    "use_engine",
]


def __getattr__(name: str) -> typing.Any:
    """Import a public name when it is first used."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of the module, public ones that were not used yet included."""
    return sorted({*globals(), *__all__})
