"""The picture of a network: valid, whole, the same every time, and it shows every convolution."""

import re
from itertools import combinations
from math import dist
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from onnxprune import Graph, find_groups
from onnxprune.errors import OutputError
from onnxprune.report.colouring import COLOURS, colours_of
from onnxprune.report.drawing import (
    ALONE,
    LISTED,
    PLAIN,
    STAYS,
    draw,
    short_name,
    write_drawing,
)
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
    """The fill and the words of every box, by the first line of its tooltip."""
    root = ElementTree.fromstring(svg)
    drawn = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "boxes")
    found = {}
    for box in drawn:
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


def test_only_what_is_tied_has_a_colour() -> None:
    found = boxes(picture(model(NET)))
    assert found["Conv 'one'"][0] == found["Conv 'two'"][0] == found["Add 'sum'"][0]
    assert found["Conv 'one'"][0] in COLOURS
    assert found["Conv 'three'"][0] == ALONE
    assert found["GlobalAveragePool 'p'"][0] == found["output y"][0] == PLAIN


def test_a_tooltip_tells_kernel_costs_and_group() -> None:
    text = NET.replace("Conv(sum, w3)", "Conv<strides=[2,2]>(sum, w3)")
    found = boxes(picture(model(text)))
    assert "3×3 kernel, stride 2" in found["Conv 'three'"][1]
    assert f"{4 * 6 * 9 * 3 * 3:,} MACs" in found["Conv 'three'"][1]  # at 3 x 3 places
    assert "1×1 kernel" in found["Conv 'one'"][1]
    assert f"{6 * 2 * 64} MACs" in found["Conv 'one'"][1]
    assert "6 of 6 filters may go" in found["Conv 'one'"][1]
    assert "group #1, one" in found["Add 'sum'"][1]


def test_a_box_shows_the_name_that_people_know() -> None:
    proto = model(NET)
    proto.graph.node[0].name = "node_Conv_7"
    proto.graph.node[0].input[1] = proto.graph.initializer[0].name = "stem.conv.weight"
    words = boxes(picture(proto))["Conv 'node_Conv_7'"][1]
    assert words[0] == "stem.conv"
    assert "group #1, stem.conv" in words


def test_what_stays_is_hatched_and_says_why() -> None:
    svg = picture(model(NET))
    fill, words = boxes(svg)["Conv 'four'"]
    assert fill == STAYS
    assert "3 filters, 0 %" in words
    assert "stays: is the graph output 'y'" in words
    assert "#3  four: is the graph output 'y'" in svg.replace("&#x27;", "'")


def chain(count: int) -> onnx.ModelProto:
    """Pairs of tied convolutions, one after the other."""
    weights = ", ".join(f"float[4,4,1,1] v{k}, float[4,4,1,1] w{k}" for k in range(count))
    body = "\n".join(
        f"a{k} = Conv(t{k}, v{k}) b{k} = Conv(a{k}, w{k}) t{k + 1} = Add(a{k}, b{k})"
        for k in range(count)
    )
    text = f"net (float[N,4,2,2] t0) => (float[N,4,2,2] t{count}) <{weights}> {{ {body} }}"
    return model(text)


def test_each_tied_group_has_a_colour_and_a_line_where_there_are_enough() -> None:
    svg = picture(chain(len(COLOURS) + 1))  # the last one stays
    fills = [fill for name, (fill, _) in boxes(svg).items() if name.startswith("Conv 'a")]
    assert sorted(fills[:-1]) == sorted(COLOURS)
    assert svg.count(" and 1 more<") == len(COLOURS)


def test_groups_that_share_a_colour_stand_far_apart() -> None:
    svg = picture(chain(21))
    text = svg.replace("&#x27;", "'")
    place = r"Conv 'a(\d+)'[^>]*></?[^>]*x=\"([\d.]+)\" y=\"([\d.]+)\"[^>]*fill=\"([^\"]+)\""
    places = re.findall(place, text)
    assert len(places) == 21
    near = [
        (one, other)
        for one, other in combinations(places, 2)
        if one[3] == other[3] and dist(map(float, one[1:3]), map(float, other[1:3])) < 250
    ]
    assert near == []
    assert "20 groups share 8 colours: the #number tells them apart." in svg
    assert " and 1 more<" not in svg


def test_a_colour_is_taken_again_where_it_is_farthest_away() -> None:
    line = {k: [(100.0 * k, 0.0)] for k in range(len(COLOURS))}
    found = colours_of(line | {99: [(150.0, 0.0)]})
    assert [found[k] for k in line] == list(COLOURS)
    assert found[99] == COLOURS[-1]


def test_dark_mode_changes_every_fill_but_the_colours() -> None:
    svg = picture(model(NET))
    dark = svg.split("prefers-color-scheme: dark")[1].split("</style>")[0]
    fills = set(re.findall(r'<rect (?:class="(\w+)" )?[^>]*fill="([^"]+)"', svg))
    assert {PLAIN, ALONE, STAYS, "#ececec"} <= {fill for _, fill in fills}
    for kind, fill in fills - {("", colour) for colour in (STAYS, *COLOURS)}:
        assert (f".{kind} {{" if kind else f'[fill="{fill}"]') in dark
    assert set(re.findall(r'<g class="tied"><title>(\w+)', svg)) == {"Conv", "Add"}


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
    proto.graph.node[0].name = "<script>alert(1)</script>"
    assert "<script" not in picture(proto, title="<script>")


def test_a_convolution_of_one_filter_is_drawn_as_staying() -> None:
    text = NET.replace("float[4,6,3,3] w3, float[3,4,1,1]", "float[1,6,3,3] w3, float[3,1,1,1]")
    fill, words = boxes(picture(model(text)))["Conv 'three'"]
    assert fill == STAYS
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
    proto.graph.node[0].name = "features.denseblock4.denselayer16.conv2"
    assert "\u2026.denselayer16.conv2" in picture(proto)


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
