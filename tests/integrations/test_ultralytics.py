"""What decides is what the validator of Ultralytics prints for the same file and images."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from onnxprune.converters.torchvision import import_torchvision
from onnxprune.errors import ConversionError, DataError, InvalidValue

pytest.importorskip("ultralytics")
pytestmark = pytest.mark.filterwarnings("ignore")

CELLS, SIDE, NAMES = 4, 16, {0: "red", 1: "blue"}
COLOURS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)


@pytest.fixture(scope="module", autouse=True)
def boxes_can_be_suppressed() -> None:
    """A torchvision that does not fit torch has no `nms`; that of Ultralytics does the same."""
    torchvision = import_torchvision()
    from ultralytics.utils.nms import TorchNMS

    torchvision.ops.nms = TorchNMS.nms


def detector() -> onnx.ModelProto:
    """A network that finds red and blue squares in the cells of a grid, in YOLO's form.

    Its hidden layer mixes the colours into eight filters, and the next one takes them apart.
    """
    rng = np.random.default_rng(0)
    mixed = np.abs(rng.normal(size=(8, 3))).astype(np.float32)
    wanted = np.array([[1, -0.5, -0.5], [-0.5, -0.5, 1]], np.float32)
    apart = (wanted @ np.linalg.pinv(mixed)).astype(np.float32)
    centres = (np.arange(CELLS) + 0.5) * SIDE
    x, y = np.meshgrid(centres, centres)
    sizes = np.full(CELLS**2, SIDE)
    boxes = np.stack([x.ravel(), y.ravel(), sizes, sizes])[None].astype(np.float32)
    held = {"mixed": mixed[:, :, None, None], "apart": apart[:, :, None, None], "boxes": boxes}
    held |= {"shape": np.array([1, 2, CELLS**2]), "low": np.float32(0), "high": np.float32(1)}
    size = CELLS * SIDE
    nodes = [
        helper.make_node("Conv", ["images", "mixed"], ["a"], name="hidden"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "apart"], ["c"], name="last"),
        helper.make_node(
            "AveragePool", ["c"], ["d"], kernel_shape=[SIDE, SIDE], strides=[SIDE, SIDE]
        ),
        helper.make_node("Clip", ["d", "low", "high"], ["e"]),
        helper.make_node("Reshape", ["e", "shape"], ["f"]),
        helper.make_node("Concat", ["boxes", "f"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("images", 1, [1, 3, size, size])],
        [helper.make_tensor_value_info("output0", 1, [1, 6, CELLS**2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"names": NAMES, "task": "detect", "stride": SIDE, "imgsz": [size, size], "batch": 1}
    helper.set_model_props(proto, {name: str(value) for name, value in facts.items()})
    return proto


def write_data(folder: Path) -> None:
    """Images with squares in some cells, some of them faint, and their labels."""
    rng = np.random.default_rng(1)
    for name in ("images", "labels"):
        (folder / "val" / name).mkdir(parents=True)
    for number in range(12):
        image = np.zeros((CELLS * SIDE, CELLS * SIDE, 3), np.uint8)
        lines = []
        for cell in rng.choice(CELLS**2, 5, replace=False):
            row, column = divmod(int(cell), CELLS)
            kind = int(rng.integers(2))
            strength = rng.uniform(0.3, 1)
            place = np.s_[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            image[place] = (strength * COLOURS[kind]).astype(np.uint8)
            lines.append(f"{kind} {(column + 0.5) / CELLS} {(row + 0.5) / CELLS} 0.25 0.25")
        Image.fromarray(image).save(folder / "val" / "images" / f"{number}.png")
        (folder / "val" / "labels" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    (folder / "data.yaml").write_text(
        f"path: {folder}\ntrain: val/images\nval: val/images\nnames: {NAMES}\n"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("grid")
    write_data(place)
    onnx.save(detector(), place / "best.onnx")
    return place


def validated(model: Path, folder: Path) -> npt.NDArray[Any]:
    """What a user sees who validates the file."""
    from ultralytics import YOLO

    quiet = {"plots": False, "verbose": False, "project": str(folder / "runs"), "device": "cpu"}
    return YOLO(model).val(data=str(folder / "data.yaml"), **quiet).box.maps


def test_the_report_says_what_the_validator_does(folder: Path) -> None:
    from onnxprune.integrations import ultralytics

    small = folder / "small.onnx"
    result = ultralytics.prune(
        folder / "best.onnx",
        folder / "data.yaml",
        output=small,
        **{"rate": 0.7, "criterion": "magnitude", "compensate": "none", "round_to": 1},
        **{"control": "one-shot", "threads": 1},
    )
    before, after = (result.report[side]["accuracy"] for side in ("before", "after"))
    assert before["per_class"] == pytest.approx(validated(folder / "best.onnx", folder))
    assert after["per_class"] == pytest.approx(validated(small, folder))
    assert min(before["per_class"]) > 0.9 > min(after["per_class"])
    assert result.report["classes"] == ["red", "blue"]
    assert result.report["after"]["filters"] < result.report["before"]["filters"]


def test_a_floor_holds_and_some_images_are_enough(folder: Path) -> None:
    from onnxprune.integrations import ultralytics

    result = ultralytics.prune(
        *(folder / "best.onnx", folder / "data.yaml"),
        **{"images": 6, "max_drop": 0.02, "aim": "macs", "round_to": 1, "threads": 1},
    )
    before, after = (result.report[side]["accuracy"] for side in ("before", "after"))
    assert result.report["samples"] == 6
    assert after["harmonic"] >= before["harmonic"] - 0.02
    assert result.report["after"]["macs"] < result.report["before"]["macs"]


def test_the_page_can_be_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "integrations.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "ultralytics.prune(" in block]
    monkeypatch.chdir(folder)
    work = 'threads=1, aim="macs", round_to=1, max_drop'
    exec(block.replace("best.pt", "best.onnx").replace("max_drop", work), held := {})
    found = held["result"].report["after"]["accuracy"]["per_class"]
    assert found == pytest.approx(validated(folder / "small.onnx", folder))


def test_checkpoints_are_exported_and_left_alone(tmp_path: Path) -> None:
    from ultralytics import YOLO

    from onnxprune.integrations.ultralytics import exported

    YOLO("yolov8n.yaml").save(tmp_path / "best.pt")
    (tmp_path / "out").mkdir()
    proto = onnx.load(exported(tmp_path / "best.pt", tmp_path / "out", imgsz=64))
    shape = [one.dim_value for one in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, 64, 64]
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "out"}


def test_what_the_validator_does_not_take_is_one_line(folder: Path) -> None:
    from onnxprune.integrations import ultralytics

    with pytest.raises(DataError, match="Ultralytics cannot validate on it"):
        ultralytics.prune(folder / "best.onnx", folder / "nowhere.yaml")
    with pytest.raises(ConversionError, match="no such file"):
        ultralytics.prune(folder / "nowhere.pt", folder / "data.yaml")
    with pytest.raises(InvalidValue, match="metric"):
        ultralytics.prune(folder / "best.onnx", folder / "data.yaml", metric="map")
    other = onnx.load(folder / "best.onnx")
    helper.set_model_props(other, {"task": "classify", "names": str(NAMES), "imgsz": "[64, 64]"})
    onnx.save(other, folder / "other.onnx")
    with pytest.raises(DataError, match="its task is classify; expected one of detect"):
        ultralytics.prune(folder / "other.onnx", folder / "data.yaml")
