"""Networks of several inputs, whose shapes are given by name, become models of as many."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.converters import Options, _inputs, convert, tensorflow
from onnxprune.converters._noise import quiet
from onnxprune.errors import ConversionError, InvalidValue
from tests.support.conversion import refusal, save_script

NETWORKS = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, left, right, gain=None):
        x = torch.relu(self.left(left)) * 2 + torch.relu(self.right(right))
        y = self.head(x).mean((2, 3))
        return y if gain is None else y * gain

class Gap(Pair):
    def forward(self, left, gain=None, *, right):
        return super().forward(left, right, gain)

class Views(Pair):
    def forward(self, *views):
        return super().forward(*views)
"""
SHAPES = {"left": (1, 3, 6, 6), "right": (1, 1, 6, 6)}
FLAGS = ("--input-shape", "left:1,3,6,6", "--input-shape", "right:1,1,6,6")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS, encoding="utf-8")
    return str(path)


def built(file: str, name: str = "Pair") -> torch.nn.Module:
    found: dict[str, Any] = {"__name__": "nets"}
    exec(compile(Path(file).read_text(encoding="utf-8"), file, "exec"), found)
    torch.manual_seed(0)
    network = found[name]().eval()
    assert isinstance(network, torch.nn.Module)
    return network


def axes(path: Path) -> dict[str, list[str | int]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.load(path).graph.input
    }


def values(n: int, side: int = 6) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {
        "left": rng.random((n, 3, side, side), np.float32),
        "right": rng.random((n, 1, side, side), np.float32),
    }


def run(path: Path, feeds: dict[str, Any]) -> npt.NDArray[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(("exporter", "order"), [("dynamo", -1), ("classic", 1)])
def test_each_input_has_its_name_and_shape(
    file: str, tmp_path: Path, exporter: Any, order: int
) -> None:
    """In the order of the network, whatever that of the shapes."""
    given = dict([*SHAPES.items()][::order])
    path = convert(f"{file}:Pair", tmp_path / "m.onnx", input_shapes=given, exporter=exporter)
    assert [*axes(path).items()] == [("left", ["batch", 3, 6, 6]), ("right", ["batch", 1, 6, 6])]
    feeds = values(5)
    with torch.no_grad():
        expected = built(file)(*map(torch.from_numpy, feeds.values()))
    np.testing.assert_allclose(run(path, feeds), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_is_that_of_all_inputs(file: str, tmp_path: Path) -> None:
    asked: Any = {"input_shapes": SHAPES, "dynamic_batch": False, "exporter": "classic"}
    path = convert(f"{file}:Pair", tmp_path / "m.onnx", **asked)
    assert axes(path) == {"left": [1, 3, 6, 6], "right": [1, 1, 6, 6]}


@pytest.mark.parametrize(
    ("name", "more", "exporter"),
    [
        ("Pair", {"gain": (1, 4)}, "classic"),
        ("Gap", {}, "dynamo"),
        ("Views", {}, "dynamo"),
        ("Views", {}, "classic"),
    ],
)
def test_inputs_go_in_by_place_or_by_name(
    name: str, more: dict[str, Any], exporter: Any, file: str, tmp_path: Path
) -> None:
    shapes = {**SHAPES, **more}
    path = convert(f"{file}:{name}", tmp_path / "m.onnx", input_shapes=shapes, exporter=exporter)
    assert axes(path) == {one: ["batch", *shape[1:]] for one, shape in shapes.items()}


def test_the_command_takes_the_option_as_others_do(file: str, tmp_path: Path) -> None:
    """What is converted so is pruned by samples of both inputs."""
    path, small = tmp_path / "m.onnx", tmp_path / "small.onnx"
    asked = [f"{file}:Pair", "-o", str(path), "--exporter", "classic", *FLAGS]
    done = CliRunner().invoke(main, ["convert", *asked])
    assert done.exit_code == 0, done.output
    np.savez(tmp_path / "two.npz", **values(30))
    more = ["--macs", "0.7", "--round-to", "1", "-o", str(small), *FLAGS, "--threads", "1"]
    done = CliRunner().invoke(main, ["prune", str(path), "--data", f"{tmp_path}/two.npz", *more])
    assert done.exit_code == 0, done.output
    assert onnxprune.inspect(small)["macs"] <= 0.7 * onnxprune.inspect(path)["macs"]
    assert [*axes(small)] == ["left", "right"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "Pair: has the inputs left, right; give the shape of each by its name, such as left:"),
        (("--input-shape", "3,6,6"), "such as left:1,3,6,6 and right:1,3,6,6"),
        (FLAGS[:2], "Pair: has the input right, too; give the shape of each"),
        ((*FLAGS, "--input-shape", "lft:1,3"), "has no input 'lft'; it has the inputs left, right"),
        (("--input-shape", "left:3,6,6"), "expected a batch of one in front, such as left:1,3,6,6"),
        ((*FLAGS, "--input-shape", "3,6,6"), "--input-shape: of several inputs each shape has a"),
        (("--input-shape", "3,6", "--input-shape", "3,7"), "of several inputs each shape has a"),
        (("--input-shape", "left:x"), "expected a name and positive sizes"),
        ((*FLAGS, *FLAGS[:2]), "is given 2 times; give each input once"),
        (("--input-shape", "left:1,99999,99999"), "input_shapes 'left' (1, 99999, 99999): has"),
    ],
)
def test_what_is_wrong_with_shapes_is_said(
    options: tuple[str, ...], says: str, file: str, tmp_path: Path
) -> None:
    output = str(tmp_path / "m.onnx")
    done = CliRunner().invoke(main, ["convert", f"{file}:Pair", "-o", output, *options])
    assert says in done.stderr.replace("\n", " ")
    assert done.exit_code and not Path(output).exists()


