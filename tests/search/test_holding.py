"""What an output holds is read off its values: made here so that one knows what they are."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from onnxprune.data import KINDS, Head
from onnxprune.evaluation import likely_rows
from onnxprune.graph import Graph
from onnxprune.search.holding import head_of, measured, say, shared_places
from tests.support.models import model

Array = npt.NDArray[np.float64]
N = 40


def graph(behind: str = "z = Identity(y)") -> Graph:
    """A graph of any shapes, with a node that reads its output."""
    text = "net (float[N,A,B,C] x) => (float[N,D,B,C] z)"
    return Graph(model(f"{text} {{ y = Concat<axis=1>(x, x)  {behind} }}"))


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=(N, *shape))


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def logits(classes: int) -> Array:
    """Numbers of which one stands out."""
    x = normal(classes)
    x[np.arange(N), np.arange(N) % classes] += 12
    return x


def letters(steps: int, classes: int, choices: int = 20) -> Array:
    """Numbers of which one stands out at every step."""
    x = normal(steps, classes)
    k = np.random.default_rng(1).integers(0, choices, (N, steps, 1))
    np.put_along_axis(x, k, 12, 2)
    return x


def boxes() -> Array:
    """Four coordinates in pixels and three scores of 100 places."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0, 640, (N, 4, 100)), rng.random((N, 3, 100)) ** 4], 1)


def offsets() -> Array:
    """Corners of a box of any size around each of 300 places, its sides, and some points in it."""
    rng = np.random.default_rng(0)
    side = rng.uniform(10, 200, (N, 300, 1))
    return np.asarray(side * rng.normal([0] * 2 + [1] * 2 + [0.1] * 12, 0.2, (N, 300, 16)))


def mixed(places: int, columns: int) -> Array:
    """Numbers of boxes, and probabilities."""
    x = np.random.default_rng(0).random((30, places, columns))
    x[..., :4] *= 100
    return x


HELD: dict[str, tuple[Callable[[], Array], str, int]] = {
    "probabilities": (lambda: softmax(normal(7), 1), "classes", 1),
    "logits": (lambda: logits(10), "classes", 1),
    "logits of many classes": (lambda: logits(200), "classes", 1),
    "logits of four classes": (lambda: logits(4), "classes", 1),
    "logits of two classes": (lambda: logits(2), "classes", 1),
    "probabilities of pixels": (lambda: softmax(normal(5, 6, 7), 1), "classes", 1),
    "probabilities of pixels, last": (lambda: softmax(normal(6, 7, 5), 3), "classes", 3),
    "probabilities along a sequence": (lambda: softmax(normal(12, 9), 2), "sequence", 2),
    "the same, classes first": (lambda: softmax(normal(9, 12), 1), "sequence", 1),
    "the same, an axis of one": (lambda: softmax(normal(12, 1, 9), 3), "sequence", 3),
    "logits along a sequence": (lambda: letters(12, 40), "sequence", 2),
    "letters between blanks": (lambda: letters(40, 90, choices=3), "sequence", 2),
    "the same logits, an axis of one": (lambda: letters(12, 40)[:, :, None], "sequence", 3),
    "a feature that is always large": (lambda: letters(12, 40, choices=1), "values", 1),
    "logits of places": (lambda: letters(1200, 20), "values", 2),
    "unit vectors": (lambda: unit(normal(128)), "vector", 0),
    "unit vectors without a sign": (lambda: unit(np.abs(normal(128))), "vector", 0),
    "vectors of many lengths": (lambda: 3 * normal(128), "vector", 0),
    "vectors that end in a ReLU": (lambda: np.maximum(normal(128) + 3, 0), "vector", 0),
    "the same, of samples that are alike": (
        lambda: np.maximum(normal(128) / 9 + 3, 0),
        "vector",
        0,
    ),
    "vectors that are hardly apart": (lambda: normal(128) / 99 + normal(128)[:1], "vector", 0),
    "vectors in a row of places of one": (lambda: np.abs(normal(1, 1, 96)), "vector", 0),
    "numbers of many kinds, too few for a vector": (lambda: 100 + normal(12), "values", 1),
    "coordinates": (lambda: 100 + 5 * normal(4), "values", 1),
    "signed offsets": (lambda: 3 * normal(4), "values", 1),
    "the same, all high or low": (lambda: 3 * normal(4) + 9 * normal(1), "values", 1),
    "offsets of boxes and points": (offsets, "values", 2),
    "boxes": (boxes, "values", 1),
    "boxes, last": (lambda: boxes().transpose(0, 2, 1), "values", 2),
    "an image": (lambda: normal(3, 16, 16), "values", 1),
    "a map": (lambda: normal(1, 16, 16) ** 2, "values", 0),
    "a map, last": (lambda: normal(9, 12, 1) ** 2, "values", 0),
    "a table of boxes": (lambda: normal(1, 50, 7) ** 2, "values", 3),
    "a table of boxes, an axis of one last": (lambda: normal(50, 7, 1) ** 2, "values", 2),
    "a number": (lambda: normal(1), "values", 0),
    "notes over time": (lambda: 1 / (1 + np.exp(-normal(172, 88))), "values", 0),
    "bands over time, turned": (lambda: normal(72, 100), "values", 0),
    "boxes beside many scores": (lambda: mixed(100, 84), "values", 2),
    "a longer table": (lambda: normal(300, 84), "values", 2),
    "a narrower one": (lambda: normal(80, 60), "values", 2),
}


