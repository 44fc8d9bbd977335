"""Memory decides how many samples are computed at once, and nothing else."""

import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import memory as of_machine
from onnxprune.cli.commands import main
from onnxprune.compensate import observed
from onnxprune.data import Data
from onnxprune.errors import DataError, OutputError
from onnxprune.graph.graph import Graph
from onnxprune.memory import MEGABYTE, free_bytes
from onnxprune.relevance import memory
from onnxprune.relevance.memory import SMALL, batch_within, on_disk, sample_bytes
from onnxprune.relevance.mirror import Mirror, Tensors
from onnxprune.search.assemble import make_task
from onnxprune.search.settings import Settings
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, model

NET = """
net (float[{batch}, 3, {size}, {size}] x) => (float[{batch}, 3] y)
<float[8, 3, 3, 3] w, float[8] b, float[5, 8, 3, 3] v, float[5] c, float[3, 5] h, float[3] d> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (a)
    e = Conv <pads = [1, 1, 1, 1]> (r, v, c)
    s = Relu (e)
    g = GlobalAveragePool (s)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, h, d)
}}
"""


@cache
def graph(size: int | str = 128, batch: int | str = "N") -> Graph:
    return Graph(model(NET.format(size=size, batch=batch)))


def samples(graph: Graph, count: int = 9) -> Data:
    bright = np.linspace(0.5, 2, count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return Data(images(graph.model, count) * bright, np.arange(count) % 3, ("a", "b", "c"))


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each walk over the mirror had."""
    sizes: list[int] = []
    begin = Mirror.start

    def start(self: Mirror, x: Any) -> Tensors:
        sizes.append(len(x))
        return begin(self, x)

    monkeypatch.setattr(Mirror, "start", start)
    return sizes


@pytest.mark.parametrize(("size", "batch"), [(16, "N"), (24, "N"), (16, 1), (16, 4)])
def test_a_sample_takes_all_that_the_mirror_computes_of_it_twice(
    size: int, batch: int | str
) -> None:
    net = graph(size, batch)
    count = batch if isinstance(batch, int) else 1
    trace = Mirror(net, device="cpu").trace(images(net.model, count))
    made = sum(tensor.nbytes for name, tensor in trace.items() if name != "x")
    assert sample_bytes(net) == 2 * made // count


def test_open_sizes_are_those_of_the_samples() -> None:
    proto = model(NET.format(size="S", batch="N"))
    wide = Graph(proto, input_shapes={"x": (1, 3, 64, 64)})
    assert sample_bytes(wide) == sample_bytes(graph(64))


@given(size=st.integers(1, 64), given_mb=st.integers(1, 200))
def test_the_batch_is_the_largest_that_fits(size: int, given_mb: int) -> None:
    net = graph()
    sample, allowed = sample_bytes(net), given_mb * MEGABYTE
    if sample > allowed:
        with pytest.raises(DataError, match="one sample"):
            batch_within(net, size, given_mb, device="cpu")
        return
    found = batch_within(net, size, given_mb, device="cpu")
    assert 1 <= found <= size
    assert found * sample <= allowed
    assert found == size or (found + 1) * sample > allowed


def test_a_refusal_says_what_one_sample_takes() -> None:
    net = graph()
    with pytest.raises(DataError) as refused:
        batch_within(net, 32, 1, device="cpu")
    text = str(refused.value)
    assert "\n" not in text
    needed = int(text.split("--memory ")[1].split(" ")[0])
    assert batch_within(net, 32, needed, device="cpu") == 1
    with pytest.raises(DataError):
        batch_within(net, 32, needed - 1, device="cpu")


@pytest.mark.parametrize(("free", "batch"), [(0, 1), (1, 1), (4, 1), (8, 2), (12.5, 3), (1000, 32)])
def test_by_default_a_quarter_of_what_is_free_only_lowers_the_batch(
    monkeypatch: pytest.MonkeyPatch, free: float, batch: int
) -> None:
    net = graph()
    monkeypatch.setattr(memory, "free_there", lambda device: int(free * sample_bytes(net)))
    assert batch_within(net, 32) == batch


def test_what_is_free_is_part_of_what_there_is() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert MEGABYTE < free_bytes() <= machine


def test_a_container_may_take_less_than_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    available = SimpleNamespace(available=500 * 1024)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    monkeypatch.setattr(of_machine, "CGROUP", tmp_path)
    assert free_bytes() == 500 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 50000\n")
    assert free_bytes() == 500 * 1024
    (tmp_path / "memory.max").write_text("400000\n")
    assert free_bytes() == 400000 - 300000 + 50000


@pytest.mark.parametrize("given_mb", [4, 7, 11, 2000, None])
@pytest.mark.parametrize("compensate", ["none", "least-squares", "bias"])
def test_results_do_not_depend_on_memory(
    walked: list[int], compensate: str, given_mb: int | None
) -> None:
    net = graph()
    data = samples(net)
    dead = np.zeros(13, np.bool_)
    dead[[1, 4, 9]] = True

    def found(megabytes: int | None, size: int) -> list[npt.NDArray[Any]]:
        settings = Settings.of(
            compensate=compensate, memory=megabytes, batch_size=size, device="cpu", rate=0.5
        )
        task = make_task(net, data, settings)
        assert task.damage is not None
        damage = task.damage(task.graph, task.groups)
        model = remove_channels(task.graph, task.groups, dead)
        corrected = Graph(task.compensate(model, dead) if task.compensate else model)
        scores = task.rank(task.graph, task.groups)
        return [scores, damage.slope, damage.effects, *map(corrected.constant, "vchd")]

    expected = found(2000, 9)
    walked.clear()
    limited = found(given_mb, 9)
    most = 9 if given_mb is None else min(9, given_mb * MEGABYTE // sample_bytes(net))
    assert max(walked) == most
    for one, other in zip(limited, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(("given_mb", "apart"), [(4, True), (2000, False), (None, False)])
def test_what_is_kept_of_all_samples_goes_into_a_file_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, given_mb: int | None, apart: bool
) -> None:
    net, kept = graph(), []

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(on_disk(tensor))
        return kept[-1]

    monkeypatch.setattr(observed, "on_disk", noted)
    settings = Settings.of(compensate="least-squares", memory=given_mb, device="cpu", rate=0.5)
    task = make_task(net, samples(net), settings)
    dead = np.arange(13) % 4 == 0
    assert task.compensate is not None
    task.compensate(remove_channels(net, task.groups, dead), dead)
    assert bool(kept) == apart


@given(
    shape=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    kind=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
@settings(deadline=None)  # the disk is as fast as it is
def test_a_tensor_on_the_disk_is_the_tensor(
    shape: list[int], kind: torch.dtype, layout: torch.memory_format
) -> None:
    tensor = (torch.randn(shape) * 3).to(kind).to(memory_format=layout)
    held = on_disk(tensor)
    assert torch.equal(held, tensor)
    assert held.dtype == tensor.dtype
    assert held.is_contiguous(memory_format=layout)
    assert (held is tensor) == (tensor.nbytes <= SMALL)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"^\S+: no room for 2 MB .*No space left.*--memory$"):
        on_disk(torch.zeros(2 * MEGABYTE // 4 - 1))


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    net = graph()
    data = samples(net)
    (tmp_path / "net.onnx").write_bytes(net.model.SerializeToString())
    np.savez(tmp_path / "data.npz", x=data.x, y=data.y)
    files = {name: str(tmp_path / name) for name in ("net.onnx", "data.npz", "out.npz")}
    asked = ["score", files["net.onnx"], "--data", files["data.npz"], "-o", files["out.npz"]]
    refused = CliRunner().invoke(main, [*asked, "--memory", "1"])
    assert refused.exit_code == 1
    assert "--memory 4 or more" in refused.output
    assert len(refused.output.strip().splitlines()) == 1
    assert CliRunner().invoke(main, [*asked, "--memory", "4"]).exit_code == 0
