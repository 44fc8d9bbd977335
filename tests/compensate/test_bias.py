"""What a correction gives back where the answer is known, and what it leaves as it is."""

from typing import Any

import onnx
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.compensate.methods import compensator
from onnxprune.errors import DataError, UnknownName
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.halves import half
from tests.support.models import relative_error, run
from tests.support.trial import (
    CHAIN,
    CNN,
    CORRECTIONS,
    FLAT,
    FLAT_LAST,
    LINEAR,
    NO_BIAS,
    POOLED,
    PRODUCT,
    SAME,
    TRANSPOSED,
    Array,
    Trial,
    constants,
    ridge_by_lstsq,
    rows_of,
    scaled_error,
    transposed,
)

RESTORED = 1e-4
"""Relative; what a ridge of `TINY` and single precision leave of a difference."""
TINY = 1e-5
"""A ridge just large enough for products summed in single precision."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", CORRECTIONS)
@pytest.mark.parametrize(
    "text", [CHAIN, FLAT, PRODUCT, CNN], ids=["chain", "flat", "matmul", "cnn"]
)
def test_with_nothing_removed_the_model_comes_back_equal(text: str, method: str) -> None:
    trial = Trial(text, [])
    assert trial.compensated(method).SerializeToString() == trial.proto.SerializeToString()


def test_none_is_no_compensation() -> None:
    trial = Trial(CHAIN)
    assert compensator(trial.graph, trial.groups, None, "none") is None


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    trial = Trial(CHAIN)
    with pytest.raises(UnknownName, match="'ridge': unknown; expected one of none, bias, least"):
        compensator(trial.graph, trial.groups, trial.data, "ridge")


@pytest.mark.parametrize("method", CORRECTIONS)
def test_samples_are_asked_for(method: str) -> None:
    trial = Trial(CHAIN)
    with pytest.raises(DataError, match=f"'{method}': needs reference samples; give --data"):
        compensator(trial.graph, trial.groups, None, method)


# What the answer must be


def combine(arrays: dict[str, Array]) -> None:
    """Make filter 2 a combination of filters 0 and 4."""
    arrays["w"][2] = 0.5 * arrays["w"][0] - arrays["w"][4]
    arrays["b"][2] = 3.0


def still(arrays: dict[str, Array]) -> None:
    """Make filters 1 and 4 constant: they see nothing."""
    arrays["w"][[1, 4]] = 0.0
    arrays["b"][[1, 4]] = 0.7, 1.5


@pytest.mark.parametrize("text", [LINEAR, FLAT.replace("Relu", "Identity")], ids=["conv", "flat"])
def test_least_squares_restores_a_combination_of_kept_channels(text: str) -> None:
    trial = Trial(text, [2], change=combine)
    assert trial.error(trial.pruned) > 0.1
    assert trial.error(trial.compensated(ridge=TINY)) < RESTORED


@pytest.mark.parametrize("method", CORRECTIONS)
@pytest.mark.parametrize(
    "text", [CHAIN, NO_BIAS, FLAT, FLAT_LAST, POOLED], ids=["conv", "new", "flat", "nhwc", "pooled"]
)
def test_constant_channels_move_into_the_bias(text: str, method: str) -> None:
    trial = Trial(text, [1, 4], change=still)
    assert trial.error(trial.pruned) > 0.05
    assert trial.error(trial.compensated(method)) < RESTORED


def test_a_dead_channel_leaves_nothing_to_correct() -> None:
    def silence(arrays: dict[str, Array]) -> None:
        arrays["w"][1], arrays["b"][1] = 0.0, -1.0

    trial = Trial(CHAIN, [1], change=silence)
    assert trial.error(trial.compensated()) < RESTORED


def test_bias_restores_the_mean_output_of_a_padded_convolution() -> None:
    trial = Trial(CHAIN.replace("Conv(r", "Conv<pads=[1,1,1,1]>(r").replace("6,6", "8,8"))
    mean = run(trial.proto, trial.x)[0].mean((0, 2, 3))
    found = run(trial.compensated("bias"), trial.x)[0].mean((0, 2, 3))
    assert relative_error(found, mean) < RESTORED


@pytest.mark.parametrize("text", [CHAIN, FLAT, POOLED, pytest.param(TRANSPOSED, marks=transposed)])
def test_least_squares_restores_the_mean_output(text: str) -> None:
    trial = Trial(text)
    expected, found = (run(p, trial.x)[0] for p in (trial.proto, trial.compensated()))
    others = (0, *range(2, expected.ndim))
    assert relative_error(found.mean(others), expected.mean(others)) < RESTORED


# On a whole net


@pytest.mark.parametrize("seed", range(4))
def test_least_squares_lowers_the_error_on_the_references(seed: int) -> None:
    trial = Trial(CNN, samples=24)
    trial.dead = half(trial.groups, seed)
    trial.pruned = remove_channels(trial.graph, trial.groups, trial.dead)
    assert trial.error(trial.compensated()) < 0.6 * trial.error(trial.pruned)


@pytest.mark.parametrize("method", CORRECTIONS)
def test_only_values_change(method: str) -> None:
    trial = Trial(CNN)
    before = trial.pruned.SerializeToString()
    changed = trial.compensated(method)
    assert trial.pruned.SerializeToString() == before
    assert [y.shape for y in run(changed, trial.x)] == [y.shape for y in run(trial.pruned, trial.x)]
    old, new = constants(trial.pruned), constants(changed)
    assert {name: array.shape for name, array in new.items() if name in old} == {
        name: array.shape for name, array in old.items()
    }
    added = new.keys() - old.keys()
    untouched = {name for name in old if (old[name] == new[name]).all()}
    refitted = {"bias": {"b4", "b5"}, "least-squares": {"w2", "w4", "b4", "w5", "b5"}}[method]
    assert untouched == old.keys() - refitted
    assert len(added) == 1  # the second convolution had no bias
    for a, b in zip(trial.pruned.graph.node, changed.graph.node, strict=True):
        assert (a.name, a.op_type, a.output, a.attribute) == (
            b.name,
            b.op_type,
            b.output,
            b.attribute,
        )
        assert set(b.input) - set(a.input) <= added


@pytest.mark.parametrize("method", CORRECTIONS)
def test_a_compensator_has_no_memory_of_its_calls(method: str) -> None:
    trial = Trial(CNN)
    correct = compensator(trial.graph, trial.groups, trial.data, method, device="cpu", batch_size=5)
    assert correct is not None
    other = half(trial.groups, 7)
    correct(remove_channels(trial.graph, trial.groups, other), other)
    again = correct(trial.pruned, trial.dead).SerializeToString()
    assert again == trial.compensated(method, ridge=None).SerializeToString()


# What is left as it is, and the odd ways of storing a weight


def weights_left(text: str, names: str, **options: Any) -> bool:
    trial = Trial(text, **options)
    old, new = constants(trial.pruned), constants(trial.compensated())
    return all((old[name] == new[name]).all() for name in names.split())


def test_shared_weights_stay() -> None:
    text = CHAIN.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[N,4,6,6] z)")
    assert weights_left(text.replace("y = Conv", "z = Conv(a, v)\n  y = Conv"), "v c")


def test_grouped_convolutions_stay() -> None:
    text = CHAIN.replace("[4,6,3,3] v", "[4,3,3,3] v").replace("y = Conv", "y = Conv<group=2>")
    assert weights_left(text, "v c")


def test_half_precision_stays() -> None:
    text = CHAIN.replace("float[", "float16[").replace("float16[N", "float[N")
    text = text.replace("a = Conv(x", "h = Cast<to=10>(x)\n  a = Conv(h")
    text = text.replace("y = Conv(r, v, c)", "q = Conv(r, v, c)\n  y = Cast<to=1>(q)")
    assert weights_left(text, "v c")


TWO = "".join(
    f"  {name} = Constant<value_ints=[{k}]>()\n" for k, name in enumerate(("zero", "one", "two"))
)


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ("t = Concat<axis=1>(r, r)\n  f = Flatten(t)", 48),
        (f"{TWO}  h = Slice(r, zero, two, one)\n  t = Concat<axis=1>(r, h)\n  f = Flatten(t)", 32),
        ("e = Flatten(r)\n  t = Flatten(a)\n  f = Concat<axis=1>(e, t)", 48),
        ("e = Flatten(r)\n  f = BatchNormalization(e, s, q, m, var)", 24),
    ],
    ids=["twice", "two twice", "joined", "normalised"],
)
def test_where_a_map_is_not_plainly_flattened_its_rows_are_channels(change: str, rows: int) -> None:
    text = FLAT.replace("f = Flatten(r)", change).replace("[24,5] v", f"[{rows},5] v")
    more = "float[5] c, float[24] s, float[24] q, float[24] m, float[24] var"
    trial = Trial(text.replace("float[5] c", more if rows == 24 else "float[5] c"), [1, 2])
    alive = trial.alive("f")
    found = rows_of(trial.tensor("f"))
    weight = ridge_by_lstsq(found, found[alive], alive).T @ trial.tensor("v", trial.proto)
    assert scaled_error(trial.tensor("v", trial.compensated()), weight) < SAME


def test_a_convolution_of_a_constant_stays() -> None:
    text = CHAIN.replace(
        "y = Conv(r, v, c)", "s = Add(r, k)\n  y = Conv(s, u)\n  z = Conv(k, v, c)"
    )
    text = text.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[1,4,6,6] z)")
    assert weights_left(
        text.replace("float[4] c", "float[4] c, float[4,6,3,3] u, float[1,6,8,8] k"), "v c"
    )


def test_channels_on_the_batch_axis_stay() -> None:
    text = POOLED.replace("f = Flatten(p)", "f = Flatten(p)\n  t = Transpose<perm=[1,0]>(f)")
    assert weights_left(text.replace("Gemm<transB=1>(f", "Gemm<transA=1, transB=1>(t"), "v c")


def test_a_bias_that_others_read_is_left_to_them() -> None:
    text = CHAIN.replace("y = Conv(r, v, c)", "y = Conv(r, v, c)\n  z = Conv(x, u, c)")
    text = text.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[N,4,8,8] z)")
    trial = Trial(text.replace("float[4] c", "float[4] c, float[4,3,1,1] u"))
    changed = trial.compensated("bias")
    assert (trial.tensor("c", changed) == trial.tensor("c", trial.proto)).all()
    assert run(changed, trial.x)[1].tolist() == run(trial.proto, trial.x)[1].tolist()
    assert trial.error(changed) < trial.error(trial.pruned)


@pytest.mark.parametrize("shape", ["", "[1]", "[1,5]"])
def test_every_form_of_a_row_bias_is_taken(shape: str) -> None:
    trial = Trial(FLAT.replace("float[5] c", f"float{shape or '[]'} c"), [1, 4], change=still)
    assert trial.error(trial.compensated("bias")) < RESTORED


@pytest.mark.parametrize("form", ["computed", "off"])
def test_a_bias_that_cannot_be_moved_is_none(form: str) -> None:
    text = FLAT.replace("y = Gemm", "d = Neg(c)\n  y = Gemm").replace("v, c)", "v, d)")
    trial = Trial(text if form == "computed" else FLAT.replace("beta=2.0", "beta=0.0"))
    assert trial.compensated("bias") == trial.pruned
    assert trial.error(trial.compensated()) < trial.error(trial.pruned)


def test_a_weight_in_a_constant_node_is_refitted() -> None:
    trial = Trial(CHAIN)
    expected = trial.compensated()
    (tensor,) = (t for t in trial.proto.graph.initializer if t.name == "v")
    node = onnx.helper.make_node("Constant", [], ["v"], value=tensor)
    trial.proto.graph.node.insert(0, node)
    trial.proto.graph.initializer.remove(tensor)
    trial.graph = Graph(trial.proto)
    trial.groups = find_groups(trial.graph)
    trial.pruned = remove_channels(trial.graph, trial.groups, trial.dead)
    (found,) = run(trial.compensated(), trial.x)
    assert found.tolist() == run(expected, trial.x)[0].tolist()


def test_old_models_declare_the_new_bias_as_an_input() -> None:
    trial = Trial(NO_BIAS, [1, 4], change=still)
    old = trial.proto
    old.ir_version = 3
    for tensor in old.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        old.graph.input.append(info)
    trial.graph = Graph(old)
    trial.pruned = remove_channels(trial.graph, trial.groups, trial.dead)
    changed = trial.compensated("bias")
    assert len(changed.graph.input) == len(old.graph.input) + 1


@pytest.mark.parametrize("method", CORRECTIONS)
def test_a_model_of_a_fixed_batch_is_compensated_too(method: str) -> None:
    text = FLAT.replace("N,", "4,").replace("f = Flatten(r)", "f = Reshape(r, to)")
    fixed = Trial(
        text.replace("r = Relu", "to = Constant<value_ints=[4,24]>()\n  r = Relu"), [1, 4]
    )
    free = Trial(FLAT, [1, 4])
    found = constants(fixed.compensated(method))
    for name, expected in constants(free.compensated(method)).items():
        assert relative_error(found[name], expected) < SAME
