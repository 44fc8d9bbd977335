"""Deployed files are compared as models are; what nobody knows of them is said to be unknown."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from onnxprune.comparison import compare
from onnxprune.deploy import deploy
from onnxprune.errors import InvalidModel, MissingPackage
from onnxprune.runtimes import RECORD, Runtime, is_deployed, onnx_of
from onnxprune.search import Settings
from tests.support.models import model

NET = model(
    """g (float[N, 3, 8, 8] x) => (float[N, 4] y) <float[4, 3, 3, 3] w> {
        c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p)
    }"""
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx, samples.npz and edge/net.ort, which differs from it by nothing."""
    folder = tmp_path_factory.mktemp("deployed")
    x = np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)
    y = onnx.reference.ReferenceEvaluator(NET).run(None, {"x": x})[0].argmax(1)
    np.savez(folder / "samples.npz", x=x, y=np.arange(4)[y])
    onnx.save(NET, folder / "net.onnx")
    record = deploy(
        folder / "net.onnx", folder / "edge", folder / "samples.npz", to=["ort-mobile"], threads=1
    )
    assert record["rows"][0]["status"] == "done", record["rows"]
    return folder


def test_a_deployed_file_is_compared_with_its_model(place: Path) -> None:
    file = place / "edge" / "net.ort"
    found = compare(place / "net.onnx", file, place / "samples.npz", threads=1)
    assert found["agreement"] == 1
    assert found["before"]["params"] == 108
    assert found["after"]["params"] is None
    assert found["after"]["macs"] is None
    assert found["after"]["size_bytes"] == file.stat().st_size
    assert found["after"]["latency_ms"] > 0
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    assert found["before"]["accuracy"]["mean"] == 1


def test_two_deployed_files_are_compared_on_the_screen(place: Path) -> None:
    file = str(place / "edge" / "net.ort")
    result = CliRunner().invoke(
        main, ["compare", file, file, "--data", str(place / "samples.npz"), "--threads", "1"]
    )
    assert result.exit_code == 0, result.stderr
    assert "unknown" in result.stdout
    assert "slower" not in result.stdout
    assert "100.0 %" in result.stdout


def test_files_of_other_runtimes_are_known_by_their_ends() -> None:
    for name in ("a.xml", "a.mnn", "a.ncnn.param", "a.param", "a.ort"):
        assert is_deployed(name)
        assert is_deployed(Path("some") / name)
    assert not is_deployed("a.onnx")
    assert not is_deployed(NET)


def test_a_file_that_is_not_there_is_refused(place: Path) -> None:
    with pytest.raises(InvalidModel, match=r"none\.ort: no such file; expected what deploy wrote"):
        compare(place / "net.onnx", place / "edge" / "none.ort", place / "samples.npz")


def test_a_runtime_that_is_not_installed_is_named_with_the_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "absent.py").write_text("PACKAGES = ('no_such_package',)\n")
    absent = Runtime("absent", place / "absent.py", ".ort")
    monkeypatch.setattr("onnxprune.runtimes.opening.runtime_of", lambda path: absent)
    with pytest.raises(MissingPackage, match=r"net\.ort: absent: not installed; install no_such"):
        compare(place / "net.onnx", place / "edge" / "net.ort", place / "samples.npz")


def test_a_score_that_fell_by_nothing_that_shows_is_no_loss(place: Path) -> None:
    """Runtimes round differently: samples of the same score in print are not shown as lost."""
    x = np.load(place / "samples.npz")["x"]
    lost = []
    for scale in (1.0001, 1.5):
        other = onnx.ModelProto()
        other.CopyFrom(NET)
        weight = onnx.numpy_helper.to_array(NET.graph.initializer[0]) * np.float32(scale)
        other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
        asked = Settings(threads=1, outputs=("y=values",))
        found = compare(NET, other, x, asked, evidence=True)
        lost.append(found["evidence"]["changed"])
    assert lost[0] == 0 < lost[1]


def test_the_model_is_looked_for_beside_the_file(place: Path, tmp_path: Path) -> None:
    file = place / "edge" / "net.ort"
    assert onnx_of(file).resolve() == (place / "net.onnx").resolve()
    shutil.copy(file, tmp_path / "net.ort")
    with pytest.raises(
        InvalidModel, match=rf"is not there \(no {RECORD} lies beside it\); compare"
    ):
        onnx_of(tmp_path / "net.ort")
    shutil.copy(place / "edge" / RECORD, tmp_path / RECORD)
    with pytest.raises(InvalidModel, match=rf"{RECORD} names \.\./net\.onnx\); compare"):
        onnx_of(tmp_path / "net.ort")
    shutil.copy(place / "net.onnx", tmp_path / "net.onnx")
    assert onnx_of(tmp_path / "net.ort") == tmp_path / "net.onnx"


def test_a_record_of_another_model_says_nothing(place: Path, tmp_path: Path) -> None:
    """Two models were deployed to one folder: the record is of the second, the files of both."""
    for name in ("net.ort", RECORD):
        shutil.copy(place / "edge" / name, tmp_path / name)
    shutil.copy(place / "edge" / "net.ort", tmp_path / "first.ort")
    shutil.copy(place / "net.onnx", tmp_path.parent / "net.onnx")
    assert onnx_of(tmp_path / "net.ort").resolve() == (tmp_path.parent / "net.onnx").resolve()
    with pytest.raises(
        InvalidModel,
        match=rf"is not there \({re.escape(str(tmp_path / RECORD))} names other files\)",
    ):
        onnx_of(tmp_path / "first.ort")


@pytest.mark.parametrize("file", ["my.net v2.ncnn.param", "my.net v2.xml", "my.net v2.int8.xml"])
def test_a_name_may_have_dots(tmp_path: Path, file: str) -> None:
    (tmp_path / "my.net v2.onnx").touch()
    assert onnx_of(tmp_path / file) == tmp_path / "my.net v2.onnx"
