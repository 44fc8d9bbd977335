"""A cluster of ray on this machine, whose workers are killed and held up; run by `.ci/scale`."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.engine import cluster, use_engine
from onnxprune.engine.parcels import Parcel
from onnxprune.engine.worker import Call
from onnxprune.errors import EngineFailed
from tests.engine.test_phases import PHASES, pruned
from tests.support.small_net import Small

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def on_two_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cluster for all tests; what ray writes of itself goes to a home of its own."""
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # others use the machine's memory, too
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ["HOME"] = home or ""


Fate = Callable[["Struck", int, Call], None]


class Struck(cluster.RayCrew):
    """Actors of ray to whom something happens with a call."""

    fate: Fate

    def hire(self) -> Any:
        worker = super().hire()
        self.pids = {**getattr(self, "pids", {}), worker: ray.get(worker.pid.remote())}
        return worker

    def give(self, worker: Any, call: Call) -> Any:
        ticket = super().give(worker, call)
        type(self).fate(self, self.pids[worker], call)
        return ticket


def strike(monkeypatch: pytest.MonkeyPatch, fate: Fate) -> None:
    monkeypatch.setattr(Struck, "fate", staticmethod(fate), raising=False)
    monkeypatch.setattr(cluster, "RayCrew", Struck)


@pytest.mark.parametrize("job", PHASES)
def test_a_worker_that_is_killed_costs_nothing(
    small: Small, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, number = PHASES[job]
    alone = pruned(small, options)
    killed: list[int] = []
    jobs: dict[int, Any] = {}

    def kill(_: Struck, pid: int, call: Call) -> None:
        jobs.update(call.places)
        later = call.shards.get(1) is not None and len(call.answers) == number
        place = jobs[call.job]
        parcel = place if isinstance(place, Parcel) else ray.get(place)
        if later and not killed and job.encode() in parcel.content:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    strike(monkeypatch, kill)
    with use_engine("ray", workers=2, threads=1):
        assert pruned(small, options) == alone
    assert len(killed) == 1


def test_a_worker_that_stands_still_is_not_waited_for(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, _ = PHASES["ClassSums"]
    alone = pruned(small, options)
    stopped: list[int] = []

    def stop(_: Struck, pid: int, call: Call) -> None:
        if call.shards.get(3) is not None and not stopped:
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)

    strike(monkeypatch, stop)
    try:
        with use_engine("ray", workers=2, threads=1):
            assert pruned(small, options) == alone
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    assert stopped


def test_curves_are_drawn_on_workers(small: Small, tmp_path: Path) -> None:
    drawn = []
    for name in ("process", "ray"):
        call = ("curve", small.path, "--data", small.data, "--test", small.data, "--seeds", 2)
        options = ("--method", "one-shot/random", "--method", "one-shot/lrp", "--threads", 1)
        words = map(str, (*call, *options, "--engine", name, "-o", tmp_path / name))
        result = CliRunner().invoke(main, [*words], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        drawn.append(json.loads((tmp_path / name / "curve.json").read_text())["methods"])
    for curves in drawn:
        for curve in curves.values():
            del curve["seconds"]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4


def test_the_command_line_writes_the_same_files(small: Small, tmp_path: Path) -> None:
    for name in ("process", "ray"):
        words = ("prune", small.path, "-o", tmp_path / f"{name}.onnx", "--data", small.data)
        more = (
            "--rate",
            0.5,
            "--threads",
            1,
            "--engine",
            name,
            "--plan",
            tmp_path / f"{name}.json",
        )
        result = CliRunner().invoke(main, [*map(str, (*words, *more))], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
    for kind in ("onnx", "json"):
        files = [(tmp_path / f"{name}.{kind}").read_bytes() for name in ("process", "ray")]
        assert files[0] == files[1]


def test_the_function_of_a_users_file_goes_along(small: Small, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "def spread(mirror, x, y, tensors):\n    found = mirror.trace(x)\n"
        "    return {n: found[n].std((2, 3)) for n in tensors}\n"
    )
    model, data = onnxprune.Graph.load(small.path), onnxprune.load_data(small.data, shape=(1, 8, 8))
    groups = onnxprune.find_groups(model)

    def values() -> bytes:
        return onnxprune.score(model, groups, data, f"{own}:spread", device="cpu").values.tobytes()

    alone = values()
    with use_engine("ray", workers=2):
        assert values() == alone


def test_samples_do_not_pass_through_calls(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in the object store once, and calls name them."""
    sizes: list[int] = []

    def weigh(_: Struck, __: int, call: Call) -> None:
        sizes.append(len(ray.cloudpickle.dumps(call.shards)))

    strike(monkeypatch, weigh)
    with use_engine("ray", workers=2):
        pruned(small, PHASES["ClassSums"][0])
    assert max(sizes) < np.load(small.data)["x"].nbytes / 4


def test_no_cluster_at_an_address() -> None:
    ray.shutdown()
    with pytest.raises(EngineFailed, match=r"no cluster at 127\.0\.0\.1:1"):
        with use_engine("ray", address="127.0.0.1:1"):
            pass
