"""Converted networks compute what the framework computes, judged by onnxruntime."""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch

from onnxprune.converters import CONVERTERS, Export, Options, convert, find_converter
from onnxprune.converters._noise import quiet
from onnxprune.converters._torch import tensors
from onnxprune.converters.torchvision import import_torchvision
from onnxprune.errors import NOTICE, MissingPackage, OutputError
from tests.support.conversion import EXPORTERS, NETWORKS, batch_of, kinds, pytorch, refusal, run


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "my_networks.py"
    path.write_text(NETWORKS, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["Net", "make", "instance"])
def test_a_file_names_a_network(
    source: str, name: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    path = pytorch(f"{source}:{name}", tmp_path / "new" / "net.onnx", exporter=exporter)
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    for n in (1, 5):
        assert run(path, batch_of(n, 3, 12, 12))[0].shape == (n, 4)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_outputs_are_those_of_the_network(
    source: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    state = {name: torch.rand_like(t.float()) for name, t in _net(source).state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    path = pytorch(
        f"{source}:Net",
        tmp_path / "net.onnx",
        exporter=exporter,
        weights=str(tmp_path / "weights.pth"),
    )
    network = _net(source)
    network.load_state_dict(state)
    batch = batch_of(4, 3, 12, 12)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(run(path, batch)[0], expected, rtol=1e-4, atol=1e-5)


def _net(source: str) -> torch.nn.Module:
    names: dict[str, Any] = {"__name__": "my_networks"}
    exec(compile(Path(source).read_text(encoding="utf-8"), source, "exec"), names)
    network = names["Net"]()
    assert isinstance(network, torch.nn.Module)
    return network


def test_a_module_names_a_network(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.path)
    path = pytorch("my_networks:make", tmp_path / "net.onnx", exporter="classic")
    monkeypatch.delitem(sys.modules, "my_networks")
    assert run(path, batch_of(2, 3, 12, 12))[0].shape == (2, 4)
    assert sys.path == before


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_batch_normalisation_folds_unless_kept(
    source: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    folded = pytorch(f"{source}:Net", tmp_path / "folded.onnx", exporter=exporter)
    kept = pytorch(f"{source}:Net", tmp_path / "kept.onnx", exporter=exporter, keep_batchnorm=True)
    assert "BatchNormalization" not in kinds(folded)
    assert "BatchNormalization" in kinds(kept)
    batch = batch_of(2, 3, 12, 12)
    np.testing.assert_allclose(run(folded, batch)[0], run(kept, batch)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("exporter", "opset"), [("classic", 11), ("dynamo", 18), ("dynamo", 25)])
def test_the_opset_is_the_one_asked_for(
    source: str, exporter: Literal["dynamo", "classic"], opset: int, tmp_path: Path
) -> None:
    model = onnx.load(
        pytorch(f"{source}:Net", tmp_path / "net.onnx", exporter=exporter, opset=opset)
    )
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    assert needed <= model.ir_version <= max(needed, 10)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_fixed_batch_holds_one_sample(
    source: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    path = pytorch(f"{source}:Net", tmp_path / "net.onnx", exporter=exporter, dynamic_batch=False)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_outputs_are_called_by_their_keys(
    source: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    path = pytorch(f"{source}:Heads", tmp_path / "net.onnx", exporter=exporter)
    assert [value.name for value in onnx.load(path).graph.output] == ["first", "rest"]
    assert [array.shape for array in run(path, batch_of(2, 3, 12, 12))] == [(2, 8, 12, 12), (2, 4)]


def test_the_seed_draws_the_weights(source: str, tmp_path: Path) -> None:
    torch.manual_seed(11)
    files = [
        pytorch(f"{source}:make", tmp_path / f"{i}.onnx", exporter="classic", seed=seed)
        for i, seed in enumerate((1, 1, 2))
    ]
    drawn = torch.rand(1)
    torch.manual_seed(11)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same
    assert one != other
    assert torch.equal(drawn, torch.rand(1))  # and leave the caller's alone


def save_program(source: str, path: Path, *, dynamic: bool) -> str:
    batch = torch.export.Dim("samples")
    program = torch.export.export(
        _net(source).eval(),
        (torch.rand(2, 3, 12, 12),),
        dynamic_shapes=({0: batch},) if dynamic else None,
    )
    with quiet():
        torch.export.save(program, path)
    return str(path)


def test_a_saved_program_is_a_source(source: str, tmp_path: Path) -> None:
    program = save_program(source, tmp_path / "net.pt2", dynamic=True)
    path = convert(program, tmp_path / "net.onnx", framework="pytorch")
    model = onnx.load(path)
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert run(path, batch_of(3, 3, 12, 12))[0].shape == (3, 4)


def test_a_saved_program_of_fixed_batch_stays_fixed(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = save_program(source, tmp_path / "net.pt2", dynamic=False)
    caplog.set_level(NOTICE, "onnxprune.converters")
    path = convert(program, tmp_path / "net.onnx")
    assert "its batch is fixed to 2, and stays so" in caplog.text
    assert run(path, batch_of(2, 3, 12, 12))[0].shape == (2, 4)


def test_a_saved_program_refuses_what_it_cannot_do(source: str, tmp_path: Path) -> None:
    program = save_program(source, tmp_path / "net.pt2", dynamic=True)
    output = tmp_path / "net.onnx"
    assert "dynamo" in refusal(pytorch, program, output, exporter="classic")
    assert "its own weights" in refusal(pytorch, program, output, weights="w.pth")
    assert "no such file" in refusal(pytorch, str(tmp_path / "missing.pt2"), output)
    (tmp_path / "junk.pt2").write_bytes(b"junk")
    assert "torch.export.load" in refusal(pytorch, str(tmp_path / "junk.pt2"), output)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}", "expected package.module:function"),
        ("{file}:", "expected package.module:function"),
        ("missing.py:Net", "missing.py:Net: no such file"),
        ("{file}:Nat", "has no 'Nat'; expected package.module:function"),
        ("{file}:number", "found int, expected a torch.nn.Module"),
        ("{file}:fail", "calling it without arguments failed: ValueError: no data"),
        ("no.such.module:Net", "no module 'no.such.module' is installed"),
    ],
)
def test_a_source_that_is_no_network_is_refused(
    source: str, name: str, message: str, tmp_path: Path
) -> None:
    assert message in refusal(pytorch, name.format(file=source), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_the_shape_of_a_sample_is_needed_and_checked(source: str, tmp_path: Path) -> None:
    def of(shape: Any) -> str:
        return refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", input_shape=shape)

    assert "shape of one sample" in of(None)
    message = of((4, 12, 12))
    assert "does not run on a batch of shape (2, 4, 12, 12)" in message
    assert message.endswith("without the batch axis, or, if it is that, mend the network")
    for wrong in ((3, 0, 12), (3, -1, 12), (3, 12.0), (True, 12), (), "3,12,12", 12, {3: 12}):
        assert "expected positive sizes" in of(wrong)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"opset": 3}, "opset 3: expected a whole number, 7 or more"),
        ({"opset": "17"}, "opset '17': is a string"),
        ({"seed": -1}, "seed -1: expected"),
        ({"keep_batchnorm": "no"}, "keep_batchnorm 'no': is a string"),
        ({"dynamic_batch": 0}, "dynamic_batch 0: is an integer"),
        ({"weights": 3}, "weights 3: is an integer"),
    ],
)
def test_wrong_options_are_refused(
    more: dict[str, Any], says: str, source: str, tmp_path: Path
) -> None:
    assert says in refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", **more)


def test_unknown_names_are_refused(source: str, tmp_path: Path) -> None:
    output = tmp_path / "net.onnx"
    assert "framework 'pytorhc': unknown; expected one of pytorch" in refusal(
        convert, source, output, framework="pytorhc"
    )
    assert "exporter 'x': unknown; expected one of dynamo, classic" in refusal(
        pytorch, f"{source}:Net", output, exporter="x"
    )


def test_an_opset_that_the_exporter_does_not_write_is_refused(source: str, tmp_path: Path) -> None:
    message = refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", opset=13)
    assert "wrote opset 18, expected 13" in message
    message = refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", opset=99, exporter="classic")
    assert "the classic exporter failed" in message


def test_weights_that_do_not_fit_are_refused(source: str, tmp_path: Path) -> None:
    def of(weights: Path) -> str:
        return refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", weights=str(weights))

    assert "no such file" in of(tmp_path / "missing.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    assert "weights_only=True" in of(tmp_path / "junk.pth")
    torch.save([1], tmp_path / "list.pth")
    assert "found list, expected a state dict" in of(tmp_path / "list.pth")
    torch.save({"x": torch.ones(1)}, tmp_path / "other.pth")
    assert "weights of another network" in of(tmp_path / "other.pth")


def test_a_batch_baked_into_the_model_is_noticed(source: str, tmp_path: Path) -> None:
    output = tmp_path / "net.onnx"
    output.write_bytes(b"older")
    message = refusal(pytorch, f"{source}:Baked", output, exporter="classic")
    assert "has shape (3, 4), expected (1, 4)" in message
    assert output.read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "my_networks.py",
        "net.onnx",
    ]


def test_a_model_that_computes_something_else_is_refused(source: str, tmp_path: Path) -> None:
    message = refusal(pytorch, f"{source}:NotANumber", tmp_path / "net.onnx", exporter="classic")
    assert "differs from the framework's by nan" in message


def test_chatter_goes_to_the_log(
    source: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "onnxprune.converters")
    for exporter in EXPORTERS:
        pytorch(f"{source}:Chatty", tmp_path / "net.onnx", exporter=exporter)
    refusal(pytorch, f"{source}:Net", tmp_path / "net.onnx", opset=13)  # warns a lot
    assert capfd.readouterr() == ("", "")
    assert "a print" in caplog.text
    assert "UserWarning: a warning" in caplog.text
    assert "within" in caplog.text


def test_missing_packages_are_named(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"onnxprune\[torch\].*or use the classic exporter"):
        pytorch(f"{source}:Net", tmp_path / "net.onnx")
    import_torchvision.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingPackage, match=r"pip install 'onnxprune\[torchvision\]'"):
        convert("resnet18", tmp_path / "net.onnx", framework="torchvision")


def test_onnxruntime_judges_what_is_exported(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"needs onnxruntime"):
        pytorch(f"{source}:Net", tmp_path / "net.onnx", exporter="classic")
    assert not (tmp_path / "net.onnx").exists()


def test_a_converter_of_ones_own_is_checked_like_the_others(tmp_path: Path) -> None:
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) {y = Neg(x)}'

    def export(source: str, options: Options) -> Export:
        return Export(
            onnx.parser.parse_model(text), lambda x: [-x if source == "right" else x], (2,)
        )

    path = convert("right", tmp_path / "net.onnx", framework=export)
    assert kinds(path) == ["Neg"]
    assert "differs from the framework's" in refusal(
        convert, "wrong", tmp_path / "wrong.onnx", framework=export
    )
    assert find_converter("onnxprune.converters.pytorch:export") is CONVERTERS["pytorch"]


def test_a_folder_that_cannot_be_written_is_reported(source: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        pytorch(f"{source}:Net", Path(source) / "net.onnx", exporter="classic")


def test_tensors_are_found_in_nested_outputs() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    assert [len(t) for t in tensors({"a": one, "b": (two, [three], None, "text")})] == [1, 2, 3]