@pytest.mark.parametrize(("make", "kind", "axis"), HELD.values(), ids=HELD)
def test_what_an_output_holds_is_read_off_its_values(
    make: Callable[[], Array], kind: str, axis: int
) -> None:
    head = head_of(graph(), "y", make())
    assert (head.tensor, head.kind, head.axis) == ("y", kind, axis)


@pytest.mark.parametrize(
    ("behind", "axis"),
    [
        ("z = Softmax<axis=1>(y)", 1),
        ("z = Softmax<axis=-1>(y)", 3),
        ("z = Softmax(y)", 3),
        ("z = LogSoftmax<axis=2>(y)", 2),
        ("a = ArgMax<axis=1>(y)  z = Cast<to=1>(a)", 1),
        ("a = ArgMax<axis=-1>(y)  z = Cast<to=1>(a)", 3),
    ],
)
def test_what_is_read_by_a_softmax_or_arg_max_is_class_scores(behind: str, axis: int) -> None:
    head = head_of(graph(behind), "y", normal(5, 6, 7))
    assert (head.kind, head.axis) == ("classes", axis)


def test_the_axis_of_a_run_of_one_sample_is_one_further() -> None:
    """A tensor `[T, 1, K]` becomes `[n, T, 1, K]`."""
    text = "net (float[T,N,K] x) => (float[T,N,K] z) { y = Relu(x)  z = Softmax<axis=2>(y) }"
    head = head_of(Graph(model(text)), "y", normal(12, 1, 9))
    assert (head.kind, head.axis) == ("sequence", 3)


@pytest.mark.parametrize(
    ("name", "kind"), [("logits", "classes"), ("embedding", "vector"), ("y", "values")]
)
def test_a_name_says_what_numbers_alone_do_not(name: str, kind: str) -> None:
    assert head_of(graph(), name, np.abs(normal(15)) + 5).kind == kind
    assert head_of(graph(), "probs", softmax(normal(20), 1) * 0.5 + 0.25).kind == "values"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_given_is_not_guessed(kind: str) -> None:
    for values in (normal(12, 9), softmax(normal(12, 9), 2)):
        head = head_of(graph(), "y", values, kind)
        assert head.kind == kind
        assert not head.is_scores or head.axis == 2
    assert say(Head("y", kind, 2), (N, 12, 9)).startswith(f"output 'y' [N, 12, 9] is {KINDS[kind]}")


@pytest.mark.parametrize("move", ["y = Identity(s)", "t = Identity(s)  y = Cast<to=1>(t)"])
def test_what_a_sigmoid_gives_are_numbers_of_their_own(move: str) -> None:
    text = "net (float[N,80] x) => (float[N,80] y) { s = Sigmoid(x) " + move + " }"
    values = 1 / (1 + np.exp(-normal(80)))
    assert head_of(Graph(model(text)), "y", values).kind == "values"
    assert head_of(graph(), "y", values).kind == "vector"


