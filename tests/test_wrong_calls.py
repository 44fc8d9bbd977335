"""Calls that people get wrong end in one line that says what is wrong and what to do."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import onnxprune
from onnxprune import Data, Evaluator, Graph, Plan
from onnxprune.errors import OnnxPruneError
from tests.support.runs import FREE, samples
from tests.support.small_net import Small


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(OnnxPruneError) as caught:
        call(*arguments, **options)
    (line,) = str(caught.value).splitlines()
    return line


def wrong_calls() -> Iterator[tuple[str, Callable[[Small], Any], str]]:
    """A name, what is called with the small net, and what the line must say."""
    prune, apply, compare = onnxprune.prune, onnxprune.apply, onnxprune.compare
    plan = Plan({"one": (0,)})
    options: dict[str, Any] = {**FREE, "rate": 0.2}
    yield "no model", lambda s: prune(None, **options), "model: is None; expected the path"
    yield "a torch module", lambda s: prune(torch.nn.ReLU(), **options), "torch.onnx.export"
    yield "a model as bytes", lambda s: prune(s.path.read_bytes(), **options), "reads bytes"
    yield "a view as model", lambda s: prune(Graph(s.proto), **options), "give its .model"
    yield "a number as model", lambda s: prune(3, **options), "model: is an integer"
    yield "a list as model", lambda s: prune([s.path], **options), "model: is a list"
    yield "a folder as model", lambda s: prune(s.path.parent, **options), "no such file"
    yield "a missing file", lambda s: prune("nowhere.onnx", **options), "nowhere.onnx: no such file"
    yield "an empty name", lambda s: prune("", **options), "no such file"
    yield "data as model", lambda s: prune(s.data, s.path, rate=0.2), "not an ONNX model"
    yield "a model as data", lambda s: prune(s.path, s.path, rate=0.2), "neither folder nor .npz"
    yield "a number as data", lambda s: prune(s.path, 3, rate=0.2), "cannot read int"
    yield "an array of others", lambda s: prune(s.path, s.y, rate=0.2), "a sample is []"
    yield "a dict of others", lambda s: prune(s.path, {"z": s.x, "y": s.y}), "holds z, y, exp"
    yield "x and y in a list", lambda s: prune(s.path, [s.x, s.y], rate=0.2), "a sample is []"
    yield "no data at all", lambda s: prune(s.path, [], rate=0.2), "no samples"
    yield "a spent generator", lambda s: prune(s.path, iter(()), rate=0.2), "no samples"
    yield "missing data", lambda s: prune(s.path, "nowhere", rate=0.2), "nowhere: no such file"
    yield "labels with a half", lambda s: prune(s.path, (s.x, s.y + 0.5)), "label 0.5, expected"
    yield (
        "labels as text",
        lambda s: prune(s.path, (s.x, s.y.astype(str))),
        "expected class numbers",
    )
    yield "labels as NaN", lambda s: prune(s.path, (s.x, s.y * float("nan"))), "label nan, expected"
    yield "one-hot labels", lambda s: prune(s.path, (s.x, np.eye(3)[s.y])), "one"
    yield "no labels", lambda s: prune(s.path, (s.x, None), metric="top-1"), "needs labels"
    yield "fewer labels", lambda s: prune(s.path, (s.x, s.y[1:])), "one label"
    yield "y before x", lambda s: prune(s.path, (s.y, s.x)), "samples"
    yield "text for images", lambda s: prune(s.path, (s.x.astype(str), s.y)), "expected numbers"
    yield "images of a size", lambda s: prune(s.path, (s.x[:, :, 1:], s.y)), "a sample is [1, 7, 8]"
    yield "the rate third", lambda s: prune(s.path, s.data, 0.5), "positional"
    yield (
        "a run_dir of 3",
        lambda s: prune(s.path, run_dir=3, **options),
        "run_dir 3: is an integer",
    )
    yield (
        "resume as text",
        lambda s: prune(s.path, resume="no", **options),
        "resume 'no': is a string",
    )
    yield "on_state of 3", lambda s: prune(s.path, on_state=3, **options), "on_state: is an integer"
    yield (
        "no pattern",
        lambda s: prune(s.path, exclude=["stem"], **options),
        "exclude 'stem': matches no",
    )
    yield "plan and model", lambda s: apply(plan, s.path), "give a plan.json"
    yield "a dict as plan", lambda s: apply(s.path, {"one": [0]}), "plan: is a dict"
    yield "no plan", lambda s: apply(s.path, None), "plan: is None"
    yield "a missing plan", lambda s: apply(s.path, "no.json"), "no.json: cannot be read"
    yield "masked as text", lambda s: apply(s.path, plan, masked="yes"), "masked 'yes': is a string"
    yield "another model's", lambda s: apply(s.path, Plan({"x": (0,)})), "has no convolution 'x'"
    yield "one model", lambda s: compare(s.path, s.data, s.data), "not an ONNX model"
    yield "no samples", lambda s: compare(s.path, s.path, None), "data: is None"
    yield (
        "loose operators",
        lambda s: onnxprune.inspect(s.path, allow_inexact="reducemean"),
        "as in ['reducemean']",
    )
    yield (
        "a drawing of 3",
        lambda s: onnxprune.inspect(s.path, svg=3),
        "path: is int; expected the path of a file",
    )
    yield (
        "no view",
        lambda s: onnxprune.find_groups(s.path),
        "graph: is a PosixPath; expected a Graph",
    )
    yield "no view of a model", lambda s: onnxprune.find_groups(s.proto), "expected a Graph"
    yield (
        "loose in groups",
        lambda s: onnxprune.find_groups(Graph(s.proto), allow_inexact="r"),
        "as in ['r']",
    )
    yield "a path to view", lambda s: Graph(s.path), "Graph.load reads a file"
    yield (
        "costs of no view",
        lambda s: onnxprune.find_costs(s.proto, None),
        "graph: is a ModelProto",
    )
    yield (
        "costs of no groups",
        lambda s: onnxprune.find_costs(Graph(s.proto), None),
        "groups: is None",
    )
    yield "load nothing", lambda s: Graph.load(None), "model: is None"
    yield "samples in lists", lambda s: Data(s.x.tolist(), s.y, ()), "x is a list"
    yield "float labels", lambda s: Data(s.x, s.y.astype(float), ()), "y is float64"
    yield "classes as text", lambda s: Data(s.x, s.y, "abc"), "classes 'abc': is a string"
    yield (
        "an evaluator of files",
        lambda s: Evaluator(s.data),
        "data: is a PosixPath; expected a Data",
    )
    yield "a metric of 3", lambda s: Evaluator(samples(s), metric=3), "metric 3: is an integer"
    yield "a batch of 0", lambda s: Evaluator(samples(s), batch_size=0), "batch_size 0: expected"
    yield "a device", lambda s: Evaluator(samples(s), device="gpu"), "device 'gpu': unknown"


CALLS = {name: (call, says) for name, call, says in wrong_calls()}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls_are_one_line(name: str, small: Small) -> None:
    call, says = CALLS[name]
    if says == "positional":
        with pytest.raises(TypeError, match=says):
            call(small)
        return
    assert says in refused(call, small)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"device": "gpu"}, "device 'gpu': unknown"),
        ({"batch_size": 0}, "batch_size 0: expected"),
        ({"threads": -1}, "threads -1: expected"),
        ({"criterion": 3}, "criterion 3: is an integer"),
        ({"criterion": "luck"}, "criterion 'luck': unknown"),
        ({"data": "folder"}, "data 'folder': is a string; expected a Data"),
        ({"groups": None}, "groups: is None"),
        ({"graph": None}, "graph: is None"),
    ],
)
def test_wrong_arguments_of_score(more: dict[str, Any], says: str, small: Small) -> None:
    graph = Graph(small.proto)
    given = {"graph": graph, "groups": onnxprune.find_groups(graph), "data": samples(small)}
    assert says in refused(onnxprune.score, **{**given, **more})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"shape": "1,8,8"}, "shape: is a string"),
        ({"shape": 8}, "shape: is an integer"),
        ({"shape": (1, 8.5, 8)}, "shape 8.5: is a float"),
        ({"shape": (0, 8, 8)}, "shape 0: expected"),
        ({"dtype": "floaty"}, "dtype: "),
        ({"preprocess": "luck"}, "preprocess 'luck': unknown"),
        ({"limit": 0}, "limit 0: expected"),
        ({"limit": "3"}, "limit '3': is a string"),
        ({"labelled": "no"}, "labelled 'no': is a string"),
        ({"source": None}, "cannot read NoneType"),
    ],
)
def test_wrong_arguments_of_load_data(more: dict[str, Any], says: str, small: Small) -> None:
    given = {"source": small.data, "shape": (1, 8, 8), **more}
    assert says in refused(onnxprune.load_data, given.pop("source"), **given)
