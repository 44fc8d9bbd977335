"""The folder of an exported model is pruned as a whole: one file changes, the others are kept."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import DataError, InvalidModel, InvalidValue
from onnxprune.integrations.optimum import ORTPruner
from tests.support.models import run
from tests.support.runs import FREE
from tests.support.small_net import Small

OTHERS = {
    "config.json": '{"model_type": "small", "id2label": {"0": "a", "1": "b", "2": "c"}}',
    "preprocessor_config.json": '{"image_processor_type": "Small"}',
    "nested/vocabulary.txt": "a\nb\n",
}
ASKED: dict[str, Any] = {"macs": 0.6, "compensate": "none", "threads": 1}


@pytest.fixture
def folder(tmp_path: Path, small: Small) -> Path:
    place = tmp_path / "exported"
    for name, text in OTHERS.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    onnx.save(small.proto, place / "model.onnx")
    return place


def rows(small: Small, name: str = "x") -> list[dict[str, Any]]:
    return [{name: x, "label": int(y)} for x, y in zip(small.x, small.y, strict=True)]


def test_the_folder_is_whole_and_its_model_pruned(folder: Path, small: Small) -> None:
    pruner = ORTPruner.from_pretrained(folder)
    saved = pruner.prune(folder.parent / "pruned", rows(small), **ASKED)
    found = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert found == {*OTHERS, "model.onnx", "plan.json", "report.json"}
    assert {name: (saved / name).read_text() for name in OTHERS} == OTHERS
    masked = onnxprune.apply(small.proto, saved / "plan.json", masked=True)
    pruned = onnx.load(saved / "model.onnx")
    np.testing.assert_allclose(run(pruned, small.x)[0], run(masked, small.x)[0], atol=1e-5)
    report = json.loads((saved / "report.json").read_text())
    assert report["after"]["macs"] <= 0.6 * report["before"]["macs"]
    assert pruner.result is not None and pruner.result.report == report


def test_rows_count_as_arrays_do(folder: Path, small: Small) -> None:
    """By their labels, too: without them the metric would be another."""
    found = []
    for name, data in (("rows", rows(small)), ("arrays", (small.x, small.y))):
        saved = ORTPruner.from_pretrained(folder).prune(folder.parent / name, data, **ASKED)
        report = json.loads((saved / "report.json").read_text())
        found.append(((saved / "plan.json").read_text(), report["metric"], report["after"]))
    assert found[0][:2] == found[1][:2]
    assert found[0][2]["accuracy"] == found[1][2]["accuracy"]


def test_images_go_through_the_processor_of_the_folder(
    folder: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    class Processor:
        @classmethod
        def from_pretrained(cls, place: Path) -> "Processor":
            asked.append(place)
            return cls()

        def __call__(self, images: Any, return_tensors: str) -> dict[str, Any]:
            assert return_tensors == "np"
            return {"x": images[None] / 2}

    module = SimpleNamespace(AutoImageProcessor=Processor)
    monkeypatch.setitem(sys.modules, "transformers", module)
    images = [{"image": 2 * row["x"], "label": row["label"]} for row in rows(small)]
    pruner = ORTPruner.from_pretrained(folder)
    saved = pruner.prune(folder.parent / "a", images, **ASKED)
    plain = ORTPruner.from_pretrained(folder).prune(folder.parent / "b", rows(small), **ASKED)
    assert (saved / "plan.json").read_text() == (plain / "plan.json").read_text()
    assert asked == [folder]


def test_weights_beside_the_model_do_not_stay_behind(folder: Path, small: Small) -> None:
    proto = onnx.ModelProto.FromString(small.proto.SerializeToString())
    onnx.save(
        proto, folder / "model.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    saved = ORTPruner.from_pretrained(folder).prune(folder.parent / "pruned", rate=0.3, **FREE)
    assert not (saved / "w").exists()
    assert run(onnx.load(saved / "model.onnx"), small.x)[0].shape == (24, 3)


def test_the_page_can_be_followed(
    folder: Path, small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "integrations.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?ORTPruner.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder.parent)
    Path("reference.npz").write_bytes(small.data.read_bytes())
    exec(block.replace("max_drop", "threads=1, max_drop"), {})
    report = json.loads(Path("pruned/report.json").read_text())
    assert capsys.readouterr().out == f"{report['after']['params']}\n"


def test_what_is_read_from_a_folder_is_taken(folder: Path) -> None:
    read = SimpleNamespace(path=folder / "model.onnx")
    assert ORTPruner.from_pretrained(read).model == folder / "model.onnx"
    assert ORTPruner.from_pretrained(str(folder), file_name="model.onnx").folder == folder


def test_what_does_not_fit_is_refused(folder: Path, small: Small) -> None:
    pruner = ORTPruner.from_pretrained(folder)
    with pytest.raises(InvalidValue, match="expected another folder"):
        pruner.prune(folder, rate=0.3, **FREE)
    with pytest.raises(DataError, match="a row has pixels, label; expected x"):
        pruner.prune(folder.parent / "pruned", rows(small, "pixels"), **ASKED)
    for wrong in (folder / "nested", folder / "nowhere", 3):
        with pytest.raises(InvalidModel, match=r"holds no model|no such folder|is int"):
            ORTPruner.from_pretrained(wrong)
    onnx.save(small.proto, folder / "other.onnx")
    with pytest.raises(InvalidModel, match=r"holds model.onnx, other.onnx; expected one"):
        ORTPruner.from_pretrained(folder)


@pytest.mark.filterwarnings("ignore")
def test_optimum_exports_what_is_pruned_and_reads_what_is_written(tmp_path: Path) -> None:
    optimum = pytest.importorskip("optimum.onnxruntime")
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    config = ResNetConfig(**sizes, layer_type="basic", num_labels=3)
    ResNetForImageClassification(config).eval().save_pretrained(tmp_path / "torch")
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "torch")
    kind = optimum.ORTModelForImageClassification
    whole = kind.from_pretrained(tmp_path / "torch", export=True)
    whole.save_pretrained(tmp_path / "exported")
    processor.save_pretrained(tmp_path / "exported")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(12)]
    rows = [{"image": image} for image in images]

    asked = {"macs": 0.7, "compensate": "none", "threads": 1, "min_accuracy": 0}
    pruner = ORTPruner.from_pretrained(kind.from_pretrained(tmp_path / "exported"))
    saved = pruner.prune(tmp_path / "pruned", rows, **asked)

    x = processor(images=images, return_tensors="np")["pixel_values"]
    read = kind.from_pretrained(saved)
    masked = onnxprune.apply(
        *(tmp_path / "exported" / "model.onnx", saved / "plan.json"),
        masked=True,
        input_shapes={"pixel_values": (1, 3, 32, 32)},
    )
    given = read(pixel_values=torch.from_numpy(x)).logits.numpy()
    np.testing.assert_allclose(given, run(masked, x)[0], atol=1e-4)
    assert read.config.num_labels == 3
    assert (saved / "preprocessor_config.json").is_file()
