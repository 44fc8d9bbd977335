"""The notation of `Axes`, and what it refuses."""

import pytest

from onnxprune.errors import InvalidOp
from onnxprune.ops.pattern import Axis, letters, parse


def names(pattern: str, operand: int, shape: tuple[int, ...]) -> list[tuple[str, ...]]:
    inputs, _ = parse(pattern)
    return [axis.names for axis, _ in inputs[operand].match(shape, "x")]


def test_rest_takes_the_axes_that_are_left() -> None:
    pattern = "N c * -> N c *"
    assert names(pattern, 0, (1, 4)) == [("N",), ("c",)]
    assert names(pattern, 0, (1, 4, 5, 5)) == [("N",), ("c",), (), ()]
    assert names("* i -> * i", 0, (1, 2, 3)) == [(), (), ("i",)]


def test_sizes_stay_with_their_axes() -> None:
    inputs, outputs = parse("N i *, o i * -> N o *")
    assert [size for _, size in inputs[1].match((6, 4, 3, 3), "w")] == [6, 4, 3, 3]
    assert [axis.letter for axis in outputs[0].axes] == ["N", "o"]


@pytest.mark.parametrize(
    ("axis", "fixed", "letter"),
    [
        (Axis(("c",)), False, "c"),
        (Axis(("N",)), True, "N"),
        (Axis(("G", "o")), False, "o"),
        (Axis(("c", "M")), False, "c"),
        (Axis(("1",)), False, "1"),
    ],
)
def test_lower_case_may_shrink_and_capitals_never(axis: Axis, fixed: bool, letter: str) -> None:
    assert axis.fixed == fixed
    assert axis.letter == letter


def test_the_rest_never_shrinks() -> None:
    inputs, _ = parse("N c * -> N c *")
    assert inputs[0].match((1, 2, 3), "x")[2][0].fixed


def test_a_scalar_has_no_axes() -> None:
    _, outputs = parse("A B -> ")
    assert outputs[0].match((), "y") == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("N c *", "has no '->'"), ("* c * -> c", r"operand '\* c \*' has two rests")],
)
def test_a_malformed_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InvalidOp, match=message):
        parse(pattern)


@pytest.mark.parametrize("shape", [(1,), (1, 2, 3)])
def test_another_rank_is_refused(shape: tuple[int, ...]) -> None:
    inputs, _ = parse("N c -> N c")
    with pytest.raises(InvalidOp, match=f"x has rank {len(shape)}; its pattern names 2 axes"):
        inputs[0].match(shape, "x")


def test_letters_are_capital_where_axes_are_fixed() -> None:
    assert letters(3, ()) == "a b c"
    assert letters(3, [0, 2]) == "A b C"
    assert letters(0, ()) == ""
