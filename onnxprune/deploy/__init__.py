"""A model for other runtimes: converted, verified, timed, written.

Imports evaluation, runtimes and search.

* `deploying`: the files of several runtimes in a folder, and what was measured of each
* `request`: what is asked for
* `trial`: one model on one runtime; `outputs`: whether it gives what onnxruntime gives
"""

from onnxprune.deploy.deploying import deploy, problems
from onnxprune.deploy.outputs import TOLERANCE
from onnxprune.deploy.request import Request
from onnxprune.deploy.trial import DONE, FAILED, MISSING, WRONG, Row, Trial

__all__ = [
    "DONE",
    "FAILED",
    "MISSING",
    "TOLERANCE",
    "WRONG",
    "Request",
    "Row",
    "Trial",
    "deploy",
    "problems",
]
