"""What the campaigns run: a net that is pruned in a second, and the commands that write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from tests.support.models import model
from tests.support.small_net import labelled_by

NET = """
subject (float[N,1,10,10] x) => (float[N,3] y)
<float[16,1,3,3] w1, float[16] b1, float[24,16,3,3] w2, float[24] b2, float[16,24,3,3] w3,
 float[16] b3, float[16,3] w4> {
  one = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(one)
  two = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)
  s = Relu(two)
  three = Conv<pads=[1,1,1,1]>(s, w3, b3)
  t = Relu(three)
  p = GlobalAveragePool(t)
  f = Flatten(p)
  y = MatMul(f, w4)
}
"""
CLASSES, EACH = 3, 6

OLD = b"an output of an earlier day"
"""What stands under the names of outputs before a command begins, where it writes none else."""

MODULE = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 3),
    )
"""


@dataclass(frozen=True)
class Subject:
    """A command, what it reads, and what it writes.

    With `split`, weights lie in a second file although the model is small. `exact` outputs are the
    same bytes in every run. `first` are commands whose outputs it reads. Older files stand under
    the names of its outputs, unless it `replaces` none. `few` are options that make a run of fewer
    steps of it, where every call is tried: those of a later step are those of an earlier one.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    exact: tuple[str, ...]
    first: tuple[tuple[str, ...], ...] = ()
    split: bool = False
    replaces: bool = True
    few: tuple[str, ...] = ()

    @property
    def short(self) -> Subject:
        """The same of a few steps."""
        return replace(self, arguments=self.arguments + self.few)

    @property
    def resumes(self) -> bool:
        """Whether it is a run that goes on."""
        return "--resume" in self.arguments


def _prune(name: str, *how: str, few: tuple[str, ...] = (), split: bool = False) -> Subject:
    data = ("--data", "data.npz", "--threads", "1", "--trust-baseline")
    places = ("-o", "small.onnx", "--plan", "small.json", "--run-dir", "run", "--resume")
    own = tuple(f"run/{one}" for one in ("plan.json", "pruned.onnx", "config.json"))
    outputs = ("small.onnx", "small.json")
    words = ("prune", "model.onnx", *places, *data, *how)
    return Subject(name, words, outputs, (*outputs, *own), split=split, few=few)


PAIRS = (
    _prune(
        "accuracy-aware, least-squares",
        *("--compensate", "least-squares", "--macs", "0.3", "--max-drop", "0.5"),
        few=("--macs", "0.8"),
    ),
    _prune(
        "iterative, bias",
        *("--control", "iterative", "--compensate", "bias", "--rate", "0.6"),
        few=("--rate", "0.2"),
    ),
    _prune(
        "one-shot, none, two files",
        *("--control", "one-shot", "--compensate", "none", "--rate", "0.3"),
        split=True,
    ),
)
"""Runs: three controls, each with another correction; the first has a floor, which three searches
more go down for, and the last writes models of two files."""


def _command(
    name: str, words: str, *outputs: str, exact: bool = True, first: Sequence[str] = (), **how: bool
) -> Subject:
    before = tuple(tuple(one.split()) for one in first)
    held = outputs if exact else ()
    return Subject(name, tuple(words.split()), outputs, held, before, **how)


QUICK = "--data data.npz --threads 1"
RUN = f"prune model.onnx -o {{0}}.onnx --run-dir {{0}} {QUICK} --rate 0.3 --control one-shot"
FROM_TORCH = "convert module.py:build --input-shape 1,10,10 --exporter classic -o net.onnx"
CUT = "prune net.onnx -o cut.onnx --plan cut.json --rate 0.4 --control one-shot"

COMMANDS = (
    _command("apply", "apply model.onnx plan.json -o out.onnx", "out.onnx"),
    _command("apply, two files", "apply model.onnx plan.json -o out.onnx", "out.onnx", split=True),
    _command("score", f"score model.onnx -o out.npz {QUICK}", "out.npz", exact=False),
    _command("inspect", "inspect model.onnx --svg out.svg", "out.svg"),
    _command(
        "compare",
        f"compare model.onnx other.onnx {QUICK} --trust-baseline --markdown out.md --page out.html",
        *("out.md", "out.html"),
        exact=False,
    ),
    _command(
        "curve",
        f"curve model.onnx {QUICK} --test data.npz --method one-shot/random -o curves",
        *(f"curves/curve.{kind}" for kind in ("json", "svg", "png")),
        exact=False,
    ),
    _command(
        "convert",
        "convert module.py:build --input-shape 1,10,10 --exporter classic -o out.onnx",
        "out.onnx",
        exact=False,
    ),
    _command(
        "deploy",
        "deploy model.onnx --to onnxruntime -o edge --threads 1",
        *("edge/model.onnx", "edge/deploy.json"),
        exact=False,
    ),
    _command(
        "deploy, two files",
        "deploy model.onnx --to onnxruntime -o edge --threads 1",
        *("edge/model.onnx", "edge/deploy.json"),
        exact=False,
        split=True,
    ),
    _command("mask", "apply model.onnx plan.json --masked -o out.onnx", "out.onnx"),
    _command("report", "report run", "run/report.html", first=(RUN.format("run"),)),
    _command(
        "report of two",
        "report run more -o both.html",
        "both.html",
        first=tuple(map(RUN.format, ("run", "more"))),
    ),
    _command(
        "reproduce",
        "reproduce run",
        *(f"run/{one}" for one in ("plan.json", "pruned.onnx", "report.json", "about.json")),
        first=(RUN.format("run"),),
        replaces=False,
    ),
    _command(
        "export-weights",
        "export-weights cut.onnx --plan cut.json --module module.py:build -o out.pt",
        "out.pt",
        first=(FROM_TORCH, f"{CUT} --criterion magnitude"),
    ),
)
"""All other commands that write, each with an output that stands there already."""


def lay_out(folder: Path) -> Path:
    """Write what the commands read into a folder."""
    proto = model(NET, seed=29)
    x, y = labelled_by(proto, 600, 10, CLASSES, EACH)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / "model.onnx")
    np.savez(folder / "data.npz", x=x, y=y)
    (folder / "plan.json").write_text('{"format": 1, "removed": {"one": [0, 3]}}')
    (folder / "module.py").write_text(MODULE)
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    other.producer_name = "another"
    onnx.save(other, folder / "other.onnx")
    return folder