@pytest.mark.parametrize(("axis", "said"), [(0, "all of them together"), (1, "each row of them")])
def test_it_is_said_whether_numbers_are_judged_by_rows(axis: int, said: str) -> None:
    line = say(Head("y", "values", axis), (9, 172, 88))
    assert line.startswith(f"output 'y' [N, 172, 88] is numbers: {said}")


# Deviations


def deviation(head: Head, x: np.ndarray) -> np.ndarray | None:
    return measured(head, x).deviation


def test_a_deviation_is_that_of_each_row_over_samples_at_its_place() -> None:
    x = normal(3, 30) * np.array([1.0, 5, 20])[:, None] + np.arange(30)
    found = deviation(Head("y", "values", 1), x)
    assert found is not None and found.shape == (1, 3, 1)
    np.testing.assert_allclose(found.ravel(), np.sqrt(x.var(axis=0).mean(1)))
    whole = deviation(Head("y", "values", 0), x)
    assert whole is not None
    np.testing.assert_allclose(whole.ravel(), [np.sqrt(x.var(axis=0).mean())])


def test_rows_that_count_as_one_have_a_deviation_in_common() -> None:
    x = np.full((30, 3, 20), 0.1)
    x[:, 0] = np.random.default_rng(0).random((30, 20))
    x[0, 1, :2] = x[1, 2, :5] = 0.9
    found = deviation(Head("y", "values", 1), x)
    assert found is not None
    own = x.var(axis=0).mean(1)
    np.testing.assert_allclose(found.ravel() ** 2, [own[0], *[own[1:].mean()] * 2])


def test_what_hardly_varies_has_no_weight() -> None:
    x = normal(3, 30)
    x[:, 1] = 7
    found = deviation(Head("y", "values", 1), x)
    assert found is not None and np.isinf(found.ravel()).tolist() == [False, True, False]
    assert deviation(Head("y", "classes", 1), x) is None


def boxes(samples: int = 30, places: int = 40) -> np.ndarray:
    """Four numbers and two scores at each place; two places of a sample show something."""
    rng = np.random.default_rng(0)
    x = np.zeros((samples, 6, places))
    x[:, :4] = rng.normal(size=(samples, 4, places)) * 20
    for one in x:
        shown = rng.permutation(places)[:2]
        one[4 + rng.integers(2), shown] = 0.8
        one[:4, shown] /= 10
    return x


def test_scores_beside_boxes_are_seen() -> None:
    assert likely_rows(Head("y", "values", 1), boxes()) == (4, 5)


@pytest.mark.parametrize("what", ["no box", "no score", "everywhere", "nowhere", "one row"])
def test_other_numbers_are_not_taken_for_scores(what: str) -> None:
    x = boxes()
    if what == "no box":
        x = x[:, 3:]
    elif what == "no score":
        x[:, 4:] *= 2
    elif what == "everywhere":
        x[:, 4:] = 0.5 + x[:, 4:] / 2
    elif what == "nowhere":
        x[:, 4:] *= 0.1
    assert likely_rows(Head("y", "values", 0 if what == "one row" else 1), x) == ()


def test_what_several_outputs_say_of_the_same_places_is_no_sequence() -> None:
    boxes, scores, letters_, shares = normal(300, 4), normal(300, 1) - 9, letters(300, 40), 0.5
    places = shared_places([boxes, scores, normal(20), normal(7, 300)])
    assert places == {300}
    assert shared_places([boxes, normal(20), normal(20)]) == set()
    for values, kind, axis in (
        (scores, "values", 0),
        (letters_, "values", 2),
        (softmax(normal(300, 6), 2), "classes", 2),
        (shares * softmax(normal(300, 6), 2), "values", 2),
    ):
        head = head_of(graph(), "class_scores", values, places=places)
        assert (head.kind, head.axis) == (kind, axis)
    assert head_of(graph(), "y", scores, "classes", places).kind == "classes"
    assert head_of(graph(), "y", letters(12, 40), places=places).kind == "sequence"


def test_an_output_like_an_input_is_a_state_and_no_class_scores() -> None:
    state = Graph(model("net (float[N,10] x) => (float[N,10] y) { y = Relu(x) }"))
    text = "net (float[N,4] x) => (float[N,10] y) <float[4,10] w> { y = MatMul(x, w) }"
    assert head_of(state, "y", logits(10)).kind == "values"
    assert head_of(Graph(model(text)), "y", logits(10)).kind == "classes"
