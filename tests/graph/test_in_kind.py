"""Models as onnx-graphsurgeon and onnx_ir hold them are taken, left alone and given back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir
import pytest
from onnx import ModelProto, helper

import onnxprune
from onnxprune.errors import InvalidModel, InvalidType, MissingPackage
from onnxprune.graph.in_kind import to_graphsurgeon, to_ir
from onnxprune.graph.storage import digest, load_model, save_model
from tests.support.models import RESIDUAL, images, model, run
from tests.support.small_net import Small

BRANCHES = """
g (float[N,3,8,8] x, bool c) => (float[N,4,8,8] y)
<float[6,3,3,3] w, float[4,6,1,1] v> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  r = If (c) <
    then_branch = t () => (float[N,6,8,8] p) { p = Relu(a) },
    else_branch = e () => (float[N,6,8,8] q) { q = Neg(a) }
  >
  y = Conv(r, v)
}
"""
FREE: dict[str, Any] = {
    "control": "one-shot",
    "criterion": "magnitude",
    "rate": 0.3,
    "round_to": 1,
    "compensate": "none",
}

KINDS: dict[str, tuple[Callable[[ModelProto], Any], Callable[[Any], ModelProto], str]] = {
    "onnx-graphsurgeon": (gs.import_onnx, gs.export_onnx, "as_graphsurgeon"),
    "onnx_ir": (onnx_ir.from_proto, onnx_ir.to_proto, "as_ir"),
}
each_kind = pytest.mark.parametrize(("make", "write", "back"), KINDS.values(), ids=KINDS)


def documented() -> ModelProto:
    """A net with everything that people write beside the numbers."""
    found = model(RESIDUAL, header='<ir_version: 10, opset_import: ["": 19]>')
    found.doc_string, found.producer_name, found.producer_version = "a net", "people", "7"
    found.graph.doc_string = "its graph"
    helper.set_model_props(found, {"names": "{0: 'cat'}", "onnxprune.preprocess": "unit"})
    for k, node in enumerate(found.graph.node):
        node.name, node.doc_string = f"layer/{k}", f"node {k}"
        node.metadata_props.add(key="pkg", value=str(k))
    found.graph.initializer[0].doc_string = "the stem"
    return found


@each_kind
@pytest.mark.parametrize("text", [RESIDUAL, BRANCHES])
def test_it_is_pruned_as_the_model_is_and_given_back(
    make: Any, write: Any, back: str, text: str
) -> None:
    proto = model(text)
    expected, found = onnxprune.prune(proto, **FREE), onnxprune.prune(make(proto), **FREE)
    assert len(found.plan) and found.plan == expected.plan
    again = write(getattr(found, back)())
    onnx.checker.check_model(again, full_check=True)
    assert again.opset_import == proto.opset_import and again.ir_version == proto.ir_version
    inputs = [images(proto, 2), *([np.array(True)] if text == BRANCHES else [])]
    np.testing.assert_array_equal(run(again, *inputs)[0], run(expected.model, *inputs)[0])
    assert sum(map(np.size, map(onnx.numpy_helper.to_array, again.graph.initializer))) < sum(
        map(np.size, map(onnx.numpy_helper.to_array, proto.graph.initializer))
    )


@each_kind
def test_the_callers_object_is_left_as_it_was(make: Any, write: Any, back: str) -> None:
    given = make(documented())
    before = digest(write(given))
    result = onnxprune.prune(given, **FREE)
    assert digest(write(given)) == before
    kept = digest(result.model)
    one = getattr(result, back)()
    if back == "as_ir":
        next(iter(one.graph.initializers.values())).name = "renamed"
    else:
        next(t for t in one.tensors().values() if isinstance(t, gs.Constant)).name = "renamed"
    write(one)
    assert digest(result.model) == kept


@each_kind
def test_names_stay(make: Any, write: Any, back: str) -> None:
    proto = documented()
    again = write(getattr(onnxprune.prune(make(proto), **FREE), back)())
    for of in (lambda g: g.node, lambda g: g.input, lambda g: g.output, lambda g: g.initializer):
        assert {one.name for one in of(again.graph)} == {one.name for one in of(proto.graph)}
    assert again.graph.name == proto.graph.name and again.graph.doc_string == "its graph"
    assert (again.producer_name, again.producer_version) == ("people", "7")


def test_a_model_of_onnx_ir_keeps_metadata_and_documentation() -> None:
    proto = documented()
    again = onnx_ir.to_proto(onnxprune.prune(onnx_ir.from_proto(proto), **FREE).as_ir())
    assert again.doc_string == "a net" and again.metadata_props == proto.metadata_props
    for node, old in zip(again.graph.node, proto.graph.node, strict=True):
        assert node.doc_string == old.doc_string and node.metadata_props == old.metadata_props
    stem = proto.graph.initializer[0].name
    assert {t.doc_string for t in again.graph.initializer if t.name == stem} == {"the stem"}


def test_what_graphsurgeon_notes_while_it_writes_is_put_back() -> None:
    proto = model(RESIDUAL)
    graph = gs.import_onnx(proto)
    graph.import_domains = [helper.make_opsetid("", 17)]
    graph.nodes[2].domain, graph.nodes[2].op = "trt.plugins", "Mystery"
    weight = graph.nodes[0].inputs[1]
    weight.name = "renamed"
    read = load_model(graph)
    assert [entry.domain for entry in graph.import_domains] == [""]
    assert {entry.domain for entry in read.opset_import} == {"", "trt.plugins"}
    assert weight.name == "renamed" and "w1" in {t.name for t in proto.graph.initializer}
    assert "renamed" in {t.name for t in read.graph.initializer}


def test_a_graph_built_by_hand_gets_a_format_that_runtimes_read() -> None:
    x = gs.Variable("x", np.float32, ("N", 3, 8, 8))
    r, y = gs.Variable("r"), gs.Variable("y", np.float32, ("N", 4, 8, 8))
    rng = np.random.default_rng(0)
    weights = [
        gs.Constant(name, rng.normal(size=shape).astype(np.float32))
        for name, shape in (("w", (8, 3, 1, 1)), ("v", (4, 8, 1, 1)))
    ]
    nodes = [  # written in no order in which they run
        gs.Node("Conv", "two", inputs=[r, weights[1]], outputs=[y]),
        gs.Node("Conv", "one", inputs=[x, weights[0]], outputs=[r]),
    ]
    graph = gs.Graph(nodes, [x], [y], opset=17)
    result = onnxprune.prune(graph, **FREE)
    assert [node.name for node in graph.nodes] == ["two", "one"]
    small = gs.export_onnx(result.as_graphsurgeon())
    assert small.ir_version == 8 and list(result.plan.removed) == ["one"]
    assert run(small, images(small, 2))[0].shape == (2, 4, 8, 8)


def test_weights_of_onnx_ir_that_lie_in_a_file_are_read(tmp_path: Path) -> None:
    proto = model(RESIDUAL.replace("6,6,3,3", "6,6,9,9").replace("1,1,1,1]>(a", "4,4,4,4]>(a"))
    given = onnx_ir.load(save_model(proto, tmp_path / "model.onnx", limit=1000))
    found = onnxprune.prune(given, **FREE)
    assert found.plan == onnxprune.prune(proto, **FREE).plan
    held = [value.const_value for value in given.graph.initializers.values()]
    assert any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in held)
    x = images(proto, 2)
    expected = run(onnxprune.apply(proto, found.plan), x)[0]
    np.testing.assert_array_equal(run(onnx_ir.to_proto(found.as_ir()), x)[0], expected)


@each_kind
def test_whatever_takes_a_model_takes_it(
    make: Any, write: Any, back: str, small: Small, tmp_path: Path
) -> None:
    given = make(small.proto)
    expected = onnxprune.inspect(small.proto)
    assert onnxprune.inspect(given, svg=tmp_path / "net.svg") == expected
    groups = onnxprune.find_groups(onnxprune.Graph.load(given))
    plan = onnxprune.Plan.of(groups, groups.removable & (np.arange(len(groups)) % 2 == 0))
    pruned = onnxprune.apply(given, plan)
    expected_output = run(onnxprune.apply(small.proto, plan), small.x)[0]
    np.testing.assert_array_equal(run(pruned, small.x)[0], expected_output)
    found = onnxprune.compare(given, make(pruned), small.data, trust_baseline=True)
    assert found["before"]["params"] > found["after"]["params"]
    judge = onnxprune.Evaluator(onnxprune.load_data(small.data, shape=(1, 8, 8)))
    assert judge(given) == judge(small.proto)


@each_kind
def test_a_run_directory_is_resumed_with_it(
    make: Any, write: Any, back: str, small: Small, tmp_path: Path
) -> None:
    asked = {**FREE, "run_dir": tmp_path / "run"}
    plan = onnxprune.prune(make(small.proto), **asked).plan
    assert onnxprune.prune(make(small.proto), **asked, resume=True).plan == plan


def test_half_made_graphs_are_refused_in_a_line() -> None:
    graph = gs.import_onnx(model(RESIDUAL))
    graph.outputs[0].dtype = None
    with pytest.raises(InvalidModel, match="onnx-graphsurgeon cannot write it as ONNX"):
        onnxprune.inspect(graph)
    one = onnx_ir.from_proto(model(RESIDUAL))
    one.graph.initializers["w1"].const_value = None
    with pytest.raises(InvalidModel, match=r"^[^\n]+$"):
        onnxprune.inspect(one)


def test_a_view_says_how_it_is_loaded() -> None:
    graph: Any = gs.import_onnx(model(RESIDUAL))
    with pytest.raises(InvalidType, match=r"Graph\.load takes it"):
        onnxprune.Graph(graph)


@pytest.mark.parametrize(("convert", "extra"), [(to_graphsurgeon, "graphsurgeon"), (to_ir, "ir")])
def test_a_missing_library_is_named_with_its_extra(
    convert: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx_graphsurgeon", "onnx_ir"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=rf"onnxprune\[{extra}\]"):
        convert(model(RESIDUAL))


def test_neither_library_is_imported_for_a_file() -> None:
    code = (
        "import sys, onnxprune; onnxprune.inspect('samples/fashion_mnist/model.onnx');"
        "print({'onnx_graphsurgeon', 'onnx_ir'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
