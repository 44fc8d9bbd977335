"""Prune convolution filters of a trained CNN on its ONNX graph, guided by relevance.

    result = onnxprune.prune("model.onnx", "reference/", max_drop=0.01)
    onnx.save(result.model, "small.onnx")

What is public is listed here, and imported when it is first used; torch only where it is needed.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from onnxprune.channels import ChannelGroups as ChannelGroups
    from onnxprune.channels import find_groups as find_groups
    from onnxprune.cost import Cost as Cost
    from onnxprune.cost import find_costs as find_costs
    from onnxprune.criteria import Scores as Scores
    from onnxprune.criteria import score as score
    from onnxprune.data import Data as Data
    from onnxprune.data import load_data as load_data
    from onnxprune.errors import OnnxPruneError as OnnxPruneError
    from onnxprune.evaluate import Evaluator as Evaluator
    from onnxprune.graph import Graph as Graph
    from onnxprune.inspection import compare as compare
    from onnxprune.inspection import inspect as inspect
    from onnxprune.metrics import Accuracy as Accuracy
    from onnxprune.plan import Floor as Floor
    from onnxprune.plan import Limits as Limits
    from onnxprune.plan import Plan as Plan
    from onnxprune.plan import Target as Target
    from onnxprune.run import Result as Result
    from onnxprune.run import apply as apply
    from onnxprune.run import prune as prune
    from onnxprune.settings import Settings as Settings

__version__ = "0.1.0"

_MODULES = {
    "channels": ("ChannelGroups", "find_groups"),
    "cost": ("Cost", "find_costs"),
    "criteria": ("Scores", "score"),
    "data": ("Data", "load_data"),
    "errors": ("OnnxPruneError",),
    "evaluate": ("Evaluator",),
    "graph": ("Graph",),
    "inspection": ("compare", "inspect"),
    "metrics": ("Accuracy",),
    "plan": ("Floor", "Limits", "Plan", "Target"),
    "run": ("Result", "apply", "prune"),
    "settings": ("Settings",),
}

__all__ = [
    "Accuracy",
    "ChannelGroups",
    "Cost",
    "Data",
    "Evaluator",
    "Floor",
    "Graph",
    "Limits",
    "OnnxPruneError",
    "Plan",
    "Result",
    "Scores",
    "Settings",
    "Target",
    "apply",
    "compare",
    "find_costs",
    "find_groups",
    "inspect",
    "load_data",
    "prune",
    "score",
]


def __getattr__(name: str) -> typing.Any:
    """Import a public name when it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
