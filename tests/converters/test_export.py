"""What an exporter writes is checked, compared with the framework and written, of any size."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.converters import Export, Options, _export, _torch, convert
from onnxprune.errors import ConversionError, InvalidValue
from onnxprune.evaluation import session
from onnxprune.graph import sessions, storage
from tests.support.conversion import EXPORTERS, NETWORKS, refusal


def text_model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {body}')


def test_an_invalid_model_is_refused() -> None:
    model = text_model("g (float[N, 2] x) => (float[N, 3] y) { y = Relu (x) }")
    model.graph.node[0].input[0] = "nowhere"
    exported = Export(model, lambda x: [x], (2,))
    assert "wrote an invalid model" in refusal(_export.finish, exported, "s", Options())


def test_a_model_that_does_not_run_is_refused() -> None:
    model = text_model("g (float[N, 2] x) => (float[N, M] y) { y = Concat <axis = 7> (x) }")
    export = Export(model, lambda batch: [batch], (2,), None)
    assert "does not run on a batch" in refusal(_export.compare, model, export, "s", Options())


def test_empty_outputs_agree() -> None:
    model = text_model("g (float[N, 0] x) => (float[N, 0] y) { y = Relu (x) }")
    export = Export(model, lambda batch: [batch], (0,), None)
    assert _export.compare(model, export, "s", Options()) == 0


MODULE = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3))
"""


def test_a_model_of_over_two_gigabytes_has_its_weights_in_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its place a smaller one, of which no message may be made whole."""
    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 6000)
    monkeypatch.setattr(sessions, "MAPPED", 6000)
    checked = []

    def check(model: onnx.ModelProto, **how: object) -> None:
        checked.append(model.ByteSize())
        real(model, **how)

    real = onnx.checker.check_model
    monkeypatch.setattr(onnx.checker, "check_model", check)
    (tmp_path / "module.py").write_text(MODULE)
    source = f"{tmp_path / 'module.py'}:build"
    path = convert(source, tmp_path / "out" / "m.onnx", input_shape=(3, 8, 8), exporter="classic")
    assert checked and max(checked) < 6000
    names = sorted(one.name for one in path.parent.iterdir())
    assert names[0] == "m.onnx" and names[1].endswith(".data") and len(names) == 2
    assert path.stat().st_size < 6000
    again = session(path, device="cpu").run(None, {"input": np.zeros((2, 3, 8, 8), np.float32)})
    assert again[0].shape == (2, 4, 4, 4)


def test_a_sample_of_absurd_size_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    source = f"{tmp_path / 'module.py'}:build"
    with pytest.raises(InvalidValue, match=r"\(99999, 99999, 9\): has 89,998,200,009 elements"):
        convert(source, tmp_path / "m.onnx", input_shape=(99999, 99999, 9))
    assert not (tmp_path / "m.onnx").exists()


def test_what_an_exporters_error_was_raised_from_is_named() -> None:
    with pytest.raises(ConversionError) as caught, _torch.reported("s", Options()):
        raise ValueError("in pass 3") from TypeError("no such thing\nand more")
    assert "exporter failed: TypeError: no such thing (ValueError); try" in str(caught.value)


def test_inputs_that_an_exporter_left_behind_go() -> None:
    model = text_model(
        "g (float[N, 2] x, float[2] left, float[2] used) => (float[N, 2] y) { y = Add (x, used) }"
    )
    found = _export.without_leftovers(model, ["x", "spare"])
    assert [value.name for value in found.graph.input] == ["x", "used"]
    found = _export.without_leftovers(found, ["x"])
    assert len(found.graph.input) == 2


def test_an_input_that_the_network_has_stays_though_nothing_reads_it() -> None:
    model = text_model("g (float[N, 2] x, float[2] spare) => (float[N, 2] y) { y = Relu (x) }")
    assert len(_export.without_leftovers(model, ["x", "spare"]).graph.input) == 2


def test_a_network_that_does_not_run_on_what_is_made_up_is_refused_in_a_line() -> None:
    def run(batch: object) -> list[object]:
        raise ValueError("Too many leaves\nand more")

    model = text_model("g (float[N, 2] x) => (float[N, 2] y) { y = Relu (x) }")
    export = Export(model, run, (2,), None)  # type: ignore[arg-type]
    message = refusal(_export.compare, model, export, "s", Options())
    assert "s: the network itself does not run on a batch of shape (3, 2): " in message
    assert "Too many leaves; give" in message


@pytest.mark.parametrize(("batch", "sizes"), [(None, ["batch"]), (1, [1])])
def test_a_batch_that_is_fixed_is_fixed_in_the_model(
    batch: int | None, sizes: list[object]
) -> None:
    model = text_model("g (float[unk, 2] x) => (float[unk, 2] y) { y = Relu (x) }")
    found = _export.finish(Export(model, lambda x: [x], (2,), batch), "s", Options())
    for value in (*found.graph.input, *found.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        assert [dim.dim_param or dim.dim_value] == sizes


@pytest.mark.parametrize(
    "body", ["y = TFL_Odd (x)", "c = Cast<to=9> (z) y = If (c) <then_branch = g () => (y) "
             "{ y = TFL_Odd (x) }, else_branch = h () => (y) { y = Relu (x) }>"]
)  # fmt: skip
def test_operators_that_an_exporter_leaves_are_named(body: str) -> None:
    """As tf2onnx does with those of a `.tflite` file that are the file's own."""
    text = f"g (float[N, 2] x) => (float[N, 2] y) <float z = {{1}}> {{ {body} }}"
    export = Export(text_model(text), lambda x: [x], (2,), None, by="tf2onnx")
    expected = "s: tf2onnx left TFL_Odd in the model, which ONNX does not have; build the network"
    assert expected in refusal(_export.finish, export, "s", Options())


@pytest.mark.parametrize(
    ("known", "advice"),
    [({}, "; try another opset"), ({"otherwise": _export.OF_TORCH}, "; try the other exporter or")],
)
def test_the_other_exporter_is_named_where_there_is_one(known: dict[str, str], advice: str) -> None:
    model = text_model("g (float[N, 2] x) => (float[N, 3] y) { y = Relu (x) }")
    export = Export(model, lambda x: [x], (2,), None, **known)  # type: ignore[arg-type]
    assert advice in refusal(_export.finish, export, "s", Options())


def test_what_a_converter_is_busy_with_is_told_to_who_asked() -> None:
    heard: list[str] = []
    _export.busy("importing a framework")
    with _export.busy_told(heard.append):
        _export.busy("exporting it")
    _export.busy("nobody asks any more")
    assert heard == ["exporting it"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_conversion_tells_each_of_its_steps(exporter: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETWORKS, encoding="utf-8")
    source, told = f"{tmp_path}/nets.py:Net", list[str]()
    asked = {"framework": "pytorch", "input_shape": (3, 12, 12), "exporter": exporter}
    convert(source, tmp_path / "a.onnx", on_step=told.append, **asked)  # type: ignore[arg-type]
    assert [line.removeprefix(f"{source}: ") for line in told] == [
        "loading it",
        "importing torch",
        f"exporting it, by torch's {exporter} exporter",
        "checking the model",
        "comparing its outputs with the framework's",
    ]
