"""Known values, computed again as if an axis had another length."""

from onnxprune.graph import Graph, Variation
from tests.support.models import model

TEXT = """
g (float[1,8,6,6] x) => (float[1,8,6,6] y)
<int64[1] four = {4}, int64[4] whole = {1,8,6,6}, int64 zero = {0}, int64 one = {1},
 int64[1] ones = {1}, int64[8] numbers = {0,1,2,3,4,5,6,7}> {
  y = Relu(x)
  s = Shape(y)
  same = Equal(s, whole)
  c = Gather(s, one)
  r = Range(zero, c, one)
  k = Gather(s, ones)
  e = Reshape(numbers, k)
  rest = Add(four, four)
}
"""


def varied(length: int) -> Variation:
    """The values of the text if `y` had another number of channels."""
    graph = Graph(model(TEXT))
    variation = Variation(graph.facts, lambda name: {1: length} if name == "y" else {})
    for node in graph.nodes:
        variation.follow(node)
    return variation


def test_the_elements_that_depend_on_a_length_differ() -> None:
    variation = varied(5)
    assert variation.differs("s").tolist() == [False, True, False, False]
    assert variation.differs("same").tolist() == [False, True, False, False]
    assert not variation.differs("rest").any()
    assert not variation.resizes("s")


def test_a_value_of_another_shape_differs_everywhere() -> None:
    variation = varied(5)
    assert variation.resizes("r")
    assert variation.differs("r").tolist() == 8 * [True]


def test_a_value_that_cannot_be_computed_again_differs_everywhere() -> None:
    """Eight numbers are not five."""
    variation = varied(5)
    assert variation.values["e"] is None
    assert variation.resizes("e")
    assert variation.differs("e").all()


def test_with_the_same_length_nothing_differs() -> None:
    assert varied(8).values == {}
