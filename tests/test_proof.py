"""What is written runs: a model that does not, or gives other outputs, is never left behind."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import onnxprune
from onnxprune import proof, run
from onnxprune.channels.groups import find_groups
from onnxprune.cli.commands import main
from onnxprune.errors import OutputError, SurgeryError
from onnxprune.graph.graph import Graph
from onnxprune.graph.read_back import reads_back
from onnxprune.graph.storage import load_model, save_model
from onnxprune.search.nets import Nets
from onnxprune.search.plan import Plan
from tests.support.cuts import Cut
from tests.support.halves import half
from tests.support.models import HEADER, model
from tests.support.runs import FREE, samples
from tests.support.small_net import Small

CHAIN = """
g (float[N,3,H,W] x) => (float[N,2,H,W] y) <float[6,3,1,1] w, float[4,6,1,1] v, float[2,4,1,1] u> {
  a = Conv(x, w)
  r = Relu(a)
  b = Conv(r, v)
  s = Relu(b)
  y = Conv(s, u)
}
"""


def test_a_pruned_model_gives_what_the_masked_one_gives(caplog: pytest.LogCaptureFixture) -> None:
    cut = Cut(model(CHAIN))
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        cut.proof(cut.pruned)
    assert "the pruned model gives the outputs of the masked model (" in caplog.text


@pytest.mark.parametrize(("name", "node"), [("w", "a"), ("v", "b"), ("u", "y")])
def test_a_weight_at_the_wrong_place_is_found_and_its_node_named(name: str, node: str) -> None:
    cut = Cut(model(CHAIN))
    if name == "w":
        cut.scaled(name, 1.01)
    else:
        cut.swapped(name)
    with pytest.raises(SurgeryError, match="output 'y' of the pruned model is not") as caught:
        cut.proof(cut.pruned)
    first = f"the first node that differs is Conv '{node}', whose output '{node}' differs by "
    assert first in str(caught.value)


def test_a_correction_that_gives_no_numbers_is_found_and_its_node_named() -> None:
    cut = Cut(model(CHAIN), corrected=True)
    cut.scaled("v", np.nan)
    with pytest.raises(SurgeryError, match=r"it holds NaN, .*; it begins at Conv 'b', whose"):
        cut.proof(cut.pruned)


def test_samples_are_run_where_they_fit() -> None:
    """A fault that only shows on what the samples hold."""
    cut = Cut(model(CHAIN), samples=np.zeros((2, 3, 224, 224), np.float32))
    cut.scaled("w", 1.01)
    with pytest.raises(SurgeryError, match=r"on x \[1, 3, 256, 256\]"):  # of zeros nothing shows
        cut.proof(cut.pruned)


def test_corrected_weights_may_give_others(caplog: pytest.LogCaptureFixture) -> None:
    cut = Cut(model(CHAIN), corrected=True)
    cut.scaled("w", 1.5)
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        cut.proof(cut.pruned)
    assert "the pruned model runs (" in caplog.text
    cut.weight("w").dims[1] = 1
    cut.weight("w").raw_data = cut.weight("w").raw_data[: 4 * cut.weight("w").dims[0]]
    with pytest.raises(SurgeryError, match="the pruned model"):
        cut.proof(cut.pruned)


def test_an_output_of_another_shape_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LARGE", 10)  # ONNX's own check is not asked
    cut = Cut(model(CHAIN))
    last = cut.pruned.graph.node[-1]
    last.output[0] = "z"
    axis = numpy_helper.from_array(np.array([0]), "axis")
    cut.pruned.graph.initializer.append(axis)
    cut.pruned.graph.node.append(onnx.helper.make_node("Unsqueeze", ["z", "axis"], ["y"]))
    del cut.pruned.graph.output[0].type.tensor_type.shape.dim[:]
    cut.pruned.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(
        SurgeryError, match=r"output 'y' .*: it is float32 \[1, 1, 2, 224, 224\], expect"
    ):
        cut.proof(cut.pruned)


def test_an_output_of_another_type_is_found() -> None:
    cut = Cut(model(CHAIN))
    cut.pruned.graph.node[-1].output[0] = "z"
    cut.pruned.graph.node.append(onnx.helper.make_node("Cast", ["z"], ["y"], to=TensorProto.DOUBLE))
    cut.pruned.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(
        SurgeryError, match=r"output 'y' .*: it is float64 \[1, 2, 224, 224\], expected fl"
    ):
        cut.proof(cut.pruned)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_what_is_not_finite_is_found(factor: float) -> None:
    cut = Cut(model(CHAIN))
    cut.scaled("u", factor)
    with pytest.raises(SurgeryError, match="output 'y' of the pruned model is not that"):
        cut.proof(cut.pruned)


def test_what_onnx_refuses_is_found_though_it_runs() -> None:
    cut = Cut(model(CHAIN))
    cut.pruned.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(SurgeryError, match="the pruned model is not valid"):
        cut.proof(cut.pruned)


def test_memory_that_is_exhausted_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    cut = Cut(model(CHAIN))
    monkeypatch.setattr("onnxprune.proof.difference", exhausted)
    cut.proof(cut.pruned)
    assert (
        "could not be checked by running: on x [1, 3, 224, 224]: memory is exhausted" in caplog.text
    )


def reshaped(target: list[int]) -> ModelProto:
    """A model with a target that it states; with [1, ...] it takes a batch of 1 only."""
    return model(f"""
    g (float[N,3,8,8] x) => (float[N,2] y) <float[6,3,1,1] w, float[6,2] v> {{
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      t = Constant<value_ints={target}>()
      f = Reshape(p, t)
      y = MatMul(f, v)
    }}
    """)


def test_a_batch_that_froze_is_found() -> None:
    cut = Cut(reshaped([-1, 6]))
    frozen = numpy_helper.from_array(np.array([1, 3], np.int64), "frozen")
    cut.pruned.graph.initializer.append(frozen)
    for node in cut.pruned.graph.node:
        if node.op_type == "Reshape":
            node.input[1] = "frozen"
    with pytest.raises(
        SurgeryError, match=r"fails on x \[3, 3, 8, 8\], which the unpruned one takes"
    ):
        cut.proof(cut.pruned)


def test_a_model_that_takes_one_batch_only_is_tried_with_that() -> None:
    cut = Cut(reshaped([1, 6]))
    cut.proof(cut.pruned)


def test_a_model_that_does_not_load_is_found() -> None:
    cut = Cut(model(CHAIN))
    cut.pruned.graph.node[0].op_type = "Conv2"
    with pytest.raises(SurgeryError, match="the pruned model"):
        cut.proof(cut.pruned)


UNKNOWN = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[6,3,1,1] w, float[2,6,1,1] v> {
  a = Conv(x, w)
  b = Conv(a, v)
  y = mine.Op(b)
}
"""


