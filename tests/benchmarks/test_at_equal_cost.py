"""The comparison at equal costs: every way ends at its goals, and a stopped run goes on."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.channels.groups import find_groups
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.search import Settings
from onnxprune.surgery import count, remove_channels
from tests.benchmarks import at_equal_cost
from tests.benchmarks.at_equal_cost import Case, cell
from tests.benchmarks.comparison_tasks import Sources
from tests.benchmarks.walks import GOALS, Goal, Stopwatch, Way, walk
from tests.support.colours import write_sources


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    return [*write_sources(tmp_path), "--size", "16", "--test-per-class", "6"]


@pytest.fixture
def case(sources: list[str], tmp_path: Path) -> tuple[Graph, Data]:
    given = dict(zip(sources[::2], sources[1::2], strict=True))
    places = {name: Path(given[f"--{name}"]) for name in ("reference", "test", "weights")}
    built = Case("all:5", 0, tmp_path / "case")
    built.build(Sources(**places, size=16, test_per_class=6))
    graph = Graph.load(built.source / "model.onnx")
    return graph, built.references(graph)


class Macs(Stopwatch):
    """Takes the share of the multiply-adds for that of the latency, so that tests do not time."""

    def share(self, model: onnx.ModelProto, patience: float | None = None) -> float:
        return count(Graph(model)).macs / count(Graph(self.unpruned)).macs


@pytest.mark.parametrize(
    "way",
    [
        Way("walk", {"aim": "macs", "round_to": 1}),
        Way("fitted", {"aim": "rate", "round_to": 1}, compensate="least-squares"),
        Way("once", {"control": "one-shot", "criterion": "lrp:zplus", "round_to": 1}),
    ],
    ids=lambda way: way.name,
)
def test_a_way_ends_right_below_its_goals(way: Way, case: tuple[Graph, Data]) -> None:
    graph, data = case
    watch = Macs(graph.model, data.x.shape[1:])
    settings = Settings(threads=1, preprocess="unit")
    found = {r.goal: r for r in walk(way, graph, data, settings, watch, None)}
    assert set(found) == set(GOALS)
    widest = max(costs_of_one(graph))
    for goal, reached in found.items():
        left = watch.share(reached.model)
        assert goal.share - 2 * widest - 0.01 < left <= goal.share


@pytest.mark.slow
def test_what_was_reached_is_kept_and_its_means_are_told(
    sources: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = [*sources, "--task", "all:5", "-o", str(out), "--way", "LRP z+*/none"]
    result = CliRunner().invoke(at_equal_cost.main, [*options, "--seed", "0", "--seed", "1"])
    assert result.exit_code == 0, result.output
    kept = [json.loads(path.read_text()) for path in out.glob("*/LRP*.json")]
    at_half = [p["mean"] for one in kept for p in one["points"] if p["goal"] == "macs 50%"]
    assert len(at_half) == 2
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("| LRP"))
    assert row.split("|")[3].split("/")[0].strip() == f"{np.mean(at_half):.3f}"

    written = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json")}
    again = CliRunner().invoke(at_equal_cost.main, [*options, "--seed", "0", "--seed", "1"])
    assert again.stdout == result.stdout
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_seeds_that_do_not_reach_a_goal_are_told() -> None:
    point = {"goal": "macs 30%", "mean": 0.5, "harmonic": 0.4, "latency": 0.75}
    records = [{"points": [point]}, {"points": []}]
    assert cell(records, Goal("macs", 0.3), 2) == "0.500 / 0.400 (0.75, 1 seeds)"
    assert cell(records, Goal("latency", 0.3), 2) == "out of reach"
    assert cell(records[:1], Goal("latency", 0.3), 2) == ""


def costs_of_one(graph: Graph) -> list[float]:
    """The share of the multiply-adds that each channel has in the unpruned net."""
    groups = find_groups(graph)
    full = count(graph).macs
    return [
        1 - count(Graph(remove_channels(graph, groups, one))).macs / full
        for one in np.eye(len(groups), dtype=np.bool_)
    ]
