"""Runs of the small net: what is asked for, and what may be read of their records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from onnxprune.data import Data
from tests.support.models import run
from tests.support.small_net import Small

FREE: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "threads": 1}
"""Needs no samples."""


CONTROLS = ("one-shot", "iterative", "accuracy-aware", "dpx")


def params(proto: ModelProto) -> int:
    return sum(numpy_helper.to_array(t).size for t in proto.graph.initializer)


def samples(small: Small) -> Data:
    return Data(small.x, small.y, ("a", "b", "c"))


def harmonic(proto: ModelProto, small: Small) -> float:
    right = run(proto, small.x)[0].argmax(1) == small.y
    shares = np.array([right[small.y == k].mean() for k in range(3)])
    return 0.0 if not shares.all() else float(3 / (1 / shares).sum())


def journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a journal, less what the clock says."""
    lines = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
