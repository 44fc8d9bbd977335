"""What is asked of tf2onnx: here of a stand-in, as TensorFlow is too large for these tests.

`.ci/frameworks tensorflow` runs the real one.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from onnxprune.converters.tensorflow import calls_opened


def node(**said: bool) -> Any:
    return SimpleNamespace(attr={"T": "float", **said})


def test_no_function_stays_closed_until_the_block_ends() -> None:
    """As those of Keras' grouped convolutions, which tf2onnx leaves as calls."""
    inner, call = node(_XlaMustCompile=True), node(_XlaMustCompile=True)
    function = SimpleNamespace(**vars(node(_XlaMustCompile=True, _noinline=True)), node_def=[inner])
    graph = SimpleNamespace(node=[call, node()], library=SimpleNamespace(function=[function]))
    loader = SimpleNamespace(tf_optimize=lambda inputs, outputs, given: (inputs, outputs, given))
    before = loader.tf_optimize
    with pytest.raises(ValueError, match="it ends"), calls_opened(loader):
        assert loader.tf_optimize(["x"], ["y"], graph) == (["x"], ["y"], graph)
        raise ValueError("it ends")
    for one in (inner, call, function):
        assert one.attr == {"T": "float"}
    assert loader.tf_optimize is before
