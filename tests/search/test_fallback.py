"""Where relevance cannot cross a network: what takes its place, and what is said."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxprune
from onnxprune.errors import InvalidModel, UnsupportedOp
from onnxprune.search.assemble import open_model
from onnxprune.search.fallback import with_fallback
from onnxprune.search.settings import Settings
from tests.support.models import images, model

QUICK: dict[str, Any] = {"threads": 1, "device": "cpu"}
SETTINGS = Settings(threads=1, device="cpu")


def net(operator: str, filters: int) -> ModelProto:
    """A classifier of four classes with an operator behind its convolution."""
    return model(f"""
    net (float[N,3,8,8] x) => (float[N,4] y) <float[{filters},3,3,3] w, float[4,{filters}] v> {{
      a = Conv(x, w)
      s = {operator}(a)
      p = GlobalAveragePool(s)
      f = Flatten(p)
      y = Gemm<transB=1>(f, v)
    }}
    """)


def test_a_criterion_that_works_takes_the_place_of_relevance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    proto = net("Sign", filters=6)
    graph, data = open_model(proto, images(proto, 8), SETTINGS)
    found = with_fallback(graph, data, SETTINGS)
    assert found.criterion != SETTINGS.criterion
    (line,) = [r.getMessage() for r in caplog.records if "in place of relevance" in r.getMessage()]
    assert "Sign" in line and f"filters go by '{found.criterion}'" in line
    named = Settings(threads=1, device="cpu", criterion="lrp:epsilon")
    assert with_fallback(graph, data, named) is named


def test_what_another_criterion_destroys_is_refused(tmp_path: Path) -> None:
    """Small weights decide the sign, so the smallest filters by magnitude are not the least."""
    proto = net("Sign", filters=8)
    x = images(proto, 30)
    asked = QUICK | {"macs": 0.2, "round_to": 1, "compensate": "none"}
    with pytest.raises(UnsupportedOp, match=r"nothing is written; ask for less, .* --criterion"):
        onnxprune.prune(proto, x, outputs=["y=values"], run_dir=tmp_path / "run", **asked)
    assert not (tmp_path / "run" / "pruned.onnx").exists()
    named = with_fallback(*open_model(proto, x, SETTINGS), SETTINGS).criterion
    assert onnxprune.prune(proto, x, criterion=named, outputs=["y=values"], **asked).report


def test_a_model_that_does_not_run_is_refused_without_advice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who cannot run it gains nothing from another criterion, nor from an operator of one's own."""
    proto = net("Relu", filters=6)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Mystery", "own.domain"
    proto.opset_import.add(domain="own.domain", version=1)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(InvalidModel, match=r"onnxruntime refuses it: .*own\.domain:Mystery"),
    ):
        onnxprune.prune(proto, (images(proto, 8), np.arange(8) % 4), macs=0.5, **QUICK)
    assert not caplog.records
