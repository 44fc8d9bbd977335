"""The operators, each described once; the only room that names them.

Imports errors and arrays. `op` describes an operator, `Node.op` finds the description of a node.
Importing the room registers every family.

* `_op`: what a description is, and the registry; `channels`: how channels cross an operator;
  `pattern`: the notation of named axes
* `node`: a node of a graph; `site`: what an operator is told of it, and what it may edit; `fit`:
  the error of a node that contradicts itself
* `array`: moving elements, alike for torch tensors and labels; `window`: windows that slide over
  space; `_infer`: output shapes by the forward; `_torch`: torch, imported when it is first used
* `unfold`: what the outputs of a layer see; `_winograd`: convolutions in fewer multiplications;
  `_spaces`: memory that each thread keeps
* `names`: operators as users name them; `unknown`: why an operator is not described
* every other file is a family of operators: its docstring says which
"""

import pkgutil
from importlib import import_module

from onnxprune.ops._infer import infer_outputs
from onnxprune.ops._op import OPS, Op, Relevance, op, require_op
from onnxprune.ops._spaces import space
from onnxprune.ops._winograd import quick_bytes
from onnxprune.ops.activate import as_identity
from onnxprune.ops.array import FREE
from onnxprune.ops.channels import (
    ALIGNS,
    FILLS,
    HOLDS,
    MOVES,
    SHAPES,
    Aligns,
    Axes,
    Fills,
    Holds,
    How,
    Moves,
    Pins,
    Shapes,
    Writes,
)
from onnxprune.ops.fit import STUMBLES, Misfit, misfit
from onnxprune.ops.names import check_operators
from onnxprune.ops.node import Border, Held, Node, captures, node_of, subgraphs
from onnxprune.ops.pattern import Axis, Operand, parse
from onnxprune.ops.select import as_gather
from onnxprune.ops.site import FROZEN, CutSite, Edit, PrunedSite, Shape, Site
from onnxprune.ops.unfold import has_patches, patches
from onnxprune.ops.unknown import why_unknown

for _file in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

__all__ = [
    "ALIGNS",
    "FILLS",
    "FREE",
    "FROZEN",
    "HOLDS",
    "MOVES",
    "OPS",
    "SHAPES",
    "STUMBLES",
    "Aligns",
    "Axes",
    "Axis",
    "Border",
    "CutSite",
    "Edit",
    "Fills",
    "Held",
    "Holds",
    "How",
    "Misfit",
    "Moves",
    "Node",
    "Op",
    "Operand",
    "Pins",
    "PrunedSite",
    "Relevance",
    "Shape",
    "Shapes",
    "Site",
    "Writes",
    "as_gather",
    "as_identity",
    "captures",
    "check_operators",
    "has_patches",
    "infer_outputs",
    "misfit",
    "node_of",
    "op",
    "parse",
    "patches",
    "quick_bytes",
    "require_op",
    "space",
    "subgraphs",
    "why_unknown",
]
