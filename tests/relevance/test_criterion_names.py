"""A criterion is asked for by a name with options, or is a function of one's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxprune.errors import DataError, InvalidModel, UnknownName
from onnxprune.relevance.criteria import find_criterion, score
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import RULES
from onnxprune.search.settings import Settings
from tests.support.scoring import CLOSE, assert_scores, class_means, forward, normalised, setting

# Options


@pytest.mark.parametrize("norm", ["none", "l1", "l2", "max"])
@pytest.mark.parametrize("sign", ["summed", "absolute", "positive"])
def test_signs_and_norms_do_what_they_are_called(sign: str, norm: str) -> None:
    graph, groups, data = setting()
    mirror = Mirror(graph, device="cpu", dtype=torch.float64)
    whole = relevance(mirror, data.x, data.y, RULES["zplus"], ["a", "c"])
    expected = np.zeros((3, 4))
    for name in ("a", "c"):
        values = whole[name].sum((2, 3)).numpy()
        if sign != "summed":
            values = np.abs(values) if sign == "absolute" else np.where(values > 0, values, 0)
        means = class_means(values)
        mean = means.mean(0)
        sizes = {"none": 1, "l1": abs(mean).sum(), "l2": (mean**2).sum() ** 0.5}
        expected += means / (sizes[norm] if norm in sizes else abs(mean).max())
    found = score(graph, groups, data, f"lrp:zplus,{sign},layer-{norm}", device="cpu")
    np.testing.assert_allclose(
        found.values, expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max()
    )


def test_options_come_in_any_order_and_defaults_are_options() -> None:
    graph, groups, data = setting()
    for same in (
        ("lrp", "lrp:epsilon", "lrp:layer-none,absolute", "lrp:absolute,epsilon"),
        ("lrp:zplus@0-0.5,epsilon@0.5-1,layer-l2", "lrp:layer-l2,zplus@0-0.5,epsilon@0.5-1"),
        ("taylor", "taylor:absolute,layer-l2"),
        ("magnitude", "magnitude:l2", "magnitude:layer-l2"),
    ):
        first, *others = (score(graph, groups, data, name, device="cpu").values for name in same)
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("option", ["summed", "absolute", "positive", "layer-none", "layer-max"])
def test_only_relevance_as_it_comes_is_measured_as_damage(option: str) -> None:
    assert find_criterion("lrp:zplus").composite is RULES["zplus"]
    assert find_criterion(f"lrp:zplus,{option}").composite is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "taylor:zplus",
            "criterion 'taylor:zplus', option 'zplus': unknown; expected one of summed, abs",
        ),
        ("lrp:zplus,l2", "LRP rule 'zplus,l2': unknown; expected one of epsilon, zplus"),
        ("magnitude:l3", "magnitude 'l3': unknown; expected one of l1, l2"),
        ("lrp,layer-l3", "LRP rule 'layer-l3': unknown"),
        (
            "nowhere:spread",
            "nowhere:spread: cannot be imported: no module 'nowhere' is insta",
        ),
        (
            "math:pi",
            "math:pi: is float; expected a function .mirror, x, y, tensors. or .weight, rng",
        ),
        ("lrp:", "LRP rule '': unknown"),
        ("lrp:absolute,summed", "criterion 'lrp:absolute,summed': absolute and summed; expected o"),
        ("taylor,layer-l1,layer-l1", ": layer-l1 and layer-l1; expected one of layer-none, lay"),
        ("math:fsum", "criterion 'math:fsum': takes neither 4 nor 2 arguments; expected a func"),
        ("builtins:print", "criterion 'builtins:print': takes 4 arguments as well as 2; expected"),
        ("numpy:nothing", "numpy:nothing: 'numpy' has no 'nothing'; expected"),
    ],
)
def test_names_that_say_nothing_clear_are_refused_in_a_line(name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message) as caught:
        find_criterion(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_criterion_is_answered_with_the_known_ones() -> None:
    graph, groups, data = setting()
    with pytest.raises(UnknownName) as caught:
        score(graph, groups, data, "lpr")
    assert str(caught.value).startswith("criterion 'lpr': unknown; expected one of lrp, taylor, gr")


def test_a_function_of_either_kind_is_refused() -> None:
    def either(mirror: object, x: object, y: object = 0, tensors: object = ()) -> None:
        """Could be called with samples as well as with weights."""

    with pytest.raises(UnknownName, match="either': takes 4 arguments as well as 2; expect"):
        find_criterion(either)


# Criteria of one's own

USER_MODULE = """
def spread(mirror, x, y, tensors):
    trace = mirror.trace(x)
    return {name: trace[name].flatten(2).var(2) for name in tensors}