def test_a_shape_is_given_in_one_way(file: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="without a name, is given beside input_shapes"):
        convert(f"{file}:Pair", tmp_path / "m.onnx", input_shape=(3, 6, 6), input_shapes=SHAPES)


def program(file: str, path: Path, inputs: tuple[Any, ...], sizes: Any) -> str:
    with quiet():
        torch.export.save(torch.export.export(built(file), inputs, dynamic_shapes=sizes), path)
    return str(path)


def test_a_program_has_its_inputs_and_open_sizes(file: str, tmp_path: Path) -> None:
    """Sizes that are open in both views are the same in both, and stay open."""
    batch, side = torch.export.Dim("n"), torch.export.Dim("side", min=4, max=99)
    views = (torch.zeros(2, 3, 6, 6), torch.zeros(2, 1, 6, 6), torch.zeros(4))
    sizes = ({0: batch, 2: side}, {0: batch, 2: side}, {})
    source = program(file, tmp_path / "pair.pt2", views, sizes)
    path = convert(source, tmp_path / "m.onnx")
    (left, right), gain = [*axes(path).values()][:2], axes(path)["gain"]
    assert (left[0], right[0], gain) == ("batch", "batch", [4])
    assert left[2] == right[2] and isinstance(left[2], str)
    (output,) = onnx.load(path).graph.output
    assert output.type.tensor_type.shape.dim[0].dim_param == "batch"
    for n, side in ((2, 6), (5, 9)):
        feeds = {"left": np.ones((n, 3, side, 6)), "right": np.ones((n, 1, side, 6))}
        feeds["gain"] = np.ones(4)
        assert run(path, {k: v.astype(np.float32) for k, v in feeds.items()}).shape == (n, 4)
    more = {"left": (1, 3, 12, 6), "right": (1, 1, 12, 6)}
    assert axes(convert(source, tmp_path / "m.onnx", input_shapes=more)) == axes(path)
    says = refusal(convert, source, tmp_path / "m.onnx", input_shapes={"right": (1, 2, 6, 6)})
    assert "right is given the shape 2,6,6; expected 1,?,6, as the program says" in says


def test_a_program_of_a_dict_of_views_is_called_with_one(file: str, tmp_path: Path) -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = built(file)

        def forward(self, views: Any) -> Any:
            return self.pair(views["left"], views["right"])

    made = {name: torch.rand(2, *shape[1:]) for name, shape in SHAPES.items()}
    with quiet():
        torch.export.save(torch.export.export(Both().eval(), (made,)), tmp_path / "both.pt2")
    path = convert(str(tmp_path / "both.pt2"), tmp_path / "m.onnx")
    assert axes(path) == {"views_left": [2, 3, 6, 6], "views_right": [2, 1, 6, 6]}


