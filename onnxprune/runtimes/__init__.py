"""Other runtimes than onnxruntime: models converted, loaded, run and timed on them.

Imports evaluation and graph. Each runtime works in a process of its own, whose crash, noise or
hanging is an error here and nothing more. A model that it has loaded is a `Net`, so evaluators and
clocks take it as they take a model on onnxruntime.

* `registry`: the runtimes, and what the module of one has; `openvino`, ...: one module each
* `child`: what runs in the process; `process`: how it is started, asked and ended
* `opening`: files that were deployed, opened to be compared
* `remote`: a model that is loaded there; `fixed`: a model whose axes all have sizes
"""

from onnxprune.runtimes.fixed import Fixed, fix_axes, fixed_sizes
from onnxprune.runtimes.opening import (
    QUANTISED,
    RECORD,
    is_deployed,
    onnx_behind,
    onnx_of,
    running_file,
    size_of,
)
from onnxprune.runtimes.process import LIMIT, Child, Place
from onnxprune.runtimes.registry import OWN, RUNTIMES, Runtime, find_runtime, runtime_of
from onnxprune.runtimes.remote import Remote, convert, running_on

__all__ = [
    "LIMIT",
    "OWN",
    "QUANTISED",
    "RECORD",
    "RUNTIMES",
    "Child",
    "Fixed",
    "Place",
    "Remote",
    "Runtime",
    "convert",
    "find_runtime",
    "fix_axes",
    "fixed_sizes",
    "is_deployed",
    "onnx_behind",
    "onnx_of",
    "running_file",
    "running_on",
    "runtime_of",
    "size_of",
]
