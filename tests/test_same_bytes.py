"""The same command gives the same plan and the same bytes, on any number of threads."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.support.small_net import Small

SAMPLE = Path(__file__).parent.parent / "samples" / "fashion_mnist"
QUICK = ("--per-class", "4", "--control", "one-shot", "--rate", "0.3")
FLOOR = ("--max-drop", "0.3")
"""No target, so that time decides which filters go: it is estimated, never measured."""
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def result_of(
    folder: Path, given: tuple[Path, Path], run: tuple[str, ...], threads: int, seed: int, held: str
) -> str:
    """Return the plan and the bytes that a process of its own ends in, as a text.

    `given` are the model and the data, `held` the number of threads that the environment allows
    libraries, empty for all.
    """
    model, data = given
    small, plan = folder / "small.onnx", folder / "plan.json"
    command = [sys.executable, "-m", "onnxprune", "prune", str(model), "--data", str(data), *run]
    command += ["-q", "-o", str(small), "--plan", str(plan), "--threads", str(threads)]
    environment: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if name not in VARIABLES},
        **(dict.fromkeys(VARIABLES, held) if held else {}),
        "PYTHONHASHSEED": str(seed),
    }
    subprocess.run(command, check=True, env=environment)
    return json.dumps([plan.read_text("utf-8"), small.read_bytes().hex()])


def test_threads_and_hash_seeds_leave_plan_and_bytes(tmp_path: Path) -> None:
    given = SAMPLE / "model.onnx", SAMPLE / "reference"
    alone = result_of(tmp_path, given, QUICK, threads=1, seed=1, held="1")
    assert result_of(tmp_path, given, QUICK, threads=4, seed=2, held="4") == alone


def test_threads_and_hash_seeds_leave_what_a_floor_alone_comes_to(
    tmp_path: Path, small: Small
) -> None:
    given = small.path, small.data
    one, two, four = (
        result_of(tmp_path, given, FLOOR, threads=count, seed=count, held=str(count))
        for count in (1, 2, 4)
    )
    assert json.loads(json.loads(one)[0])["removed"]
    assert one == two == four


@pytest.mark.parametrize("kind", ["Conv", "MatMul", "ReduceMean", "GlobalAveragePool", "Softmax"])
def test_onnxruntime_splits_no_sum_over_threads(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 200, 24, 24)).astype(np.float32)
    inputs, attributes, weights = ["x"], {}, []
    if kind in ("Conv", "MatMul"):
        shape = (70, 200, 3, 3) if kind == "Conv" else (24, 300)
        weight = rng.standard_normal(shape).astype(np.float32)
        weights = [helper.make_tensor("w", TensorProto.FLOAT, shape, weight.ravel())]
        inputs = ["x", "w"]
    if kind == "ReduceMean":
        attributes = {"axes": [0, 2, 3]}
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found = set()
    for threads in (1, 2, 3, 8):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.use_deterministic_compute = threads, True
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found.add(session.run(None, {"x": x})[0].tobytes())
    assert len(found) == 1
