"""Outputs have the names that the framework gives them, and the others theirs by number."""

from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch

from onnxprune.converters._names import name_outputs, output_names
from onnxprune.converters._torch import placed
from tests.support.conversion import batch_of, pytorch, run
from tests.support.models import model


class Pair(NamedTuple):
    """What some networks return."""

    boxes: torch.Tensor
    scores: torch.Tensor


T = torch.zeros(1)


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (T, ["output"]),
        ([T, (T,)], ["output", "output_1"]),
        ({"out": T, "aux": T}, ["out", "aux"]),
        (Pair(T, T), ["boxes", "scores"]),
        ({"features": [T, T], "last": T}, ["features.0", "features.1", "last"]),
        ((T, {"aux": T}), ["output", "aux"]),
        ([{"box": T}, {"box": T}], ["0.box", "1.box"]),
        ({3: T}, ["3"]),
    ],
)
def test_the_names_are_the_keys(returned: object, names: list[str]) -> None:
    assert output_names([place for place, _ in placed(returned)]) == names


def named(body: str, *names: str) -> onnx.GraphProto:
    found = model(body)
    name_outputs(found.graph, names)
    onnx.checker.check_model(found, full_check=True)
    return found.graph


def outputs(graph: onnx.GraphProto) -> list[str]:
    return [value.name for value in graph.output]


TWO = "g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x) y = Neg(a) z = Abs(y) }"


def test_every_reader_follows() -> None:
    graph = named(TWO, "low", "high")
    assert outputs(graph) == ["low", "high"]
    assert [[*node.input, *node.output] for node in graph.node[1:]] == [
        ["a", "low"],
        ["low", "high"],
    ]


def test_a_tensor_inside_makes_way() -> None:
    graph = named(TWO, "a", "y")
    assert outputs(graph) == ["a", "y"]
    assert graph.node[0].output[0] == graph.node[1].input[0] == "a_1"


def test_names_may_change_places() -> None:
    assert outputs(named(TWO, "z", "y")) == ["z", "y"]


@pytest.mark.parametrize("names", [("same", "same"), ("one",), ()])
def test_names_that_are_none_leave_what_there_is(names: tuple[str, ...]) -> None:
    assert outputs(named(TWO, *names)) == ["y", "z"]


def test_an_input_keeps_its_name() -> None:
    assert outputs(named(TWO, "x", "high")) == ["y", "high"]


def test_branches_read_the_new_name() -> None:
    graph = named(
        """g (float[N] x, bool c) => (float[N] y, float[N] z) {
            y = Relu(x)
            z = If (c) <
                then_branch = t () => (float[N] high) { high = Neg(y) },
                else_branch = e () => (float[N] q) { q = Abs(y) }
            >
        }""",
        "low",
        "high",
    )
    assert outputs(graph) == ["low", "high"]
    then, other = (attribute.g for attribute in graph.node[1].attribute)
    assert then.node[0].input[0] == other.node[0].input[0] == "low"
    assert then.output[0].name == then.node[0].output[0] == "high_1"


PROGRAM = """
import torch

class Heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = torch.nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = torch.relu(self.relu(x))
        return {"relu": x.mean((2, 3)), "conv2d": [x.amax((2, 3)), x.amin((2, 3))]}
"""


def test_a_program_keeps_its_keys(tmp_path: Path) -> None:
    space: dict[str, type[torch.nn.Module]] = {}
    exec(PROGRAM, space)
    batch = {0: torch.export.Dim("n")}
    x = torch.zeros(2, 3, 12, 12)
    program = torch.export.export(space["Heads"]().eval(), (x,), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "heads.pt2")
    path = pytorch(str(tmp_path / "heads.pt2"), tmp_path / "net.onnx")
    assert outputs(onnx.load(path).graph) == ["relu", "conv2d.0", "conv2d.1"]
    assert [found.shape for found in run(path, batch_of(3, 3, 12, 12))] == [(3, 4)] * 3
