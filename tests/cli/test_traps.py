"""What a new user does wrong ends in one line and no model, never in exit 0 and a destroyed one."""

import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from tests.support.coloured import NAMES, folder, network

QUICK = ("--threads", "1", "--device", "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and its samples, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    onnx.save(network("unit"), "model.onnx")
    folder(tmp_path / "data")
    return tmp_path


def failed(*words: str) -> str:
    """The one line of a command that is refused; it wrote no model."""
    found = CliRunner().invoke(main, [*words, *QUICK])
    assert found.exit_code == 1, found.output
    assert not Path("out.onnx").exists() and not Path("run").exists()
    lines = [line for line in found.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), found.stderr
    return lines[0]


def pruned(data: str, *more: str) -> str:
    return failed(
        "prune", "model.onnx", "-o", "out.onnx", "--data", data, "--run-dir", "run", *more
    )


@pytest.mark.parametrize("ask", [(), ("--max-drop", "0.05"), ("--macs", "0.5")])
@pytest.mark.parametrize("preset", ["raw", "caffe"])
def test_a_wrong_preset(place: Path, preset: str, ask: tuple[str, ...]) -> None:
    line = pruned("data", "--preprocess", preset, *ask)
    assert "what fits: --preprocess unit (36 of 36)" in line


def test_class_folders_in_another_order(place: Path) -> None:
    folder(place / "named", names=NAMES)
    assert "the classes in another order: " in pruned("named")
    assert "the classes in another order: " in failed(
        "compare", "model.onnx", "model.onnx", "--data", "named"
    )
    assert "the classes in another order: " in failed(
        "curve", "model.onnx", "--data", "named", "--test", "named", "-o", "curves"
    )
    assert not list(place.glob("curves/*"))


def test_one_class_folder_only(place: Path) -> None:
    shutil.copytree("data/0_blue", "one/0_blue")
    assert "one class folder only ('0_blue')" in pruned("one")


@pytest.mark.parametrize("parts", [("train", "val"), ("train",)])
def test_the_parts_of_a_data_set(place: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        shutil.copytree("data", f"all/{part}")
    assert "give one of them, as all/train" in pruned("all")


def test_data_for_a_detector(place: Path) -> None:
    shutil.copytree("data/0_blue", "boxes/images")
    (place / "boxes" / "labels").mkdir()
    assert "6 images without a single box (YOLO labels" in pruned("boxes")
    for image in Path("boxes/images").iterdir():
        (place / "boxes" / "labels" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.4 0.4")
    assert "--head" in pruned("boxes")


def test_a_head_of_a_model_that_finds_no_boxes(place: Path) -> None:
    assert "error: head 'ssd': no boxes are judged" in pruned("data", "--head", "ssd")
    assert "head 'ssd': " in failed("compare", *["model.onnx"] * 2, "--data", "data", "--head=ssd")


def test_annotations_without_categories(place: Path) -> None:
    shutil.copytree("data/0_blue", "boxes/images")
    Path("boxes/boxes.json").write_text('{"images": [], "annotations": []}')
    assert "boxes/boxes.json: has no 'categories'" in pruned("boxes")


def test_what_is_right_goes_through(place: Path) -> None:
    words = ("prune", "model.onnx", "-o", "out.onnx", "--data", "data", "--rate", "0.3")
    found = CliRunner().invoke(main, [*words, "--control", "one-shot", *QUICK])
    assert found.exit_code == 0, found.output
    assert "warning: preprocess: 'unit', by which the model is right for 36 of 36" in found.stderr
    trusted = (*words, "--preprocess", "raw", "--control", "one-shot", "--trust-baseline")
    assert CliRunner().invoke(main, [*trusted, *QUICK]).exit_code == 0
