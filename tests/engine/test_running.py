"""Which engine is used, and what the command line says where it cannot be."""

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.comparison import draw_curves, seeded
from onnxprune.engine import is_spread, use_engine
from onnxprune.errors import MissingPackage, UnknownName
from tests.support.crew import SimulatedCrew, on_crew
from tests.support.small_net import Small


def test_without_an_engine_nothing_leaves_the_process() -> None:
    with use_engine():
        assert not is_spread()
    with on_crew(SimulatedCrew()):
        assert is_spread()
    assert not is_spread()


def test_an_engine_that_does_not_exist() -> None:
    with pytest.raises(UnknownName, match="engine 'spark': unknown; expected one of process, ray"):
        use_engine("spark")


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


def test_ray_that_is_not_installed(no_ray: None) -> None:
    with pytest.raises(MissingPackage, match=r'needs ray; pip install "onnxprune\[ray\]"'):
        with use_engine("ray"):
            pass


def refused(small: Small, folder: Path, *more: str) -> Any:
    output = folder / "scores.npz"
    words = ("score", str(small.path), "--data", str(small.data), "-o", str(output))
    found = CliRunner().invoke(main, [*words, *more])
    assert not output.exists()
    return found


def test_the_command_line_says_that_ray_is_missing(
    small: Small, tmp_path: Path, no_ray: None
) -> None:
    result = refused(small, tmp_path, "--engine", "ray")
    assert result.exit_code == 1
    assert 'pip install "onnxprune[ray]"' in result.stderr


@pytest.mark.parametrize("option", [("--workers", "2"), ("--ray-address", "10.0.0.1:6379")])
def test_options_of_a_cluster_without_one(
    small: Small, tmp_path: Path, option: tuple[str, str]
) -> None:
    result = refused(small, tmp_path, *option)
    assert result.exit_code == 2
    assert "add --engine ray" in result.stderr


def test_curves_and_seeds_are_shared_by_workers(small: Small, one_thread: None) -> None:
    runs = seeded(["one-shot/random"], 3, 2)
    model = onnxprune.Graph.load(small.path).model
    settings = onnxprune.Settings.of(threads=1, device="cpu")

    def drawn() -> list[dict[str, Any]]:
        curves = draw_curves(model, small.data, small.data, runs, settings)
        return [{**curve.to_json(), "seconds": 0} for curve in curves]

    alone = drawn()
    assert alone[0]["mean"] != alone[1]["mean"]
    with on_crew(SimulatedCrew()) as crew:
        assert drawn() == alone
    assert sorted(given for call in crew.calls for given in call.shards.values()) == [
        ("one-shot/random", 3),
        ("one-shot/random", 4),
    ]
