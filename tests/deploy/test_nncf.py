"""NNCF as the quantiser, where it is installed; .ci/runtimes nncf installs it."""

from importlib.metadata import version

import pytest

from onnxprune.deploy.int8 import quantise
from onnxprune.deploy.nncf import NncfQuantiser
from onnxprune.progress import heard_by
from onnxprune.search import Floor, Settings, make_evaluator, open_model
from tests.deploy.test_quantiser import named, plain
from tests.support.models import images, relative_error, run

pytest.importorskip("nncf")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_keeps_in_float_what_the_floor_needs() -> None:
    proto = named()
    asked = Settings(threads=1)
    _, data = open_model(proto, plain(proto), asked)
    assert data is not None
    judge = make_evaluator(data, asked)
    quantiser = NncfQuantiser(proto, data)
    assert quantiser.made_by == f"nncf {version('nncf')}"
    found = quantise(quantiser, judge, Floor(max_drop=0.05))
    assert found.accuracy.harmonic > 0.95
    kinds = [node.op_type for node in found.model.graph.node]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds)
    x = images(proto, 2, seed=5)
    assert relative_error(run(found.model, x)[0], run(proto, x)[0]) < 0.2


def test_each_calibration_is_told() -> None:
    proto, heard = named(), list[tuple[str, int, int]]()
    quantiser = NncfQuantiser(proto, plain(proto))
    with heard_by(lambda *said: heard.append(said)):
        quantiser([])
    assert ("calibrating", 0, 12) in heard and ("calibrating", 11, 12) in heard


def test_what_is_kept_is_not_quantised() -> None:
    proto = named()
    quantiser = NncfQuantiser(proto, plain(proto))
    x = images(proto, 2, seed=5)
    assert relative_error(run(quantiser(list(quantiser.nodes)), x)[0], run(proto, x)[0]) < 1e-6