def largest(weight, rng):
    return abs(weight).max(1)
"""


def spread(mirror: Mirror, x: object, y: object, tensors: list[str]) -> dict[str, torch.Tensor]:
    trace = mirror.trace(x)
    return {name: trace[name].flatten(2).var(2) for name in tensors}


def test_a_criterion_of_ones_own_by_name_and_as_a_function(tmp_path: Path) -> None:
    graph, groups, data = setting()
    (tmp_path / "mine.py").write_text(USER_MODULE, encoding="utf-8")
    a, c, _ = forward(graph, torch.tensor(data.x))
    variances = [class_means(t.var((2, 3)).double().numpy()) for t in (a, c)]
    found = score(graph, groups, data, f"{tmp_path}/mine.py:spread", device="cpu", batch_size=4)
    assert_scores(found, np.asarray(sum(normalised(v) for v in variances)))
    plain = f"{tmp_path}/mine.py:spread,layer-none"
    assert_scores(score(graph, groups, data, plain, device="cpu"), np.asarray(sum(variances)))
    called = score(graph, groups, data, spread, device="cpu", batch_size=4)
    assert np.array_equal(called.values, found.values)
    assert called.criterion.endswith("test_criterion_names:spread")
    assert Settings.of(criterion=spread).criterion == called.criterion
    weights = [graph.constant(n).reshape(4, -1) for n in ("w1", "w2")]
    largest = [np.abs(w).max(1).astype(np.float64) for w in weights]
    found = score(graph, groups, criterion=f"{tmp_path}/mine.py:largest")
    expected = sum(row / np.linalg.norm(row) for row in largest)
    np.testing.assert_allclose(found.values, [expected], rtol=1e-6)


BROKEN = """
def failing(mirror, x, y, tensors):
    raise ValueError("two\\nlines")


def number(mirror, x, y, tensors):
    return 3


def words(weight, rng):
    return "many"
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("failing", "ValueError: two; expected a function .mirror, x, y, tensors. or"),
        ("number", "AttributeError: 'int' object has no attribute 'items'; expected a function"),
        ("words", "ValueError: could not convert string to float: .*; expected a function"),
    ],
)
def test_a_criterion_of_ones_own_that_fails_is_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(BROKEN, encoding="utf-8")
    graph, groups, data = setting()
    with pytest.raises(DataError, match=f"criterion '.*:{name}': {message}") as caught:
        score(graph, groups, data, f"{tmp_path}/mine.py:{name}", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_criterion_of_ones_own_is_held_to_its_shape() -> None:
    graph, groups, data = setting()

    def whole(mirror: Mirror, x: object, y: object, tensors: object) -> dict[str, torch.Tensor]:
        return {"a": torch.zeros(7, 4, 8, 8)}

    with pytest.raises(UnknownName, match="whole: has no name to import it by"):
        score(graph, groups, data, whole, device="cpu")
    whole.__qualname__ = "whole"
    with pytest.raises(InvalidModel, match=r"values of shape \[7, 4, 8, 8\]; expected \[7, 4\]"):
        score(graph, groups, data, whole, device="cpu")
    few = lambda weight, rng: weight[:2, 0]  # noqa: E731
    few.__qualname__ = "few"
    with pytest.raises(InvalidModel, match=r"values of shape \[2\]; expected \[4\]"):
        score(graph, groups, criterion=few)
