"""NaN and infinity end in one line that names the node where they begin."""

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.data import Data
from onnxprune.errors import InvalidModel
from onnxprune.evaluation import first_not_finite
from onnxprune.relevance import score
from tests.support.cuts import Cut
from tests.support.models import model
from tests.support.runs import samples
from tests.support.small_net import Small

ROOTS = """
g (float[N,3,8,8] x) => (float[N,2] y) <float[6,3,1,1] w, float[4,6,1,1] v, float[4,2] u> {
  a = Conv(x, w)
  r = Sqrt(a)
  b = Conv(r, v)
  p = GlobalAveragePool(b)
  f = Flatten(p)
  y = MatMul(f, u)
}
"""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_none_is_named_before_anything_else(value: float, small: Small) -> None:
    proto = type(small.proto)()
    proto.CopyFrom(small.proto)
    tensor = next(one for one in proto.graph.initializer if len(one.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array[1, 0, 0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    what = "NaN" if np.isnan(value) else "infinity"
    where = rf"^Conv '.*', whose input '{tensor.name}' holds {what}, first at \[1, 0, 0, 0\]; exp"
    for data in (samples(small), None):
        with pytest.raises(InvalidModel, match=where):
            onnxprune.prune(proto, data, rate=0.3, control="one-shot", criterion="magnitude")
    with pytest.raises(InvalidModel, match=where):
        onnxprune.apply(proto, onnxprune.Plan({}))


@pytest.mark.parametrize("criterion", ["lrp", "taylor", "activation"])
def test_a_criterion_names_the_node_that_makes_them(criterion: str) -> None:
    cut = Cut(model(ROOTS))
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    data = Data(x, np.array([0, 1, 0, 1]), ("a", "b"))
    with pytest.raises(InvalidModel, match=f"criterion '{criterion}' .* begins at Sqrt 'r', whose"):
        score(cut.graph, cut.groups, data, criterion)


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "agreement"])
def test_an_evaluation_names_the_node_that_makes_them(labels: bool) -> None:
    proto = model(ROOTS)
    x = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    y = np.array([0, 1] * 3)
    with pytest.raises(InvalidModel, match=r"output 'y' .* begins at Sqrt 'r', whose output 'r' h"):
        onnxprune.prune(proto, (x, y) if labels else x, rate=0.3)


def none(mirror: Any, x: Any, y: Any, tensors: Any) -> Any:
    import torch

    shapes = {name: mirror.graph.shape(name)[axis] for name, axis in tensors.items()}
    return {name: torch.full((len(x), size), torch.nan) for name, size in shapes.items()}


def test_where_the_model_computes_numbers_the_last_layer_is_named(small: Small) -> None:
    with pytest.raises(InvalidModel, match="begins at Conv 'two', while all that the model comp"):
        onnxprune.prune(small.proto, samples(small), rate=0.3, control="one-shot", criterion=none)


def test_infinity_of_a_mask_is_as_it_should_be() -> None:
    masked = model(
        """
        g (float[1,4] x) => (float[1,4] y) <bool[1,4] m = {1,0,1,1}, float[1] low = {-inf}> {
          z = Where(m, x, low)
          s = Softmax(z)
          y = Sqrt(x)
        }
        """
    )
    place = first_not_finite(masked, {"x": np.array([[1, 2, 3, -4]], np.float32)})
    assert place is not None
    assert place.node == "Sqrt 'y'"
