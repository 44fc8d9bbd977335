"""Whether a network clearly beats guessing, and in which order it has the classes."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from onnxprune.arrays import IntArray
from onnxprune.data import Data
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.guessing import Answers, Hits, every_other
from tests.support.models import model

RNG = np.random.default_rng(0)


def answers(given: IntArray, true: IntArray, classes: int = 10, k: int = 1) -> Answers:
    """The answers of a network that gives these classes."""
    return Answers.of(np.eye(classes, dtype=np.float32)[given], true, k)


def partly(true: IntArray, share: float, classes: int = 10) -> IntArray:
    """Classes of which the first `share` is right, the others one beside."""
    wrong = np.arange(len(true)) % 100 >= 100 * share
    return np.where(wrong, (true + 1) % classes, true)


# What guessing is


def test_a_guesser_is_expected_to_be_right_as_often_as_dealt_answers_are() -> None:
    true = RNG.choice(4, 300, p=[0.6, 0.2, 0.1, 0.1])
    said = RNG.choice(4, 300, p=[0.5, 0.3, 0.1, 0.1])
    dealt = np.mean([(RNG.permutation(said) == true).sum() for _ in range(4000)])
    assert answers(said, true).hits.guessing == pytest.approx(dealt, abs=0.5)


def test_of_several_answers_each_counts() -> None:
    true, scores = RNG.integers(0, 6, 90), RNG.normal(size=(90, 6))
    hits = Answers.of(scores, true, 2).hits
    highest = np.argsort(-scores, axis=1)[:, :2]
    assert hits.right == (highest == true[:, None]).any(1).sum()
    dealt = np.mean([(highest == RNG.permutation(true)[:, None]).any(1).sum() for _ in range(4000)])
    assert hits.guessing == pytest.approx(dealt, abs=0.5)
    assert hits.of == 90


@given(st.integers(2, 40), st.integers(2, 5), st.integers(1, 7))
def test_batches_add_up(samples: int, classes: int, size: int) -> None:
    rng = np.random.default_rng(samples)
    scores, true = rng.normal(size=(samples, classes)), rng.integers(0, classes, samples)
    starts = range(0, samples, size)
    second = every_other(true)
    parts = [
        Answers.of(scores[i : i + size], true[i : i + size], second=second[i : i + size])
        for i in starts
    ]
    assert reduce(add, parts) == Answers.of(scores, true)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_an_evaluator_counts_the_answers_to_all_samples(batch_size: int) -> None:
    scores, true = RNG.normal(size=(7, 4)).astype(np.float32), RNG.integers(0, 4, 7)
    data = Data(scores.reshape(7, 4, 1, 1), true, tuple("abcd"))
    copies = model("g (float[N,4,1,1] x) => (float[N,4] y) { y = Flatten(x) }")
    found = Evaluator(data, threads=1, batch_size=batch_size).answers(copies)
    assert found == Answers.of(scores, true)


# Who beats it


@pytest.mark.parametrize(
    ("right", "of", "guessing", "clear"),
    [
        (28, 200, 20, False),  # the sample, wrongly preprocessed
        (188, 200, 20, True),
        (140, 1000, 100, False),  # significant, and yet no better than guessing
        (30, 1000, 1, True),  # a thousand classes with one image each
        (700, 1000, 1, True),
        (2, 1000, 1, False),
        (0, 20, 0, False),
        (2, 2, 1, True),  # few, and all right
        (4, 5, 2.5, False),
        (9, 10, 5, True),
        (180, 200, 180, False),  # always the most frequent class
        (1, 1, 1, True),
    ],
)
def test_a_network_has_to_be_clearly_better(
    right: int, of: int, guessing: float, clear: bool
) -> None:
    assert Hits(right, of, guessing).clear == clear


@given(st.integers(2, 300), st.floats(0.001, 0.9))
def test_a_guesser_passes_rarely(of: int, share: float) -> None:
    passing = [right for right in range(of + 1) if Hits(right, of, share * of).clear]
    assert sum(binom.pmf(passing, of, share)) <= 0.05 + share**of


def test_a_network_that_always_gives_the_same_class_guesses() -> None:
    true = np.repeat([0, 1, 2], [80, 10, 10])
    hits = answers(np.zeros(100, np.int64), true).hits
    assert (hits.right, hits.guessing, hits.clear) == (80, 80, False)


def test_a_rare_class_that_is_found_is_no_guess() -> None:
    """190 of one class and 10 of another, of which 4 are found and one is made up."""
    true = np.repeat([0, 1], [190, 10])
    said = np.zeros(200, np.int64)
    said[[189, 190, 191, 192, 193]] = 1
    hits = answers(said, true).hits
    assert (hits.right, hits.least, hits.most) == (193, 185, 195)
    assert hits.clear
    said[[191, 192, 193, 10, 20, 30]] = [0, 0, 0, 1, 1, 1]
    assert not answers(said, true).hits.clear


@given(st.integers(2, 60), st.integers(2, 4), st.integers(1, 3))
def test_no_deal_of_the_answers_is_right_more_or_less_often(n: int, classes: int, k: int) -> None:
    rng = np.random.default_rng(n)
    k = min(k, classes - 1)
    scores, true = rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    hits = Answers.of(scores, true, k).hits
    assert hits.most is not None
    for _ in range(20):
        dealt = Answers.of(scores, rng.permutation(true), k).hits
        assert hits.least <= dealt.right <= hits.most


def test_pixels_are_judged_by_their_share_whatever_their_number() -> None:
    true = RNG.integers(0, 3, (4, 16, 16))
    scores = np.moveaxis(np.eye(3)[true], -1, 1)
    assert Answers.of(scores, true).hits.clear
    noise = RNG.normal(size=scores.shape)
    assert not Answers.of(noise, true).hits.clear
    true = RNG.integers(0, 3, (4, 64, 64))
    dull = np.moveaxis(np.eye(3)[np.where(RNG.random(true.shape) < 0.08, true, 0)], -1, 1)
    hits = Answers.of(dull, true).hits
    assert not hits.clear
    assert str(hits).startswith(f"right for {hits.right:,} of 16,384 pixels; guessing is ")
    found = [Hits(5_400, 10_000, 5_000, noun).clear for noun in ("samples", "pixels")]
    assert found == [True, False]


def test_pixels_that_do_not_count_are_no_answers() -> None:
    true = RNG.integers(0, 3, (4, 8, 8))
    true[:, :4] = 255
    assert Answers.of(RNG.normal(size=(4, 3, 8, 8)), true).hits.of == 4 * 4 * 8


# The order of the classes


def test_another_order_of_the_classes_is_found() -> None:
    true, order = np.arange(200) % 10, RNG.permutation(10)
    found = answers(order[partly(true, 0.9)], true)
    assert found.is_out_of_order
    assert dict(found.order) == {k: int(order[k]) for k in range(10)}
    assert found.reordered.right == 180


def test_an_order_that_is_half_right_is_out_of_order_all_the_same() -> None:
    names = sorted(map(str, range(20)))
    true = np.arange(400) % 20
    said = np.array([int(name) for name in names])[true]
    found = answers(said, true, 20)
    assert found.hits.right > 0
    assert found.is_out_of_order


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_classes_in_order_are_left_so(share: float) -> None:
    true = RNG.integers(0, 10, 400)
    said = np.where(RNG.random(400) < share, true, RNG.integers(0, 10, 400))
    assert not answers(said, true).is_out_of_order


@pytest.mark.parametrize("classes", [10, 1000])
def test_chance_has_no_order(classes: int) -> None:
    true, said = RNG.integers(0, classes, (2, 1000))
    found = answers(said, true, classes)
    assert not found.is_out_of_order
    assert not found.hits.clear


def test_one_answer_to_all_is_right_in_no_order() -> None:
    found = answers(np.full(40, 7), np.arange(40) % 2)
    assert (found.reordered.right, found.reordered.guessing) == (20, 20)
    assert not found.reordered.clear and not found.is_out_of_order


def test_one_image_of_each_class_says_nothing_of_their_order() -> None:
    assert not answers(RNG.permutation(300), np.arange(300), 300).is_out_of_order


# What a floor looks at where a class is never right


def of_hits(hits: list[int], each: int) -> Accuracy:
    counts = np.array(hits, np.float64)
    return Accuracy(counts, np.full(len(hits), float(each)), counts)


def test_a_class_counts_as_if_it_had_two_samples_more() -> None:
    found = of_hits([0, 12, 16], 16)
    centre = 28 / 48
    shares = [(hits + 2 * centre) / (16 + 2) for hits in (0, 12, 16)]
    assert found.shrunk_harmonic == pytest.approx(3 / sum(1 / s for s in shares))


def test_a_thousand_classes_with_one_image_each_have_something_to_lose() -> None:
    whole, less = of_hits([1] * 700 + [0] * 300, 1), of_hits([1] * 650 + [0] * 350, 1)
    assert whole.harmonic == less.harmonic == 0
    assert 0.5 < whole.shrunk_harmonic < 0.7
    assert whole.shrunk_harmonic - less.shrunk_harmonic > 0.04


@given(st.lists(st.integers(0, 20), min_size=2, max_size=8), st.data())
def test_a_hit_lost_is_seen(hits: list[int], data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(hits) - 1))
    hits[lost] = max(hits[lost], 1)
    less = hits.copy()
    less[lost] -= 1
    assert 0 <= of_hits(less, 20).shrunk_harmonic < of_hits(hits, 20).shrunk_harmonic <= 1


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=8))
def test_the_shrunk_mean_becomes_the_plain_one_as_counts_grow(shares: list[float]) -> None:
    gaps = []
    for each in (10, 100, 10_000):
        found = of_hits([round(each * share) or 1 for share in shares], each)
        gaps.append(found.shrunk_harmonic - found.harmonic)
    assert gaps[0] >= gaps[1] - 0.02 and abs(gaps[2]) < 1e-3


def test_the_shrunk_mean_is_nearer_the_truth_than_the_plain_one() -> None:
    """Of a hundred classes and five images each the plain one is a half too low."""
    truth = RNG.beta(3.5, 1.5, 100).clip(0.05, 0.99)
    expected = 1 / np.mean(1 / truth)
    found = [of_hits(list(RNG.binomial(5, truth)), 5) for _ in range(200)]
    assert np.mean([one.harmonic for one in found]) < expected - 0.3
    assert np.mean([one.shrunk_harmonic for one in found]) == pytest.approx(expected, abs=0.06)


def test_a_class_that_is_never_right_among_thousands_leaves_something_to_lose() -> None:
    assert of_hits([0] + [9000] * 9, 10_000).shrunk_harmonic > 0.1


def test_probabilities_are_shrunk_alike() -> None:
    one = np.ones(1000)
    sure = Accuracy(one, one, np.append(one[1:], 1e-9))
    assert sure.soft_harmonic < 1e-5
    assert sure.shrunk_soft_harmonic == pytest.approx(0.999, abs=0.01)


def test_many_samples_are_hardly_shrunk_and_none_right_is_0() -> None:
    found = of_hits([50, 90], 100)
    assert found.shrunk_harmonic == pytest.approx(found.harmonic, abs=0.03)
    assert of_hits([0, 0], 9).shrunk_harmonic == 0
    assert Accuracy.from_scores(np.array([np.nan, 0.5])).shrunk_harmonic == pytest.approx(0.5)