def test_a_model_that_no_runtime_knows_is_said_to_be_unchecked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    header = HEADER.replace("]", ', "mine": 1]')
    cut = Cut(model(UNKNOWN, header=header))
    cut.proof(cut.pruned)
    assert "the pruned model could not be checked by running: " in caplog.text
    assert len(caplog.text.splitlines()) == 1


@pytest.mark.parametrize("kind", ["float16", "uint8", "float"])
def test_other_types_of_images_are_made(kind: str) -> None:
    other = "uint8" if kind == "uint8" else kind
    inside = "float" if kind == "uint8" else kind
    cut = Cut(
        model(f"""
        g ({other}[N,3,8,8] x) => ({inside}[N,4,8,8] y)
        <{inside}[6,3,1,1] w, {inside}[4,6,1,1] v> {{
          c = Cast<to={getattr(TensorProto, inside.upper())}>(x)
          a = Conv(c, w)
          y = Conv(a, v)
        }}
        """)
    )
    cut.proof(cut.pruned)
    cut.swapped("v")
    with pytest.raises(SurgeryError, match="output 'y'"):
        cut.proof(cut.pruned)


def test_an_output_that_hangs_on_rounding_is_no_fault() -> None:
    """Which of nearly equal values is the highest says nothing of a pruned model."""
    text = """
    g (float[N,3,8,8] x) => (int64[N] y) <float[6,3,1,1] w, float[64,6,1,1] v> {
      a = Conv(x, w)
      b = Conv(a, v)
      p = GlobalAveragePool(b)
      f = Flatten(p)
      y = ArgMax<axis=1, keepdims=0>(f)
    }
    """
    proto = model(text)
    (v,) = (t for t in proto.graph.initializer if t.name == "v")
    rows = np.repeat(numpy_helper.to_array(v)[:1], 64, axis=0)
    nearly = rows * (1 + 1e-7 * np.random.default_rng(0).standard_normal((64, 1, 1, 1)))
    v.CopyFrom(numpy_helper.from_array(nearly.astype(np.float32), "v"))
    cut = Cut(proto)
    cut.proof(cut.pruned)
    cut.swapped("v")
    cut.proof(cut.pruned)


