"""An ONNX model as nodes, shapes and known values; reading and writing models.

Imports ops. `Graph` is the way in; `load_model` and `save_model` read and write files.

* `graph`: the view of a model; `nodes`: its nodes, functions inlined, shared vectors apart;
  `opened`: those of the graphs that nodes hold
* `facts`: shapes and known values; `constant_folding`: weights computed from constants;
  `dependence`: which values follow a size that is only known at run time; `reference`: a few nodes
  run
* `names`: what people call a convolution; `naming`: a file in what is said of its model;
  `metadata`: what a model says of itself
* `soundness`: whether a model is what it says, before it is read; `validity`: whether it is valid
  ONNX; `order`: nodes sorted, so that each stands behind what it reads; `inputs`: the sizes at
  which a model is looked at
* `storage`: models as files; `wire`: reading a file field by field; `large_weights`: weights that
  stay apart from the message; `second_file`: where those of a large model lie; `read_back`: whether
  a file holds what was written; `lending`: a copy without the weights; `sessions`: what a runtime
  reads a model from; `runtime_form`: a model without what onnxruntime stumbles over
* `in_kind`: models as onnx-graphsurgeon and onnx_ir hold them
"""

from onnxprune.graph.copies import copied
from onnxprune.graph.dependence import Variation
from onnxprune.graph.facts import Facts, start_facts
from onnxprune.graph.graph import GRAPH, STEPS, Graph
from onnxprune.graph.in_kind import is_foreign, to_graphsurgeon, to_ir
from onnxprune.graph.inputs import INPUT_SHAPES, InputShapes, Shape, look
from onnxprune.graph.large_weights import (
    AS_THEY_LIE,
    NONE_APART,
    Weight,
    Weights,
    compress,
)
from onnxprune.graph.lending import lent
from onnxprune.graph.metadata import read_metadata, write_metadata
from onnxprune.graph.names import Called, call, nearest
from onnxprune.graph.naming import naming_file
from onnxprune.graph.opened import inner_nodes, open_bodies, open_branches
from onnxprune.graph.read_back import reads_back
from onnxprune.graph.reference import run_nodes
from onnxprune.graph.runtime_form import runnable
from onnxprune.graph.second_file import files_of, sweep_weights
from onnxprune.graph.sessions import has_heavy_kernel, session_source
from onnxprune.graph.storage import (
    ModelSource,
    digest,
    file_size,
    fill,
    fits_message,
    is_large,
    load_model,
    save_model,
    shell,
    typed_shell,
)

__all__ = [
    "AS_THEY_LIE",
    "GRAPH",
    "INPUT_SHAPES",
    "NONE_APART",
    "STEPS",
    "Called",
    "Facts",
    "Graph",
    "InputShapes",
    "ModelSource",
    "Shape",
    "Variation",
    "Weight",
    "Weights",
    "call",
    "compress",
    "copied",
    "digest",
    "file_size",
    "files_of",
    "fill",
    "fits_message",
    "has_heavy_kernel",
    "inner_nodes",
    "is_foreign",
    "is_large",
    "lent",
    "load_model",
    "look",
    "naming_file",
    "nearest",
    "open_bodies",
    "open_branches",
    "read_metadata",
    "reads_back",
    "run_nodes",
    "runnable",
    "save_model",
    "session_source",
    "shell",
    "start_facts",
    "sweep_weights",
    "to_graphsurgeon",
    "to_ir",
    "typed_shell",
    "write_metadata",
]
