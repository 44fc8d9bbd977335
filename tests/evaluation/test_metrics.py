"""Metrics are those of scikit-learn, and those of maps of one pixel those of samples."""

import statistics
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score, top_k_accuracy_score

from onnxprune.data.label_maps import IGNORED
from onnxprune.errors import DataError, OnnxPruneError, UnknownName
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.class_scores import agreement, mean_iou, predict, top_k
from onnxprune.evaluation.metrics import find_metric

CLASSES = 4


def is_probability(row: np.ndarray) -> bool:
    return min(row) >= 0 and abs(sum(row) - 1) <= 1e-3


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


def rows(of: st.SearchStrategy[float], n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(of, min_size=n, max_size=n).map(np.array)


@st.composite
def accuracies(draw: st.DrawFn) -> Accuracy:
    """Counts of 1 to 6 classes, some without samples."""
    n = draw(st.integers(1, 6))
    total = draw(rows(st.integers(0, 9).map(float), n))
    correct = np.floor(total * draw(rows(st.floats(0, 1), n)))
    return Accuracy(correct, total, total * draw(rows(st.floats(0, 1), n)))


def present(values: np.ndarray) -> list[float]:
    return [v for v in values.tolist() if v == v]


@given(accuracies())
def test_means_are_those_of_the_statistics_module(accuracy: Accuracy) -> None:
    seen, soft = present(accuracy.per_class), present(accuracy.soft_per_class)
    assert accuracy.mean == pytest.approx(statistics.fmean(seen) if seen else 0)
    for found, shares in ((accuracy.harmonic, seen), (accuracy.soft_harmonic, soft)):
        assert found == pytest.approx(statistics.harmonic_mean(shares) if shares else 0)


@given(accuracies())
def test_the_harmonic_mean_is_never_above_the_mean(accuracy: Accuracy) -> None:
    assert accuracy.harmonic <= accuracy.mean + 1e-12
    assert accuracy.soft_harmonic <= np.mean(present(accuracy.soft_per_class) or [0]) + 1e-12


@given(accuracies(), st.randoms())
def test_means_do_not_depend_on_the_order_of_classes(accuracy: Accuracy, random: Any) -> None:
    order = list(range(len(accuracy.total)))
    random.shuffle(order)
    parts = (accuracy.correct, accuracy.total, accuracy.probability)
    other = Accuracy(*(part[order] for part in parts))
    assert other.mean == pytest.approx(accuracy.mean)
    assert other.harmonic == pytest.approx(accuracy.harmonic)


def test_a_class_that_is_never_right_makes_the_harmonic_mean_zero() -> None:
    accuracy = Accuracy(np.array([5.0, 0.0]), np.array([5.0, 5.0]), np.array([4.0, 1.0]))
    assert (accuracy.mean, accuracy.harmonic) == (0.5, 0.0)
    assert accuracy.soft_harmonic == pytest.approx(2 / (5 / 4 + 5 / 1))


def test_a_class_without_samples_is_none_in_json() -> None:
    accuracy = Accuracy(np.array([1.0, 0.0]), np.array([2.0, 0.0]), np.zeros(2))
    found = accuracy.to_json()
    assert found.pop("shrunk_harmonic") == pytest.approx(0.5)
    assert found == {"mean": 0.5, "harmonic": 0.5, "per_class": [0.5, None]}
    assert np.isnan(accuracy.per_class[1])


logits_and_labels = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(rows(st.floats(-50, 50), 3), min_size=n, max_size=n).map(np.array),
        rows(st.integers(0, 2), n),
    )
)


