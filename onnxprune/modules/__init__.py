"""The way back to torch: modules cut as their models were pruned, to be trained on.

Imports search, surgery, channels, evaluation and graph; torch when it is used.

* `back`: `cut_module`, `export_weights`
* `tracing`: the graph of a module; `layers`: which layers of two graphs belong together
* `cutting`: a module's tensors and what it states; `corrected`: weights that the run corrected
* `building`: the user's module, from a function; `saving`: modules as files
* `restating`: numbers of channels that a module's own code states
* `checking`: whether the module computes what the model does
"""

from onnxprune.modules.back import cut_checked, cut_module, export_weights
from onnxprune.modules.building import build_module
from onnxprune.modules.saving import load_pruned_module, save_pruned_module
from onnxprune.modules.tracing import EXPORTERS, check_module, trace

__all__ = [
    "EXPORTERS",
    "build_module",
    "check_module",
    "cut_checked",
    "cut_module",
    "export_weights",
    "load_pruned_module",
    "save_pruned_module",
    "trace",
]
