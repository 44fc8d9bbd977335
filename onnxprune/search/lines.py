"""States as lines of a journal: floats read back the same to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.evaluation import Accuracy
from onnxprune.search.task import State


def to_line(state: State) -> dict[str, Any]:
    """Return a state as the journal holds it."""
    return {
        "channels": len(state.dead),
        "size": state.size,
        "stopped": state.stopped,
        "limit": state.limit,
        "barred": list(state.barred),
        "halved": state.halved,
        **_way(state),
        "apart": [_way(one) for one in state.apart],
    }


def _way(state: State) -> dict[str, Any]:
    """What a state is of a search that goes down beside another."""
    return {
        "dead": np.flatnonzero(state.dead).tolist(),
        "accuracy": None if state.accuracy is None else state.accuracy.counts(),
        "corrected": state.corrected,
        "since": list(state.since),
        "followed": state.followed,
        "took": state.took,
        "better": state.better,
        "won": state.won,
        "rests": state.rests,
    }


def to_try(state: State, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state that was taken back as the journal holds it, with its figures."""
    line = to_line(state)
    return {**figures, **{key: line[key] for key in ("dead", "accuracy", "corrected")}}


def from_line(line: Mapping[str, Any]) -> State:
    """Return the state of a line of the journal."""
    return replace(
        _from_way(line, line["channels"]),
        size=line["size"],
        stopped=line["stopped"],
        limit=line["limit"],
        barred=tuple(line["barred"]),
        halved=line["halved"],
        apart=tuple(_from_way(one, line["channels"]) for one in line["apart"]),
    )


def _from_way(way: Mapping[str, Any], channels: int) -> State:
    dead = np.zeros(channels, np.bool_)
    dead[way["dead"]] = True
    counts = way["accuracy"]
    return State(
        dead,
        accuracy=None if counts is None else Accuracy.from_counts(counts),
        corrected=way["corrected"],
        since=tuple(way["since"]),
        followed=way["followed"],
        took=way["took"],
        better=way["better"],
        won=way["won"],
        rests=way["rests"],
    )
