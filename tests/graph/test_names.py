"""A convolution is found by every name that people know, and shown by the one they know best."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.channels import find_groups
from onnxprune.graph import Called, Graph
from onnxprune.graph.names import SCOPES


def chain(*convolutions: tuple[str, str, str]) -> ModelProto:
    """Convolutions one after another, each with the name of its node, weight and torch scopes."""
    nodes, weights = [], {}
    for k, (name, weight, scopes) in enumerate(convolutions):
        node = helper.make_node("Conv", [f"x{k}", weight], [f"x{k + 1}"], name=name)
        if scopes:
            node.metadata_props.add(key=SCOPES, value=scopes)
        nodes.append(node)
        weights[weight] = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), weight)
    values = [
        helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, ["N", 4, 3, 3])
        for k in (0, len(nodes))
    ]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], list(weights.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def called(*convolutions: tuple[str, str, str]) -> list[Called]:
    return list(find_groups(Graph(chain(*convolutions))).called.values())


@pytest.mark.parametrize(
    ("convolution", "title"),
    [
        (("node_Conv_764", "layer1.0.weight", "['', 'layer1', 'layer1.0', 'conv2d']"), "layer1.0"),
        (("node_conv2d_1", "val_3", "['', 'layer1', 'layer1.0', 'conv2d_1']"), "layer1.0"),
        (("node_conv2d_1", "layer1.0.weight", ""), "layer1.0"),
        (("node_conv2d_1", "conv3.weight", "['', 'bn3', 'batch_norm']"), "conv3"),
        (("Conv_12", "layer1.0.weight", ""), "layer1.0"),
        (("Conv_12", "layer1.0.weight", "no list"), "layer1.0"),
        (("Conv_12", "layer1.0.weight", "['']"), "layer1.0"),
        (("Conv_12", "layer1.0.weight", "['', 'conv2d']"), "layer1.0"),
        (("123", "layer1.0.weight", ""), "layer1.0"),
        (("/stem/Conv", "stem.weight", ""), "/stem/Conv"),
        (("Conv_12", "onnx::Conv_193", ""), "Conv_12"),
        (("model/conv2d_1/Conv2D", "model/conv2d_1/kernel", ""), "model/conv2d_1/Conv2D"),
        (("stem", "w1.weight", ""), "stem"),
    ],
)
def test_the_best_known_name_is_shown(convolution: tuple[str, str, str], title: str) -> None:
    assert called(convolution, ("head", "v", ""))[0].title == title


@pytest.mark.parametrize(
    ("convolution", "patterns"),
    [
        (
            ("node_Conv_7", "folded", "['', 'layer1', 'layer1.0', 'conv2d']"),
            ("node_Conv_7", "node_*", "layer1", "layer1.0", "layer1.*", "layer?.0", "folded"),
        ),
        (
            ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_193", ""),
            ("/layer1/*", "layer1", "layer1.0", "layer1.0.conv1", "layer1.*", "*conv1*", "onnx::*"),
        ),
        (("Conv_12", "layer1.0.weight", ""), ("layer1", "layer1.*", "layer1.0.weight", "Conv_1?")),
        (("/stem/Conv", "onnx::Conv_135", ""), ("stem", "stem.*", "/stem/Conv")),
    ],
)
def test_patterns_find_all_names(
    convolution: tuple[str, str, str], patterns: tuple[str, ...]
) -> None:
    other = ("block.Conv_99", "block.weight", "['', 'block', 'conv2d_99']")
    found, unlike = called(convolution, other)
    for pattern in patterns:
        assert found.matches(pattern), pattern
        assert not unlike.matches(pattern), pattern
    for pattern in ("layer", "ayer1*", "Layer1", "", "1"):
        assert not found.matches(pattern), pattern


def test_a_module_applied_twice_has_two_titles() -> None:
    twice = ("tower.weight", "['', 'tower', 'conv2d']")
    first, second = called(("node_conv2d", *twice), ("node_conv2d_1", *twice))
    assert (first.title, second.title) == ("tower (node_conv2d)", "tower (node_conv2d_1)")
    assert first.matches("tower (node_conv2d)")
    assert not second.matches("tower (node_conv2d)")
    assert first.matches("tower")
    assert second.matches("tower")


def test_titles_outlive_a_step() -> None:
    groups = find_groups(Graph(chain(("Conv_1", "a.weight", ""), ("Conv_2", "b.weight", ""))))
    dead = np.zeros(len(groups), np.bool_)
    dead[0] = True
    assert groups.without(dead).title("Conv_1") == "a"
    assert groups.title("nowhere") == "nowhere"
