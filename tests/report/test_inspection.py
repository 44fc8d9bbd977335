"""What inspect says adds up: filter by filter, and against what pruning a channel really saves."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import Graph, find_groups
from onnxprune.channels.labels import Reason
from onnxprune.errors import InvalidModel, UnknownName
from onnxprune.report.inspection import inspect
from onnxprune.report.skeleton import pinning
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

TIED = """
net (float[N,2,4,4] x) => (float[N,3,4,4] y, float[N,1,4,4] m)
<float[5,2,1,1] w1, float[5,5,1,1] w2, float[4,5,1,1] w3, float[3,4,1,1] w4, float[1,4,1,1] w5> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  s = Add(a, b)
  c = Conv(s, w3)
  y = Conv(c, w4)
  m = Conv(c, w5)
}
"""
WIDE = """
net (float[N,2,4,4] x) => (float[N,40,4,4] y) <float[40,2,1,1] w1, float[40,40,1,1] w2> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  y = Relu(b)
}
"""
UNKNOWN = """
net (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[5,2,1,1] w1, float[6,5,1,1] w2, float[3,6,1,1] w3> {
  a = Conv(x, w1)
  b = acme.Widget(a)
  c = Conv(b, w2)
  d = Conv(c, w3)
  y = Softmax<axis=1>(d)
}
"""
ACME = '<ir_version: 8, opset_import: ["": 17, "acme": 1]>'


@pytest.fixture(params=["tied", "unknown"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return inspect(model(TIED) if request.param == "tied" else model(UNKNOWN, header=ACME))


def test_filters_add_up(found: dict[str, Any]) -> None:
    groups = found["groups"]
    assert found["coverage"] == found["removable_filters"] / found["filters"]
    assert sum(group["removable_filters"] for group in groups) == found["removable_filters"]
    for group in groups:
        assert group["filters"] == sum(group["widths"])
        assert len(group["convolutions"]) == len(group["widths"]) > 0


def test_every_channel_that_stays_has_a_reason(found: dict[str, Any]) -> None:
    for group in found["groups"]:
        staying = group["channels"] - group["removable"]
        assert sum(entry["channels"] for entry in group["pinned"]) == staying
        assert (group["reason"] is None) == (staying == 0)
        for entry in group["pinned"]:
            assert entry["reason"] in group["reason"]


def test_what_a_channel_saves_is_what_its_removal_saves() -> None:
    graph = Graph(model(TIED))
    groups = find_groups(graph)
    found = inspect(model(TIED))
    for number, group in enumerate(found["groups"][:2]):
        dead = np.zeros(len(groups), np.bool_)
        dead[np.flatnonzero(groups.group == number)[0]] = True
        pruned = Graph(remove_channels(graph, groups, dead))
        left = find_costs(pruned, find_groups(pruned)).of()
        # What a tied channel reads of itself goes once; its row and its column both count it.
        twice = 1 if number == 0 else 0
        assert group["params_saved"] - twice == found["params"] - left.params
        assert group["macs_saved"] - 16 * twice == found["macs"] - left.macs
        filters = group["filters"] // group["channels"]
        assert group["params_saved_per_filter"] == round(group["params_saved"] / filters)
        assert group["macs_saved_per_filter"] == round(group["macs_saved"] / filters)


def test_the_node_that_pins_is_named() -> None:
    groups = inspect(model(UNKNOWN, header=ACME))["groups"]
    first = groups[0]["pinned"]
    assert [(entry["node"], entry["channels"]) for entry in first] == [("b", 5)]
    assert "Widget 'b'" in first[0]["reason"]
    assert [entry["node"] for entry in inspect(model(TIED))["groups"][2]["pinned"]] == [None]


def test_titles_are_the_names_that_people_know() -> None:
    proto = model(UNKNOWN, header=ACME)
    for node, name in ((proto.graph.node[0], "stem.conv"), (proto.graph.node[2], "neck.body.conv")):
        weight = next(t for t in proto.graph.initializer if t.name == node.input[1])
        node.input[1] = weight.name = f"{name}.weight"
        node.name = f"node_Conv_{len(name)}"
    groups = {group["name"]: group["titles"] for group in inspect(proto)["groups"]}
    assert groups["node_Conv_9"] == ["stem.conv"]
    assert groups["node_Conv_14"] == ["neck.body.conv"]
    assert groups["d"] == ["d"]


def test_a_node_whose_name_holds_a_quote_is_named() -> None:
    proto = model(UNKNOWN, header=ACME)
    proto.graph.node[1].name = "model's widget"
    assert [entry["node"] for entry in inspect(proto)["groups"][0]["pinned"]] == ["model's widget"]
    assert pinning(find_groups(Graph(proto))) == {"model's widget", "y"}


def test_convolutions_whose_filters_are_not_followed_are_listed() -> None:
    found = inspect(model(TIED))
    assert found["filters"] == 5 + 5 + 4 + 3 + 1
    assert [group["name"] for group in found["groups"]] == ["a", "c", "y", "m"]
    assert found["groups"][-1]["reason"] == "Conv 'm' has one filter"
    text = UNKNOWN.replace("c = Conv(b, w2)", "k = acme.Make(w2) c = Conv(b, k)")
    lost = {group["name"]: group["reason"] for group in inspect(model(text, header=ACME))["groups"]}
    assert lost["c"] == "belongs to Conv 'c', whose output shape is not known"


def test_multiply_adds_that_are_not_known_are_no_number(caplog: pytest.LogCaptureFixture) -> None:
    found = inspect(model(UNKNOWN, header=ACME))
    assert found["macs"] is None
    assert found["macs_unknown"] == ["c", "d"]
    assert [group["macs_saved"] for group in found["groups"]] == [5 * 2 * 16 // 5, None, None]
    assert "the multiply-adds of 'c', 'd' are not known" in caplog.text


def test_declared_shapes_make_multiply_adds_known(caplog: pytest.LogCaptureFixture) -> None:
    proto = model(UNKNOWN, header=ACME)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("b", 1, ["N", 5, 4, 4]))
    found = inspect(proto)
    assert found["macs"] == (5 * 2 + 6 * 5 + 3 * 6) * 16
    assert found["macs_unknown"] == []
    assert not caplog.records


def test_an_operator_of_ones_own_with_a_weight_may_weigh() -> None:
    text = UNKNOWN.replace("acme.Widget(a)", "acme.Widget(a, w4)").replace(
        "w3> {", "w3, float[5,5,3,3] w4> {"
    )
    proto = model(text, header=ACME)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("b", 1, ["N", 5, 4, 4]))
    assert inspect(proto)["macs_unknown"] == ["b"]


def test_many_reasons_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.report import inspection

    groups = find_groups(Graph(model(TIED)))
    reasons = {channel: Reason(f"reason {channel}") for channel in range(5)}
    many = type(groups)(groups.cuts, groups.filters, groups.group, groups.names, reasons)
    monkeypatch.setattr(inspection, "find_groups", lambda graph, **_: many)
    first = inspection.inspect(model(TIED))["groups"][0]
    assert first["reason"] == "reason 0; reason 1; 3 other reasons"
    assert [entry["reason"] for entry in first["pinned"]] == [f"reason {k}" for k in range(5)]
    assert first["removable"] == 0


def test_weights_that_are_cut_short_are_noticed() -> None:
    proto = model(WIDE)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(values, "w2"))
    weight.raw_data = weight.raw_data[:-4]
    with pytest.raises(InvalidModel, match="weight 'w2': its values do not fill its shape"):
        inspect(proto)


def test_an_operator_that_nobody_knows_cannot_be_allowed() -> None:
    with pytest.raises(UnknownName, match="flurb"):
        inspect(model(TIED), allow_inexact=["flurb"])
