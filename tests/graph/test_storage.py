"""Models in files: external data, checks, digests; weights are never looked at as one message."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel, OutputError
from onnxprune.files import write_whole
from onnxprune.graph.graph import Graph
from onnxprune.graph.second_file import files_of
from onnxprune.graph.storage import (
    LARGE,
    digest,
    file_size,
    load_model,
    save_model,
    shell,
    typed_shell,
)
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, model, run

TEXT = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[64,3,3,3] w, float[64] b, float[2,64,1,1] v> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  y = Conv(r, v)
}
"""


@pytest.fixture
def proto() -> ModelProto:
    found = model(TEXT)
    found.graph.initializer[0].doc_string = "the stem"
    return found


def test_a_model_too_large_for_one_message_is_split_and_read_back(
    proto: ModelProto, tmp_path: Path
) -> None:
    path = save_model(proto, tmp_path / "model.onnx", limit=1000)
    (data,) = tmp_path.glob("model.onnx.*.data")
    assert set(tmp_path.iterdir()) == {path, data}
    large = sum(numpy_helper.to_array(t).nbytes for t in proto.graph.initializer if t.name == "w")
    assert data.stat().st_size == large
    assert file_size(proto, 1000) == pytest.approx(large + path.stat().st_size, abs=40)  # names
    onnx.checker.check_model(str(path), full_check=True)
    for one, other in zip(
        load_model(path).graph.initializer, sorted_like(proto, path), strict=True
    ):
        assert one.doc_string == other.doc_string
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    x = images(proto, 2)
    np.testing.assert_array_equal(run(load_model(path), x)[0], run(proto, x)[0])


def test_weights_lie_one_after_another_beside_those_of_other_models(tmp_path: Path) -> None:
    text = TEXT.replace("y = Conv(r, v)", "s = Conv(r, u)  y = Conv(s, v)")
    proto = model(text.replace("<float[64,3", "<float[64,64,1,1] u, float[64,3"))
    places = [save_model(proto, tmp_path / f"{name}.onnx", limit=1000) for name in "ab"]
    save_model(proto, places[0], limit=1000)
    assert len(list(tmp_path.iterdir())) == 4
    x = images(proto, 2)
    for path in places:
        np.testing.assert_array_equal(run(load_model(path), x)[0], run(proto, x)[0])


@pytest.mark.parametrize(
    ("kind", "size"),
    [(TensorProto.INT4, 515), (TensorProto.UINT4, 515), (TensorProto.INT8, 1029)],
)
def test_numbers_that_share_a_byte_are_counted_so(kind: int, size: int, tmp_path: Path) -> None:
    proto = model(TEXT)
    values = np.ones((3, 343), np.int8).astype(helper.tensor_dtype_to_np_dtype(kind))
    proto.graph.initializer.append(numpy_helper.from_array(values, "small"))
    assert len(proto.graph.initializer[-1].raw_data) == size
    path = save_model(proto, tmp_path / "model.onnx")
    assert load_model(path) == proto
    assert path.stat().st_size == len(proto.SerializeToString()) == file_size(proto)


def test_what_is_saved_is_read_back_equal(proto: ModelProto, tmp_path: Path) -> None:
    proto.metadata_props.add(key="author", value="me")
    path = save_model(proto, tmp_path / "model.onnx")
    assert load_model(path) == proto
    assert path.stat().st_size == len(proto.SerializeToString()) == file_size(proto)


def sorted_like(proto: ModelProto, path: Path) -> list[TensorProto]:
    by_name = {tensor.name: tensor for tensor in proto.graph.initializer}
    return [by_name[tensor.name] for tensor in load_model(path).graph.initializer]


