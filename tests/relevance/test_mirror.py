"""The mirror computes what onnxruntime computes, whole or from the middle."""

import warnings
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from onnxprune.errors import InvalidModel, UnsupportedOp
from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.mirror import Mirror
from tests.support.models import images, model, relative_error, run

CLOSE = 1e-5
"""Relative, in single precision."""
DEEP = 1e-4
"""Relative, through a whole network."""

NORMED = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[6,3,3,3] w1, float[6] b1, float[6,6,1,1] w2, float[6,4] v,
 float[6] scale, float[6] shift, float[6] mean, float[6] var> {
  a = Conv(x, w1, b1)
  n = BatchNormalization<epsilon=0.01>(a, scale, shift, mean, var)
  r = Relu(n)
  c = Conv(r, w2)
  m = BatchNormalization(c, scale, shift, mean, var)
  s = Add(m, r)
  q = BatchNormalization(s, scale, shift, mean, var)
  p = GlobalAveragePool(q)
  f = Flatten(p)
  z = MatMul(f, v)
}
"""


@pytest.mark.parametrize("fold", [False, True], ids=["kept", "folded"])
def test_the_mirror_agrees_with_onnxruntime(fold: bool) -> None:
    proto = model(NORMED)
    x = images(proto, 3)
    plain = Mirror(Graph(proto), device="cpu")
    mirror = folded(plain) if fold else plain
    assert relative_error(mirror(x).numpy(), run(proto, x)[0]) < CLOSE
    assert relative_error(mirror.trace(x)["z"].numpy(), run(proto, x)[0]) < CLOSE


def test_folding_turns_a_normalisation_behind_a_convolution_into_nothing() -> None:
    mirror = folded(Mirror(Graph(model(NORMED)), device="cpu"))
    kinds = {node.name: node.op_type for node, _ in mirror.steps}
    assert [kinds[name] for name in "nmq"] == ["Identity", "Identity", "BatchNormalization"]
    trace = mirror.trace(images(mirror.graph.model, 2))
    assert torch.equal(trace["a"], trace["n"])
    plain = Mirror(mirror.graph, device="cpu").trace(images(mirror.graph.model, 2))
    assert torch.allclose(trace["n"], plain["n"], rtol=1e-4, atol=1e-5)


def test_a_normalisation_of_what_the_model_returns_is_not_folded() -> None:
    proto = model(NORMED.replace("(float[N,4] z)", "(float[N,4] z, float[N,6,6,6] a)"))
    mirror = folded(Mirror(Graph(proto), device="cpu"))
    x = images(proto, 2)
    expected = run(proto, x)
    trace = mirror.trace(x)
    for name, value in zip("za", expected, strict=True):
        assert relative_error(trace[name].numpy(), value) < CLOSE, name


def test_a_normalisation_of_what_others_read_too_is_not_folded() -> None:
    text = NORMED.replace("s = Add(m, r)", "s = Sum(m, r, c)")
    proto = model(text)
    mirror = folded(Mirror(Graph(proto), device="cpu"))
    kinds = {node.name: node.op_type for node, _ in mirror.steps}
    assert kinds["m"] == "BatchNormalization"
    x = images(proto, 2)
    assert relative_error(mirror(x).numpy(), run(proto, x)[0]) < CLOSE


WRITTEN_OUT = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[6,3,3,3] w1, float[6] b1, float[6,1,3,3] w2, float[6,4] v, float[6,1,1] mean,
 float[1,6,1,1] var, float[6,1,1] shift, float[6,6] pixels, float one = {{1.0}}> {{
  a = Conv(x, w1, b1)
  {first}
  r = Relu(n)
  c = Conv<group=6, pads=[1,1,1,1]>(r, w2)
  {second}
  p = GlobalAveragePool(m)
  f = Flatten(p)
  z = MatMul(f, v)
}}
"""


@pytest.mark.parametrize(
    ("first", "second", "folds"),
    [
        ("k = Sub(a, mean) n = Mul(var, k)", "m = Add(shift, c)", "knm"),
        ("n = Div(a, var)", "k = Mul(c, var) l = Add(k, shift) m = Sub(l, one)", "nklm"),
        ("n = Sub(shift, a)", "m = Sum(c, shift, var)", "nm"),
        ("n = Add(a, pixels)", "m = Add(c, c)", ""),
        ("k = Abs(a) n = Add(k, one)", "k2 = Mul(c, c) m = Add(k2, c)", ""),
        ("k = Exp(a) n = Div(one, k)", "m = AveragePool<kernel_shape=[2,2]>(c)", ""),
    ],
)
def test_products_and_sums_by_channel_are_folded_and_nothing_else(
    first: str, second: str, folds: str
) -> None:
    proto = model(WRITTEN_OUT.format(first=first, second=second))
    plain = Mirror(Graph(proto), device="cpu", dtype=torch.float64)
    mirror = folded(plain)
    found = [node.name for node, _ in mirror.steps if node.op_type == "Identity"]
    assert "".join(found) == folds
    x = images(proto, 2)
    expected = plain.trace(x)
    for name, value in mirror.trace(x).items():
        if name in "nmrz" and name in expected:
            assert torch.allclose(value, expected[name], rtol=1e-9, atol=1e-12), name


