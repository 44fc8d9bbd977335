"""A model for other runtimes: converted, verified, timed, written.

Imports evaluation, runtimes and search.

* `deploying`: the files of several runtimes in a folder, and what was measured of each
* `request`: what is asked for
* `variants`: the model in float and in INT8, and the unpruned one beside it
* `int8`: which nodes stay in float; `quantiser`: onnxruntime's quantiser, `nncf`: that of NNCF
* `trial`: one model on one runtime; `outputs`: whether it gives what onnxruntime gives
"""

from onnxprune.deploy.deploying import called, deploy, problems
from onnxprune.deploy.outputs import TOLERANCE
from onnxprune.deploy.request import Request
from onnxprune.deploy.trial import DONE, FAILED, MISSING, WRONG, Row, Trial
from onnxprune.deploy.variants import QUANTISERS, remarks

__all__ = [
    "DONE",
    "FAILED",
    "MISSING",
    "QUANTISERS",
    "TOLERANCE",
    "WRONG",
    "Request",
    "Row",
    "Trial",
    "called",
    "deploy",
    "problems",
    "remarks",
]