def test_external_data_is_read_and_pruned(proto: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = load_model(path)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = groups.removable & (np.arange(len(groups)) % 2 == 0)
    small = save_model(remove_channels(graph, groups, dead), tmp_path / "small.onnx")
    assert onnx.load(str(small), load_external_data=False).graph.initializer[0].raw_data
    assert run(load_model(small), images(proto, 3))[0].shape == (3, 2, 8, 8)


def test_weights_that_were_not_read_are_refused(proto: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InvalidModel, match="weight 'w': its values are in another file"):
        Graph(onnx.load(str(path), load_external_data=False))


def test_a_weight_cut_short_is_refused(proto: ModelProto) -> None:
    weight = proto.graph.initializer[0]
    assert np.prod(weight.dims) > LARGE
    weight.raw_data = weight.raw_data[:-40]
    with pytest.raises(InvalidModel, match="weight 'w': its values do not fill its shape"):
        Graph(proto)


def test_a_shell_has_everything_but_large_weights(proto: ModelProto) -> None:
    proto.metadata_props.add(key="author", value="me")
    small = shell(proto)
    assert [t.name for t in small.graph.initializer] == ["b", "v"]
    small.graph.initializer.insert(0, proto.graph.initializer[0])
    assert small == proto
    assert [value.name for value in typed_shell(proto).graph.input] == ["x", "w"]


def test_the_digest_sees_every_weight_and_every_node(proto: ModelProto) -> None:
    other = ModelProto()
    other.CopyFrom(proto)
    assert digest(other) == digest(proto)
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[-1, -1, -1, -1] += 1
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    assert digest(other) != digest(proto)
    other.CopyFrom(proto)
    other.graph.node[1].op_type = "Tanh"
    assert digest(other) != digest(proto)


def test_a_killed_writer_leaves_a_model_with_its_own_weights(
    proto: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(proto, tmp_path / "model.onnx", limit=1000)
    graph = Graph(proto)
    groups = find_groups(graph)
    other = remove_channels(graph, groups, groups.removable & (np.arange(len(groups)) < 4))

    def outputs(one: ModelProto) -> npt.NDArray[Any]:
        return run(one, images(proto, 2))[0]

    def killed(place: Path, content: Any, check: object = None) -> Path:
        if place == path:
            raise KeyboardInterrupt
        return write_whole(place, content)

    with monkeypatch.context() as patch:
        patch.setattr("onnxprune.graph.storage.write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            save_model(other, path, limit=1000)
    np.testing.assert_array_equal(outputs(load_model(path)), outputs(proto))
    save_model(other, path, limit=1000)
    np.testing.assert_array_equal(outputs(load_model(path)), outputs(other))
    assert len(list(tmp_path.glob("*.data"))) == 1
    save_model(proto, path)
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_another_model_of_the_folder_names_stay(
    proto: ModelProto, tmp_path: Path
) -> None:
    path = save_model(proto, tmp_path / "model.onnx", limit=1000)
    (data,) = tmp_path.glob("*.data")
    (tmp_path / "first.onnx").write_bytes(path.read_bytes())
    save_model(proto, path)
    assert data.exists()
    np.testing.assert_array_equal(
        run(load_model(tmp_path / "first.onnx"), images(proto, 2))[0],
        run(proto, images(proto, 2))[0],
    )
    (tmp_path / "first.onnx").unlink()
    save_model(proto, path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_no_place_for_two_files(proto: ModelProto, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    with pytest.raises(OutputError, match="is a link, and a model of this size has a second file"):
        save_model(proto, tmp_path / "link.onnx", limit=1000)
    save_model(proto, tmp_path / "link.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"link.onnx", "model.onnx"}


def test_the_files_of_a_model_are_its_own_and_its_weights(
    proto: ModelProto, tmp_path: Path
) -> None:
    path = save_model(proto, tmp_path / "model.onnx", limit=1000)
    assert set(files_of(path)) == set(tmp_path.iterdir())
    (tmp_path / "none.onnx").write_text("no model")
    assert list(files_of(tmp_path / "none.onnx")) == [tmp_path / "none.onnx"]
