"""Agreement with the unpruned network: what a part is, and that its score is the one by hand."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.data import Head
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.fidelity import FEW, REST, REST_ROWS, Fidelity, collapse, likeness

RNG = np.random.default_rng(0)
N = 24
SHAPES: dict[str, tuple[Head, tuple[int, ...]]] = {
    "classes": (Head("y"), (N, 3)),
    "one score": (Head("y"), (N, 1)),
    "classes of pixels": (Head("y"), (N, 3, 4, 5)),
    "classes last": (Head("y", axis=3), (N, 4, 5, 3)),
    "vector": (Head("y", "vector", 0), (N, 16)),
    "sequence": (Head("y", "sequence", 2), (N, 9, 4)),
    "sequence with an axis of 1": (Head("y", "sequence", 3), (N, 9, 1, 4)),
    "rows": (Head("y", "values", 1), (N, 4, 30)),
    "all in one": (Head("y", "values", 0), (N, 3, 6, 6)),
}


def measured(head: Head, reference: np.ndarray, outputs: np.ndarray) -> Accuracy:
    return Fidelity([head], {"y": reference}).metric({"y": outputs}, np.zeros(len(outputs)))


def case(name: str) -> tuple[Head, np.ndarray, np.ndarray]:
    """A head, reference values, and values that are near them."""
    head, shape = SHAPES[name]
    rng = np.random.default_rng(len(name))
    reference = rng.normal(size=shape).astype(np.float32)
    return head, reference, (reference + 0.3 * rng.normal(size=shape)).astype(np.float32)


# Laws


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_agrees_with_itself(name: str) -> None:
    head, reference, near = case(name)
    whole = measured(head, reference, reference)
    np.testing.assert_allclose(whole.per_class, 1)
    assert whole.harmonic == pytest.approx(1)
    other = measured(head, reference, near)
    assert 0 < other.harmonic < 1 and other.mean < 1
    assert 0 < other.soft_harmonic <= 1


@pytest.mark.parametrize("name", SHAPES)
def test_parts_of_the_samples_add_up(name: str) -> None:
    """Whatever the batches or folds: each sample is held against its own reference."""
    head, reference, near = case(name)
    metric = Fidelity([head], {"y": reference}).metric
    assert metric.adds_up
    whole = metric({"y": near}, np.zeros(N), np.arange(N))
    order = RNG.permutation(N)
    parts = [metric({"y": near[rows]}, rows, rows) for rows in (order[:5], order[5:6], order[6:])]
    added = parts[0] + parts[1] + parts[2]
    np.testing.assert_allclose(added.per_class, whole.per_class, rtol=1e-6)
    np.testing.assert_allclose(added.soft_per_class, whole.soft_per_class, rtol=1e-6)
    assert added.harmonic == pytest.approx(whole.harmonic)


@pytest.mark.parametrize("name", ["classes", "vector", "rows", "all in one"])
def test_what_no_longer_depends_on_the_sample_agrees_in_nothing(name: str) -> None:
    """The mean of the reference is what a network without filters could still say."""
    head, reference, _ = case(name)
    constant = np.broadcast_to(reference.mean(0), reference.shape)
    assert measured(head, reference, constant).harmonic < (0.05 if name == "vector" else 1e-6)


# Class scores


def test_each_class_that_the_reference_gives_has_its_share() -> None:
    wanted = np.repeat([0, 1, 3], [8, 6, 10])
    found = wanted.copy()
    found[[0, 1, 8, 20]] = [1, 3, 3, 0]
    eye = np.eye(4, dtype=np.float32)
    fidelity = Fidelity([Head("y")], {"y": eye[wanted]})
    accuracy = fidelity.metric({"y": eye[found]}, wanted)
    assert fidelity.metric.parts == ("class 0", "class 1", "class 3")
    np.testing.assert_allclose(accuracy.per_class, [6 / 8, 5 / 6, 9 / 10])
    assert accuracy.harmonic == pytest.approx(3 / (8 / 6 + 6 / 5 + 10 / 9))


def test_rare_classes_count_as_one() -> None:
    wanted = np.concatenate([np.zeros(9, int), np.arange(1, 5), np.full(FEW, 6)])
    found = wanted.copy()
    found[9] = 0
    eye = np.eye(7, dtype=np.float32)
    fidelity = Fidelity([Head("y")], {"y": eye[wanted]})
    accuracy = fidelity.metric({"y": eye[found]}, wanted)
    assert fidelity.metric.parts == ("class 0", "class 6", REST)
    np.testing.assert_allclose(accuracy.per_class, [1, 1, 3 / 4])


def test_a_class_of_few_pixels_has_a_score_of_its_own() -> None:
    wanted = np.zeros((2, 3, 4), int)
    wanted[1, 2, 3] = 2
    scores = np.moveaxis(np.eye(3, dtype=np.float32)[wanted], -1, 1)
    fidelity = Fidelity([Head("y")], {"y": scores})
    assert fidelity.metric.parts == ("class 0", "class 2")
    lost = scores.copy()
    lost[1, :, 2, 3] = [1, 0, 0]
    assert fidelity.metric({"y": lost}, wanted).per_class.tolist() == [1, 0]


@pytest.mark.parametrize(("values", "flip"), [((0.9, 0.1), 0.4), ((3.0, -3.0), -0.1)])
def test_one_score_is_yes_or_no(values: tuple[float, float], flip: float) -> None:
    """A probability by a half, a logit by its sign."""
    reference = np.repeat(np.array(values, np.float32), 6)[:, None]
    other = reference.copy()
    other[:2] = flip
    found = measured(Head("y"), reference, other)
    np.testing.assert_allclose(found.per_class, [1, 4 / 6])


# Vectors, rows, several outputs


def test_a_vector_is_seen_from_the_mean_direction() -> None:
    head, reference, near = case("vector")
    shifted = reference + 50  # nearly one direction: plain cosines would all be near 1

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.linalg.norm(x, axis=1)[:, None])

    a, b = unit(shifted.astype(float)), unit((near + 50).astype(float))
    centre = a.mean(0)
    expected = (unit(a - centre) * unit(b - centre)).sum(1).mean()
    assert measured(head, shifted, near + 50).harmonic == pytest.approx(expected, rel=1e-4)
    assert (a * b).sum(1).mean() > 0.999 > expected
    assert measured(head, reference, 7 * reference).harmonic == pytest.approx(1)
    turned = reference * np.where(np.arange(N) < N / 4, -1, 1)[:, None].astype(np.float32)
    assert 0.4 < measured(head, reference, turned).harmonic < 0.6  # what is turned counts below 0


def test_each_row_is_one_minus_error_over_variance() -> None:
    head, reference, near = case("rows")
    error = ((near - reference).astype(float) ** 2).mean((0, 2))
    variance = reference.var(axis=0, dtype=float).mean(1)
    np.testing.assert_allclose(
        measured(head, reference, near).per_class, 1 - error / variance, rtol=1e-5
    )
    assert measured(head, reference, -9 * near).per_class.tolist() == [0, 0, 0, 0]


def test_the_score_of_a_class_that_never_occurs_is_left_out() -> None:
    """Rows of coordinates in pixels, of a score that occurs, and of one that says nothing."""
    head, shape = Head("y", "values", 1), (N, 40)
    coordinates = RNG.uniform(0, 640, shape)
    occurs, never = RNG.random(shape) ** 4, 0.1 * RNG.random(shape)
    constant = np.full(shape, 3.0)
    reference = np.stack([coordinates, occurs, never, constant], 1)
    fidelity = Fidelity([head], {"y": reference})
    assert fidelity.metric.parts == ("row 0", "row 1")
    other = reference.copy()
    other[:, 2:] = 0
    np.testing.assert_allclose(fidelity.metric({"y": other}, other).per_class, [1, 1])


def test_probabilities_that_are_rarely_high_count_as_one() -> None:
    """A note that is heard in few samples is no part of its own: one miss would be all it says."""
    reference = 0.1 * RNG.random((N, 4, 30))
    reference[:, 0] = RNG.random((N, 30))
    for row, often in ((1, FEW), (2, FEW - 1), (3, 1)):
        reference[:often, row, :9] = 0.9
    near = reference.copy()
    near[0, 3] = 0
    fidelity = Fidelity([Head("y", "values", 1)], {"y": reference})
    assert fidelity.metric.parts == ("row 0", "row 1", REST_ROWS)
    error = ((near - reference)[:, 2:] ** 2).sum()
    wanted = 1 - error / (reference.var(0) * N)[2:].sum()
    found = fidelity.metric({"y": near}, near).per_class
    np.testing.assert_allclose(found, [1, 1, wanted])
    alone = Fidelity([Head("y", "values", 1)], {"y": reference[:, :3]})
    assert alone.metric.parts == ("row 0", "row 1", "row 2")


def test_outputs_weigh_alike_whatever_their_number_of_parts() -> None:
    rows, reference, near = case("rows")
    vector, directions, turned = case("vector")
    heads = [Head("a", rows.kind, rows.axis), Head("b", vector.kind, vector.axis)]
    fidelity = Fidelity(heads, {"a": reference, "b": directions})
    assert fidelity.metric.parts == (*(f"a row {k}" for k in range(4)), "b cosine")
    assert fidelity.metric.reads == ("a", "b")
    found = fidelity.metric({"a": near, "b": turned}, np.zeros(N))
    one = measured(rows, reference, near).harmonic
    two = measured(vector, directions, turned).harmonic
    assert found.harmonic == pytest.approx(2 / (1 / one + 1 / two), rel=1e-6)
    batches = [np.arange(10), np.arange(10, N)]
    halves = [fidelity.metric({"a": near[r], "b": turned[r]}, r, r) for r in batches]
    assert (halves[0] + halves[1]).harmonic == pytest.approx(found.harmonic)


# Sequences


words = st.lists(st.integers(0, 3), max_size=7)


@given(words, words)
def test_likeness_is_by_the_edit_distance(a: list[int], b: list[int]) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        here = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(here, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    longest = max(len(a), len(b), 1)
    assert likeness(a, b) == pytest.approx(1 - distance(len(a), len(b)) / longest)


@given(words)
def test_ctc_reads_repeats_once_and_blanks_not_at_all(steps: list[int]) -> None:
    plain: list[int] = []
    last: Any = None
    for step in steps:
        if step not in (last, 0):
            plain.append(step)
        last = step
    assert collapse(np.array(steps, np.int64), 0) == plain


def test_a_sequence_is_scored_by_its_text() -> None:
    """The blank is what is read most often, wherever its number stands."""
    eye = np.eye(5, dtype=np.float32)
    wanted = np.array([[4, 1, 1, 4, 1, 4], [4, 4, 2, 3, 4, 4]])
    found = np.array([[1, 1, 4, 4, 4, 1], [4, 2, 2, 0, 4, 4]])
    head = Head("y", "sequence", 2)
    assert measured(head, eye[wanted], eye[found]).harmonic == pytest.approx((1 + 1 / 2) / 2)
    e = np.exp(eye[found].astype(float))
    soft = np.take_along_axis(e / e.sum(2, keepdims=True), wanted[..., None], 2)[..., 0]
    spoken = wanted != 4
    expected = np.mean([s[k].mean() for s, k in zip(soft, spoken, strict=True)])
    assert measured(head, eye[wanted] + 1, eye[found] + 1).soft_per_class == pytest.approx(expected)