def test_the_users_graph_is_not_changed_by_folding() -> None:
    proto = model(NORMED)
    before = proto.SerializeToString(deterministic=True)
    folded(Mirror(Graph(proto), device="cpu"))(images(proto, 1))
    assert proto.SerializeToString(deterministic=True) == before


def test_several_outputs_come_by_name_and_the_first_is_the_result() -> None:
    text = """
    g (float[N,3,4,4] x) => (float[N,3,4,4] b, float[N,3,4,4] a) { a = Relu(x)  b = Neg(a) }
    """
    proto = model(text)
    x = images(proto, 2)
    mirror = Mirror(Graph(proto), device="cpu")
    found, expected = mirror.run({"x": x}), run(proto, x)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["a"].numpy(), expected[1])
    np.testing.assert_array_equal(mirror(x).numpy(), expected[0])


def test_a_walk_frees_what_no_later_step_reads() -> None:
    mirror = Mirror(Graph(model(NORMED)), device="cpu")
    envs = [mirror.start(images(mirror.graph.model, count)) for count in (1, 2)]
    for k, step in enumerate(mirror.walk(*envs)):
        needed = {name for node, _ in mirror.steps[k:] for name in node.inputs} | {"z"}
        for env in envs:
            assert env.keys() <= needed
            mirror.execute(step, env)
    assert [list(env) for env in envs] == [["z"], ["z"]]


def test_nodes_that_no_output_depends_on_are_not_run() -> None:
    text = """
    g (float[N,3,4,4] x) => (float[N,3,4,4] a) { a = Relu(x)  b = Unknown.Strange(x) }
    """
    header = '<ir_version: 8, opset_import: ["": 17, "Unknown": 1]>'
    proto = onnx.parser.parse_model(f"{header}{text}")
    assert len(Mirror(Graph(proto), device="cpu").steps) == 1


def test_an_unknown_operator_is_refused_by_name() -> None:
    text = "g (float[N,3,4,4] x) => (float[N,3,4,4] a) { a = Unknown.Strange(x) }"
    header = '<ir_version: 8, opset_import: ["": 17, "Unknown": 1]>'
    proto = onnx.parser.parse_model(f"{header}{text}")
    with pytest.raises(UnsupportedOp, match="Strange 'a': the torch mirror does not know Unknown"):
        Mirror(Graph(proto), device="cpu")


def test_images_that_do_not_fit_are_refused_with_the_node() -> None:
    mirror = Mirror(Graph(model(NORMED)), device="cpu")
    with pytest.raises(InvalidModel, match=r"Conv 'a': torch cannot run it on inputs of shape \[1"):
        mirror(np.zeros((1, 5, 8, 8), np.float32))


def test_a_missing_input_is_named() -> None:
    mirror = Mirror(Graph(model(NORMED)), device="cpu")
    with pytest.raises(InvalidModel, match="input 'x': no value given"):
        mirror.run({})


def test_double_precision_is_exact() -> None:
    mirror = Mirror(Graph(model(NORMED)), device="cpu", dtype=torch.float64)
    x = images(mirror.graph.model, 2)
    assert mirror(x).dtype == torch.float64
    assert relative_error(mirror(x).numpy(), run(mirror.graph.model, x)[0]) < CLOSE


@pytest.mark.gpu
def test_the_gpu_agrees_with_onnxruntime() -> None:
    proto = model(NORMED)
    x = images(proto, 3)
    mirror = folded(Mirror(Graph(proto), device="cuda", dtype=torch.float64))
    assert relative_error(mirror(x).cpu().numpy(), run(proto, x)[0]) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "keep"),
    [("dynamo", False), ("classic", True), ("dynamo", True)],
    ids=["folded", "batchnorm", "batchnorm and casts"],
)
@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "mobilenet_v2"])
def test_whole_networks_agree_with_onnxruntime(
    name: str, exporter: Literal["classic", "dynamo"], keep: bool
) -> None:
    from onnxprune.converters import Options
    from onnxprune.converters.pytorch import export_network
    from onnxprune.converters.torchvision import import_torchvision

    torch.manual_seed(0xBEE)
    net = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    if name == "vgg16_bn":
        net.avgpool = torch.nn.Identity()
        net.classifier = torch.nn.Linear(512 * 4, 10)
    options = Options(input_shape=(3, 64, 64), exporter=exporter, keep_batchnorm=keep)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = export_network(net, name, options).model
    x = images(proto, 2)
    expected = run(proto, x)[0]
    for fold in (False, True):
        plain = Mirror(Graph(proto), device="cpu")
        mirror = folded(plain) if fold else plain
        assert relative_error(mirror(x).numpy(), expected) < DEEP
