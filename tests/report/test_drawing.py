"""The picture of a network: valid, whole, the same every time, and it shows every convolution."""

import re
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from onnxprune import Graph, find_groups
from onnxprune.errors import OutputError
from onnxprune.report.drawing import COLOURS, LISTED, PINNED, draw, short_name, write_drawing
from tests.support.models import model

SVG = "{http://www.w3.org/2000/svg}"
NET = """
net (float[N,2,8,8] x) => (float[N,3] y)
<float[6,2,1,1] w1, float[6,6,1,1] w2, float[4,6,3,3] w3, float[3,4,1,1] w4> {
  one = Conv(x, w1)
  two = Conv(one, w2)
  sum = Add(one, two)
  three = Conv(sum, w3)
  p = GlobalAveragePool(three)
  four = Conv(p, w4)
  y = Flatten(four)
}
"""


def picture(proto: onnx.ModelProto, title: str = "network") -> str:
    graph = Graph(proto)
    return draw(graph, find_groups(graph), title)


def boxes(svg: str) -> dict[str, tuple[str, list[str]]]:
    """The fill and the words of every drawn part, by the first line of its tooltip."""
    root = ElementTree.fromstring(svg)
    parts = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "parts")
    found = {}
    for box in parts:
        words = [text.text or "" for text in box.iter(f"{SVG}text")]
        tip = box.findtext(f"{SVG}title") or ""
        rect = box.find(f"{SVG}rect")
        assert rect is not None
        found[tip.splitlines()[0]] = (rect.get("fill", ""), [*words, *tip.splitlines()])
    return found


def test_every_convolution_has_a_box_with_its_width_and_share() -> None:
    found = boxes(picture(model(NET)))
    assert list(found) == [
        *("input x", "Conv 'one'", "Conv 'two'", "Add 'sum'", "Conv 'three'"),
        *("GlobalAveragePool 'p'", "Conv 'four'", "output y"),
    ]
    assert found["Conv 'one'"][1][:3] == ["one", "6 filters, 100 %", "#1"]
    assert found["Conv 'three'"][1][:3] == ["three", "4 filters, 100 %", "#2"]


def test_a_group_has_one_colour_and_its_neighbour_another() -> None:
    found = boxes(picture(model(NET)))
    assert found["Conv 'one'"][0] == found["Conv 'two'"][0] == found["Add 'sum'"][0]
    assert found["Conv 'one'"][0] in COLOURS
    assert found["Conv 'three'"][0] in set(COLOURS) - {found["Conv 'one'"][0]}


def test_what_stays_is_hatched_and_says_why() -> None:
    svg = picture(model(NET))
    fill, words = boxes(svg)["Conv 'four'"]
    assert fill == PINNED
    assert "3 filters, 0 %" in words
    assert "stays: is the graph output 'y'" in words
    assert "#3  four: is the graph output 'y'" in svg.replace("&#x27;", "'")


def test_groups_drawn_near_each_other_have_different_colours() -> None:
    count = 40
    weights = ", ".join(f"float[4,4,1,1] w{k}" for k in range(count))
    body = "\n".join(f"t{k + 1} = Conv(t{k}, w{k})" for k in range(count))
    text = f"net (float[N,4,2,2] t0) => (float[N,4,2,2] t{count}) <{weights}> {{ {body} }}"
    fills = [fill for name, (fill, _) in boxes(picture(model(text))).items() if "Conv" in name][:-1]
    assert all(len(set(fills[k : k + len(COLOURS)])) == len(COLOURS) for k in range(len(fills) - 8))


def test_what_pins_has_a_frame_of_its_own() -> None:
    text = NET.replace("three = Conv(sum, w3)", "q = Softmax<axis=1>(sum) three = Conv(q, w3)")
    framed = r"<title>([^\n<]*)[^<]*</title><rect [^>]*class=\"pinning\""
    frames = re.findall(framed, picture(model(text)))
    assert frames == ["Softmax &#x27;q&#x27;"]
    assert 'class="pinning"' not in picture(model(NET))


def test_the_same_model_gives_the_same_picture() -> None:
    assert picture(model(NET)) == picture(model(NET))


def test_any_name_gives_valid_xml() -> None:
    proto = model(NET)
    name = "a<b>&\"'\x01\x0b\ud7ff]]>"
    proto.graph.node[0].name = name
    svg = picture(proto, title="<title & all\x00>")
    assert [tip for tip in boxes(svg) if tip.startswith("Conv 'a<b>&\"'")]


def test_a_convolution_of_one_filter_is_drawn_as_staying() -> None:
    text = NET.replace("float[4,6,3,3] w3, float[3,4,1,1]", "float[1,6,3,3] w3, float[3,1,1,1]")
    fill, words = boxes(picture(model(text)))["Conv 'three'"]
    assert fill == PINNED
    assert any(word.startswith("stays: ") for word in words)


def test_a_long_legend_is_counted() -> None:
    outputs = [f"float[N,4,2,2] y{k}" for k in range(LISTED + 3)]
    weights = ", ".join(f"float[4,4,1,1] w{k}" for k in range(LISTED + 3))
    body = " ".join(f"y{k} = Conv(x, w{k})" for k in range(LISTED + 3))
    text = f"net (float[N,4,2,2] x) => ({', '.join(outputs)}) <{weights}> {{ {body} }}"
    svg = picture(model(text))
    assert "and 3 more" in svg
    assert svg.count(": is the graph output") == LISTED + svg.count("stays: is the graph output")


def test_a_long_name_is_cut_between_its_parts_where_that_suffices() -> None:
    proto = model(NET)
    proto.graph.node[0].name = "/a_rather_long_stage_name/block/conv1/Conv"
    proto.graph.node[1].name = "a_name_of_more_letters_than_a_box_has_room_for"
    texts = [words[0] for _, words in boxes(picture(proto)).values()]
    assert "\u2026/block/conv1" in texts
    assert "\u2026than_a_box_has_room_for" in texts


def test_the_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    graph = Graph(model(NET))
    groups = find_groups(graph)
    path = write_drawing(graph, groups, tmp_path / "net.svg", "net")
    assert path.read_text(encoding="utf-8") == draw(graph, groups, "net")
    with pytest.raises(OutputError):
        write_drawing(graph, groups, tmp_path / "missing" / "net.svg")
    assert [file.name for file in tmp_path.iterdir()] == ["net.svg"]


@pytest.mark.parametrize(
    ("name", "op_type", "short"),
    [
        ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0/conv1"),
        ("/inception3a/branch1/conv/Conv", "Conv", "inception3a/branch1"),
        ("model/conv2d_3/Conv2D", "Conv", "model/conv2d_3/Conv2D"),
        ("/a/Conv_1", "Conv", "a"),
        ("Conv", "Conv", "Conv"),
        ("/conv1/Conv", "Conv", "conv1"),
        ("", "Conv", ""),
    ],
)
def test_short_names_leave_out_what_is_said_twice(name: str, op_type: str, short: str) -> None:
    assert short_name(name, op_type) == short