@given(logits_and_labels)
def test_counting_is_what_a_loop_would_do(pair: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = pair
    accuracy = top_k(logits, labels)
    for k in range(3):
        mine = logits[labels == k]
        assert accuracy.total[k] == len(mine)
        assert accuracy.correct[k] == sum(int(np.argmax(row)) == k for row in mine)
        true = [row[k] if is_probability(row) else softmax(row[None])[0, k] for row in mine]
        assert accuracy.probability[k] == pytest.approx(sum(true))


@given(logits_and_labels, st.integers(1, 12))
def test_shards_add_up(pair: tuple[np.ndarray, np.ndarray], size: int) -> None:
    logits, labels = pair
    cuts = range(0, len(labels), size)
    shards = [top_k(logits[i : i + size], labels[i : i + size]) for i in cuts]
    joined, whole = reduce(add, shards), top_k(logits, labels)
    np.testing.assert_array_equal(joined.correct, whole.correct)
    np.testing.assert_array_equal(joined.total, whole.total)
    np.testing.assert_allclose(joined.probability, whole.probability)


def test_accuracies_of_different_models_do_not_add_up() -> None:
    two, three = (Accuracy(*np.ones((3, n))) for n in (2, 3))
    with pytest.raises(DataError, match="accuracies of 2 and 3 classes do not add up"):
        two + three


def test_agreement_is_the_share_of_equal_classes() -> None:
    rng, a, y = np.random.default_rng(0), np.eye(4), np.arange(4)

    def same(b: np.ndarray) -> float:
        return agreement(predict(a, y), predict(b, y))

    assert same(3 * a + 1) == 1
    assert same(a[[0, 1, 3, 2]]) == 0.5
    maps = np.moveaxis(np.stack([a, a[::-1]]), -1, 1)[..., None]
    assert predict(maps, np.zeros((2, 4, 1))).tolist() == [
        [[0], [1], [2], [3]],
        [[3], [2], [1], [0]],
    ]
    one = rng.normal(size=(2, 1, 3, 4))
    np.testing.assert_array_equal(predict(one, np.zeros((2, 3, 4))), one[:, 0] > 0)
    values = np.array([0.5, 2.0])
    assert agreement(predict(values, y[:2]), values) == 1, "what has no classes is itself"
    with pytest.raises(DataError, match=r"classes are \[4\] and \[3\]; run both models"):
        same(a[:3])


# Named metrics


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Outputs `[n, classes, H, W]`, no two scores equal, and maps, some pixels not counting."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, height, width = (draw(st.integers(1, 4)) for _ in range(3))
    outputs = rng.normal(size=(n, CLASSES, height, width))
    kinds = draw(st.lists(st.sampled_from([0, 1, 2, 3, IGNORED]), min_size=1, max_size=5))
    return outputs, rng.choice(kinds, (n, height, width))


def counted(outputs: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of scores and the labels of the pixels that count."""
    return np.moveaxis(outputs, 1, -1)[maps != IGNORED], maps[maps != IGNORED]


@given(scenes())
def test_iou_is_that_of_scikit_learn(scene: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = counted(*scene)
    found = mean_iou(*scene).per_class
    assert np.flatnonzero(~np.isnan(found)).tolist() == np.unique(labels).tolist()
    if labels.size:
        expected = jaccard_score(
            labels, scores.argmax(1), labels=np.unique(labels), average=None, zero_division=0
        )
        np.testing.assert_allclose(found[np.unique(labels)], expected)
        table = confusion_matrix(labels, scores.argmax(1), labels=range(CLASSES))
        np.testing.assert_array_equal(mean_iou(*scene).correct, np.diag(table))


@given(scenes(), st.integers(1, CLASSES - 1))
def test_top_k_is_that_of_scikit_learn(scene: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = counted(*scene)
    found = top_k(*scene, k).per_class
    for label in range(CLASSES):
        mine = labels == label
        if not mine.any():
            assert np.isnan(found[label])
            continue
        expected = top_k_accuracy_score(labels[mine], scores[mine], k=k, labels=range(CLASSES))
        assert found[label] == pytest.approx(expected)


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    ties, labels = np.zeros((4, 4)), np.arange(4)
    for k in (1, 2, 3):
        assert top_k(ties, labels, k).correct.tolist() == [1.0] * k + [0.0] * (4 - k)


@given(scenes())
def test_the_soft_form_is_the_mean_probability_over_the_pixels_of_a_class(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = counted(*scene)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for metric in (top_k, mean_iou):
        soft = metric(*scene).soft_per_class
        for label in np.unique(labels):
            assert soft[label] == pytest.approx(shares[labels == label, label].mean())


METRICS = ("top-1", "top-2", "mean-iou")


def same(a: Accuracy, b: Accuracy) -> None:
    np.testing.assert_array_equal(a.per_class, b.per_class)
    np.testing.assert_allclose(a.soft_per_class, b.soft_per_class)


@pytest.mark.parametrize("name", METRICS)
@given(scene=scenes())
def test_maps_of_one_pixel_are_samples(name: str, scene: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = counted(*scene)
    if len(labels):
        metric = find_metric(name)
        same(metric(scores[:, :, None, None], labels[:, None, None]), metric(scores, labels))


@pytest.mark.parametrize("name", METRICS)
@given(scene=scenes())
def test_shards_of_maps_add_up(name: str, scene: tuple[np.ndarray, np.ndarray]) -> None:
    metric, (outputs, maps) = find_metric(name), scene
    shards = [metric(outputs[k : k + 1], maps[k : k + 1]) for k in range(len(maps))]
    same(reduce(add, shards), metric(outputs, maps))


@pytest.mark.parametrize("name", METRICS)
@given(scene=scenes())
def test_larger_maps_are_resized(name: str, scene: tuple[np.ndarray, np.ndarray]) -> None:
    metric, (outputs, maps) = find_metric(name), scene
    same(metric(outputs, maps.repeat(2, axis=1).repeat(3, axis=2)), metric(outputs, maps))


@pytest.mark.parametrize("name", METRICS)
def test_classes_may_be_the_last_axis(name: str) -> None:
    rng = np.random.default_rng(0)
    outputs, maps = rng.normal(size=(3, CLASSES, 5, 6)), rng.integers(0, CLASSES, (3, 5, 6))
    same(find_metric(name)(np.moveaxis(outputs, 1, -1), maps), find_metric(name)(outputs, maps))


@pytest.mark.parametrize("name", ["top-1", "mean-iou"])
def test_one_map_says_object_or_not(name: str) -> None:
    rng = np.random.default_rng(0)
    one, maps = rng.normal(size=(3, 1, 5, 6)), rng.integers(0, 2, (3, 5, 6))
    two = np.concatenate([np.zeros_like(one), one], axis=1)
    metric = find_metric(name)
    same(metric(one, maps), metric(two, maps))
    same(metric(1 / (1 + np.exp(-one)), maps), metric(two, maps))


@pytest.mark.parametrize("name", ["top-1", "mean-iou"])
def test_one_score_says_object_or_not(name: str) -> None:
    rng = np.random.default_rng(0)
    one, labels = rng.normal(size=(9, 1)), rng.integers(0, 2, 9)
    two = np.concatenate([np.zeros_like(one), one], axis=1)
    metric = find_metric(name)
    same(metric(one, labels), metric(two, labels))
    same(metric(1 / (1 + np.exp(-one)), labels), metric(two, labels))
    assert (predict(one, labels) == predict(two, labels)).all()
    with pytest.raises(DataError, match="label 2, expected 0 to 1"):
        metric(one, labels + 1)


def test_a_class_that_is_only_predicted_counts_in_no_mean() -> None:
    outputs = np.eye(3)[None, [0, 2, 1]].transpose(0, 2, 1)[..., None]
    found = mean_iou(outputs, np.array([[[0], [0], [1]]]))
    np.testing.assert_array_equal(found.per_class, [0.5, 1.0, np.nan])
    assert found.harmonic == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("top-4", "metric 'top-4': the model has 4 classes, so the true one is always among 4"),
        ("top-1", "label 4, expected 0 to 3 as the model has 4 classes; label pixels that do not"),
        ("mean-iou", "label 4, expected 0 to 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(name: str, match: str) -> None:
    maps = np.full((1, 2, 2), 3 if name == "top-4" else 4)
    with pytest.raises(DataError, match=match) as caught:
        find_metric(name)(np.zeros((1, 4, 2, 2)), maps)
    assert "\n" not in str(caught.value)


# One's own


USER_MODULE = """
import numpy as np
from onnxprune.evaluation.class_scores import mean_iou, top_k

def iou(outputs, targets):
    return mean_iou(outputs, targets).per_class

def broken(outputs, targets):
    raise ValueError("two\\nlines")

def percent(outputs, targets):
    return [50.0, 0.5, 0.5, 0.5]

def refusing(outputs, targets):
    return top_k(outputs, targets, 9).per_class

def single(outputs, targets):
    return 0.5

def few(outputs, targets):
    return [0.5, 0.5]

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(USER_MODULE)
    return str(tmp_path / "mine.py")


def test_a_metric_of_ones_own_is_its_scores_in_both_forms(own: str) -> None:
    rng = np.random.default_rng(0)
    outputs, maps = rng.normal(size=(3, CLASSES, 5, 6)), rng.integers(0, 3, (3, 5, 6))
    found, shipped = find_metric(f"{own}:iou")(outputs, maps), mean_iou(outputs, maps)
    np.testing.assert_array_equal(found.per_class, shipped.per_class)
    np.testing.assert_array_equal(found.soft_per_class, shipped.per_class)
    own_figures, figures = found.to_json(), shipped.to_json()
    del own_figures["shrunk_harmonic"], figures["shrunk_harmonic"]  # of counts, which it has not
    assert own_figures == figures
    assert np.isnan(found.per_class[3])


def test_a_function_is_a_metric_without_a_name() -> None:
    logits, labels = np.eye(3), np.array([0, 1, 1])
    found = find_metric(lambda outputs, targets: top_k(outputs, targets).per_class)(logits, labels)
    np.testing.assert_array_equal(found.per_class, [1.0, 0.5, np.nan])


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("{}:nothing", UnknownName, "has no 'nothing'; expected a func"),
        ("{}:number", UnknownName, r"is int; expected a function \(outputs, targets\)"),
        ("{}:broken", DataError, "metric '.*:broken': ValueError: two; expected a function"),
        ("{}:refusing", DataError, "metric 'top-9': the model has 4 classes"),
        ("{}:percent", DataError, r"returns shape \[4\], 50.0 among them; expected"),
        ("{}:few", DataError, r"returns shape \[2\]; .*of which there are 3 or more"),
        ("nowhere.py:iou", UnknownName, "nowhere.py:iou: no such file; expected a function"),
        ("iou", UnknownName, "metric 'iou': unknown; expected one of auto, top-1, top-5, mean-iou"),
        ("top-0", UnknownName, "unknown"),
    ],
)
def test_a_metric_that_is_none_is_refused_in_one_line(
    own: str, name: str, kind: type[OnnxPruneError], match: str
) -> None:
    with pytest.raises(kind, match=match) as caught:
        find_metric(name.format(own))(np.zeros((3, 4)), np.arange(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("map", "average precision needs samples with boxes; give data.yaml"),
        ("map50", "average precision needs samples with boxes; give data.yaml"),
        ("fidelity", "the unpruned model's outputs are missing"),
    ],
)
def test_what_compares_with_more_than_labels_is_bound_first(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_metric(name)(np.zeros((1, 4)), np.zeros(1, np.int64))