def test_torchscript_says_what_it_takes(file: str, tmp_path: Path) -> None:
    source = str(tmp_path / "pair.pt")
    save_script(built(file), [*SHAPES.values()], source)
    assert "has the inputs left, right; give" in refusal(convert, source, tmp_path / "m.onnx")
    path = convert(source, tmp_path / "m.onnx", input_shapes=SHAPES)
    assert [*axes(path)] == ["left", "right"]


# What the converters share


def test_shapes_are_those_of_samples_in_the_order_of_the_network() -> None:
    named = (("b", (1, 2)), ("a", (1, 3, 4)))
    found = _inputs.samples_of(None, named, ["a", "b", "c"], "s")
    assert [*found.items()] == [("a", (3, 4)), ("b", (2,))]
    assert [*_inputs.samples_of(None, named, [], "s")] == ["b", "a"]
    assert _inputs.samples_of((3, 4), (), ["a"], "s") == {"a": (3, 4)}
    assert _inputs.samples_of((3, 4), (), [], "s") == {"input": (3, 4)}
    assert _inputs.samples_of(None, (), ["a"], "s") == {}
    with pytest.raises(ConversionError, match=r"s: has no input 'c'; it has one, a$"):
        _inputs.samples_of(None, (("c", (1, 2)),), ["a"], "s")


def test_what_a_function_takes_is_read_off_it() -> None:
    def some(a: int, b: int, c: int = 3, *, d: int = 4, **more: int) -> None: ...
    def all_(*inputs: int) -> None: ...

    assert [*_inputs.parameters(some)] == ["a", "b", "c", "d"]
    assert _inputs.needed(_inputs.parameters(some)) == ["a", "b"]
    assert _inputs.parameters(all_) == {} == _inputs.parameters(dict)
    assert inspect.signature(some).parameters["more"].kind is inspect.Parameter.VAR_KEYWORD


def test_a_batch_is_that_of_inputs_that_have_one() -> None:
    """Where they stand in another axis, too, as in states of recurrent networks."""
    text = """<ir_version: 9, opset_import: ["": 17]>
    g (float[n, 2] x, float[3, 2] table, float[5, n, 2] state, float scale)
      => (float[n, 2] y) { y = Mul (x, scale) }"""
    graph = onnx.parser.parse_model(text).graph
    graph.input[2].type.tensor_type.shape.dim[0].dim_value = 5
    _inputs.set_batch(graph, "batch")
    made = _inputs.made_up(graph, (2,), (), 7, pixels=False, seed=0)
    assert [made[name].shape for name in ("x", "table", "state", "scale")] == [
        (7, 2), (3, 2), (5, 7, 2), (),
    ]  # fmt: skip
    _inputs.set_batch(graph, 1)
    assert [dim.dim_value for dim in graph.input[2].type.tensor_type.shape.dim] == [5, 1, 2]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_open_sizes_are_those_that_are_tried() -> None:
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[batch,h] x, float[batch,h,w] z) '
    graph = onnx.parser.parse_model(text + "=> (float[batch,h] y) { y = Relu (x) }").graph
    tried = _inputs.made_up(graph, (9,), [(2, 9), (2, 9, 8)], 3, pixels=False, seed=0)
    assert [one.shape for one in tried.values()] == [(3, 9), (3, 9, 8)]
    usual = _inputs.made_up(graph, (9,), (), 3, pixels=False, seed=0)
    assert [one.shape for one in usual.values()] == [(3, 9), (3, 4, 4)]


def test_inputs_of_a_saved_model_have_the_shapes_of_their_names() -> None:
    declared = {
        name: SimpleNamespace(shape=Shape(sizes), dtype="float32")
        for name, sizes in {"image": [None, None, None, 3], "depth": [None, None, None, 1]}.items()
    }
    signature = SimpleNamespace(structured_input_signature=((), declared))
    tf = SimpleNamespace(TensorSpec=lambda sizes, dtype, name: (name, sizes))
    options = Options(input_shapes={"depth": (1, 8, 8, 1)})
    assert tensorflow._specs(tf, signature, "s", options) == [
        ("image", [None, None, None, 3]), ("depth", [None, 8, 8, 1]),
    ]  # fmt: skip
    with pytest.raises(ConversionError, match="s: has the inputs image, depth; give the shape"):
        tensorflow._specs(tf, signature, "s", Options(input_shape=(8, 8, 3)))


class Shape(list[Any]):
    """What TensorFlow says of a shape."""

    @property
    def rank(self) -> int:
        return len(self)