def test_random_outputs_are_not_compared() -> None:
    cut = Cut(
        model("""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[6,3,1,1] w, float[2,6,1,1] v> {
          a = Conv(x, w)
          b = Conv(a, v)
          n = RandomNormalLike(b)
          y = Add(b, n)
        }
        """)
    )
    cut.proof(cut.pruned)


# Files


def damaged(pruned: ModelProto) -> ModelProto:
    for tensor in pruned.graph.initializer:
        if len(tensor.dims) == 4:
            array = np.roll(numpy_helper.to_array(tensor), 1, axis=1) + np.float32(0.5)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return pruned


def test_a_wrong_model_is_not_written_by_apply(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = find_groups(Graph(small.proto))
    plan = Plan.of(groups, half(groups))
    real = run.remove_channels_apart
    monkeypatch.setattr(
        run, "remove_channels_apart", lambda *given: (damaged(real(*given)[0]), real(*given)[1])
    )
    before = small.path.read_bytes()
    place = tmp_path / "model.onnx"
    place.write_bytes(before)
    with pytest.raises(SurgeryError, match="output 'y' of the pruned model"):
        run.apply_to(place, place, plan)
    assert place.read_bytes() == before and list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("data", [True, False])
def test_a_wrong_model_is_not_written_by_prune(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bool,
) -> None:
    real = Nets.build
    monkeypatch.setattr(Nets, "build", lambda nets, state: damaged(real(nets, state)))
    more = ["--data", str(small.data), "--compensate", "none", "--trust-baseline"] if data else []
    place, folder = tmp_path / "small.onnx", tmp_path / "run"
    given = f"prune {small.path} -o {place} --rate 0.4 --control one-shot --criterion magnitude"
    with pytest.raises(SystemExit) as stop:
        main([*given.split(), "--run-dir", str(folder), *more])
    assert stop.value.code == 1
    assert "output 'y' of the pruned model" in capsys.readouterr().err
    assert not place.exists() and not (folder / "pruned.onnx").exists()


def test_a_file_is_read_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "small.onnx"
    with pytest.raises(OutputError, match="reads back otherwise"):
        save_model(small.proto, place, check=reads_back(model(CHAIN)))
    assert list(tmp_path.iterdir()) == []
    save_model(small.proto, place, check=reads_back(small.proto))
    assert load_model(place) == small.proto


def test_weights_of_a_file_that_fails_are_not_left(tmp_path: Path) -> None:
    proto = model(CHAIN.replace("[6,3,1,1]", "[600,3,1,1]").replace("[4,6,", "[4,600,"))

    def check(path: Path) -> None:
        reads_back(proto)(path)
        raise OutputError("no")

    with pytest.raises(OutputError, match="no"):
        save_model(proto, tmp_path / "m.onnx", limit=1000, check=check)
    assert list(tmp_path.iterdir()) == []
    save_model(proto, tmp_path / "m.onnx", limit=1000)
    before = set(tmp_path.iterdir())
    with pytest.raises(OutputError, match="no"):
        save_model(proto, tmp_path / "m.onnx", limit=1000, check=check)
    assert set(tmp_path.iterdir()) == before and len(before) == 2


def test_a_result_says_that_it_was_checked(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        onnxprune.prune(small.proto, rate=0.4, **FREE)
        onnxprune.prune(small.proto, samples(small), rate=0.4, control="one-shot", threads=1)
    assert caplog.text.count("the pruned model ") == 2


def test_a_large_model_is_loaded_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LARGE", 10)
    cut = Cut(model(CHAIN))
    cut.proof(cut.pruned)
    cut.scaled("w", 2.0)
    cut.proof(cut.pruned)
    cut.pruned.graph.node[2].input[0] = "a"
    cut.proof(cut.pruned)
    del cut.pruned.graph.node[0]
    with pytest.raises(SurgeryError, match="does not load"):
        cut.proof(cut.pruned)
