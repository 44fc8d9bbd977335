"""A runtime in a process of its own: what it computes comes back, what goes wrong stays there."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnxprune.data import Inputs
from onnxprune.errors import InvalidModel, MissingPackage, RuntimeFailed, UnknownName
from onnxprune.evaluation import latencies, running
from onnxprune.graph import Graph, copied
from onnxprune.runtimes import (
    RUNTIMES,
    Child,
    Place,
    find_runtime,
    fix_axes,
    running_on,
    runtime_of,
)
from tests.support.models import model
from tests.support.runtimes import write_runtime
from tests.support.wide import wide_net

NET = model(
    """g (float[N, 3, 8, 8] x, float[N, 2] extra) => (float[N, 4] y, float[N, 4] z)
    <float[4, 3, 3, 3] w, float[2, 4] v> {
        c = Conv(x, w) p = GlobalMaxPool(c) f = Flatten(p)
        e = MatMul(extra, v) y = Add(f, e) z = Sub(f, e)
    }"""
)
FEEDS = Inputs(
    {
        "x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32),
        "extra": np.ones((1, 2), np.float32),
    }
)
HERE = Place(threads=1)


def own(folder: Path, **stages: str) -> Child:
    """The process of a runtime that a test writes."""
    return Child(find_runtime(str(write_runtime(folder / "own.py", **stages))), HERE)


def test_what_it_computes_comes_back_under_the_names_of_the_model(tmp_path: Path) -> None:
    fixed = fix_axes(Graph(NET))
    assert fixed.shapes == {"x": (1, 3, 8, 8), "extra": (1, 2)}
    reference = running(NET, "cpu", 1, exact=True)
    expected = reference.run(reference.bind(FEEDS, "cpu"), ("y", "z"))
    with own(tmp_path) as child, running_on(child, fixed) as net:
        assert net.outputs == ("y", "z")
        assert net.batch == 1
        found = net.run(net.bind(FEEDS, "cpu"), net.outputs)
        times = latencies([NET, net], samples=FEEDS, repeats=5, threads=1)
    assert min(times) > 0
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_model_with_fixed_axes_holds_no_weight_again() -> None:
    model = wide_net(40)
    fixed = fix_axes(Graph(model))
    assert fixed.bare.ByteSize() < 2000
    found = copied(fixed.model)
    assert [d.dim_value for d in found.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 2, 2]
    assert list(found.graph.initializer) == list(model.graph.initializer)


def test_what_it_prints_does_not_reach_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with own(tmp_path) as child, running_on(child, fix_axes(Graph(NET))):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("stage", "code", "match"),
    [
        ("converting", "os.kill(os.getpid(), 9)", r"crashed \(SIGKILL\); it said last: more noise"),
        ("loading", "os.kill(os.getpid(), 11)", r"crashed \(SIGSEGV\); it said last: more noise"),
        ("running", "raise ValueError('no\\nsuch thing')", "^ValueError: no$"),
        (
            "loading",
            "raise ValueError('in user code:\\n File x\\n\\n  TypeError: no int')",
            "^ValueError: TypeError: no int$",
        ),
        ("converting", "sys.exit(3)", "gave up with exit code 3; it said last: more noise"),
        ("loading", "os._exit(3)", "ended with exit code 3"),
    ],
)
def test_a_crash_is_an_error_of_one_line(tmp_path: Path, stage: str, code: str, match: str) -> None:
    with own(tmp_path, **{stage: code}) as child, pytest.raises(RuntimeFailed, match=match) as said:
        with running_on(child, fix_axes(Graph(NET))) as net:
            net.run(net.bind(FEEDS, "cpu"))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("code", ["raise ValueError(model)", "print(model); os._exit(3)"])
def test_an_error_names_no_folder_of_ours(tmp_path: Path, code: str) -> None:
    with own(tmp_path, converting=code) as child, pytest.raises(RuntimeFailed) as said:
        with running_on(child, fix_axes(Graph(NET))):
            pass
    assert str(said.value).endswith(" model.onnx")


def test_what_hangs_is_ended(tmp_path: Path) -> None:
    runtime = find_runtime(str(write_runtime(tmp_path / "own.py", converting="time.sleep(60)")))
    started = time.monotonic()
    with Child(runtime, Place(threads=1, limit=5.0)) as child:
        with pytest.raises(RuntimeFailed, match="took longer than 5 s"):
            with running_on(child, fix_axes(Graph(NET))):
                pass
    assert time.monotonic() - started < 30


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPackage, match="not installed; install no_such_package"):
        with own(tmp_path, packages='("no_such_package",)'):
            pass
    with pytest.raises(MissingPackage, match="/no/python does not start"):
        with Child(RUNTIMES["onnxruntime"], Place(python="/no/python")):
            pass


def test_a_runtime_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    with own(tmp_path, converting="return folder / 'none.own'") as child:
        with pytest.raises(RuntimeFailed, match=r"wrote no none\.own; it said last: more noise"):
            with running_on(child, fix_axes(Graph(NET))):
                pass


def test_outputs_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    code = "held = Session(file, threads); held.outputs = ['a']; return held"
    with own(tmp_path, loading=code) as child:
        with pytest.raises(RuntimeFailed, match="has outputs a; expected 2: y, z"):
            with running_on(child, fix_axes(Graph(NET))):
                pass


def test_it_sees_a_variable_that_holds_its_threads(tmp_path: Path) -> None:
    code = "raise ValueError(os.environ['OMP_NUM_THREADS'])"
    with (
        own(tmp_path, converting=code) as child,
        pytest.raises(RuntimeFailed, match="ValueError: 1"),
    ):
        with running_on(child, fix_axes(Graph(NET))):
            pass


def test_runtimes_are_found_by_name_and_by_file() -> None:
    for name, runtime in RUNTIMES.items():
        assert runtime.module.is_file(), name
        assert runtime_of(Path("some") / f"net{runtime.suffix}") is runtime
        assert len(runtime.files(Path(f"net{runtime.suffix}"))) == 1 + bool(runtime.beside)
    assert [f.name for f in RUNTIMES["openvino"].files(Path("a/net.xml"))] == ["net.xml", "net.bin"]
    with pytest.raises(UnknownName, match="did you mean 'openvino'"):
        find_runtime("openvinno")
    with pytest.raises(UnknownName, match="no such file"):
        find_runtime("none.py")
    with pytest.raises(InvalidModel, match="of no known runtime"):
        runtime_of(Path("net.pt"))


def test_onnxruntime_itself_runs_in_a_process() -> None:
    fixed = fix_axes(Graph(NET))
    place = Place(threads=1, python=sys.executable)
    with Child(RUNTIMES["onnxruntime"], place) as child, running_on(child, fixed) as net:
        assert list(child.versions) == ["onnxruntime"]
        found = net.run(net.bind(FEEDS, "cpu"), ("z",))
    assert found["z"].shape == (1, 4)
