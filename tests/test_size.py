"""Twice as large takes about twice as long: of graphs that are large in every way."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

import onnxprune
from onnxprune.errors import NOTICE, OutputError
from onnxprune.report import inspect, layout
from onnxprune.report.layout import MOST_SPOTS, lay_out
from tests.support.long_graphs import GRAPHS

FACTOR = 3.0
"""Times as long for twice the size; at the square it would be 4."""
ATTEMPTS = 8
MANY = {"repeated": 4000, "unknown": 4000, "split": 1000}
"""Inputs or outputs of one node, where they are what is many."""


def seconds(name: str, size: int, svg: Path) -> float:
    proto = GRAPHS[name](size)
    gc.collect()
    begun = time.process_time()
    inspect(proto, svg=svg)
    return time.process_time() - begun


@pytest.mark.parametrize("name", GRAPHS)
def test_time_grows_as_the_graph_does(name: str, tmp_path: Path) -> None:
    svg, size = tmp_path / "drawing.svg", MANY.get(name, 100)
    small = large = float("inf")
    seconds(name, 10, svg)
    for _ in range(ATTEMPTS):  # another process may have been in the way of one
        small = min(small, seconds(name, size, svg))
        large = min(large, seconds(name, 2 * size, svg))
        if large <= FACTOR * small:
            return
    pytest.fail(f"{size} nodes take {small:.2f} s, {2 * size} take {large:.2f} s")


def test_a_drawing_that_nobody_could_read_is_refused() -> None:
    """Lines that lead far need a lane in every layer they cross."""
    count = 2000
    chain = [(k, k + 1) for k in range(count - 1)]
    far = [(k, count - 1) for k in range(count - 2)]
    begun = time.process_time()
    with pytest.raises(OutputError, match=f"more than {MOST_SPOTS:,} boxes and lines"):
        lay_out([(10.0, 10.0)] * count, [*chain, *far])
    assert time.process_time() - begun < 5


def test_a_network_without_anything_to_draw_is_drawn() -> None:
    layout = lay_out([], [])
    assert (layout.centres, layout.lines) == ([], [])


def test_the_page_of_a_network_too_large_to_be_drawn_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(layout, "MOST_SPOTS", 20)
    caplog.set_level(NOTICE)
    onnxprune.prune(
        GRAPHS["residuals"](40),
        control="one-shot",
        criterion="magnitude",
        compensate="none",
        rate=0.3,
        run_dir=tmp_path / "run",
    )
    assert "the network is too large to be drawn" in caplog.text
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "The network has too many layers to be drawn" in page
    assert 'id="drawing"' not in page
