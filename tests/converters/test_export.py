"""What an exporter writes is checked, compared with the framework and kept below 2 GiB."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.converters import Export, Options, _export, _torch
from onnxprune.errors import ConversionError
from tests.support.conversion import refusal


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


def test_a_model_of_two_gibibytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_export, "PROTOBUF_LIMIT", 4)
    model = text_model("g (float[1] x) => (float[1] y) { y = Relu (x) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    assert "less than 2 GiB" in refusal(_export.write, model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_an_exporters_error_was_raised_from_is_named() -> None:
    with pytest.raises(ConversionError) as caught, _torch.reported("s", Options()):
        raise ValueError("in pass 3") from TypeError("no such thing\nand more")
    assert "exporter failed: TypeError: no such thing (ValueError); try" in str(caught.value)
