"""Labels against sets: unions one at a time, in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.channels.labels import KEPT, Labels, Reason
from onnxprune.channels.placement import count_classes
from onnxprune.ops.array import FREE

WHY = Reason("why")
LABEL = st.integers(FREE, 12)
PAIRS = st.lists(st.tuples(LABEL, LABEL), max_size=20)
ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(LABEL, min_size=width, max_size=width), min_size=1, max_size=5)
)


def united(pairs: list[tuple[int, int]]) -> list[set[int]]:
    """The classes of the labels 1 to 12, KEPT among them where it is met; FREE ties nothing."""
    classes = [{k} for k in range(13)]
    for a, b in pairs:
        if FREE not in (a, b):
            left = next(c for c in classes if a in c)
            right = next(c for c in classes if b in c)
            if left is not right:
                classes.remove(right)
                left |= right
    return classes


def of(labels: Labels) -> list[int]:
    return labels.solve().of.tolist()


@given(PAIRS)
def test_pinned_labels_are_those_united_with_kept(pairs: list[tuple[int, int]]) -> None:
    labels = Labels()
    labels.fresh(12)
    for a, b in pairs:
        labels.unite(np.array([a]), np.array([b]), WHY)
    solved = labels.solve()
    kept = next(c for c in united(pairs) if KEPT in c) - {KEPT}
    assert {k for k in range(1, 13) if int(solved.of[k]) in solved.reason} == kept


@given(PAIRS.map(lambda pairs: [(a, b) for a, b in pairs if KEPT not in (a, b)]))
def test_classes_are_those_of_unions_one_at_a_time(pairs: list[tuple[int, int]]) -> None:
    together, alone = Labels(), Labels()
    for labels in (together, alone):
        labels.fresh(12)
    left, right = (np.array(side, np.int64) for side in zip(*pairs or [(1, 1)], strict=True))
    together.unite(left, right, WHY)
    for a, b in pairs:
        alone.unite(np.array([b]), np.array([a]), WHY)
    expected = united(pairs)
    for found in (of(together), of(alone)):
        for a in range(1, 13):
            tied = {b for b in range(1, 13) if found[a] == found[b]}
            assert tied == next(c for c in expected if a in c)


@given(ROWS)
def test_rows_tie_all_their_labels(rows: list[list[int]]) -> None:
    labels = Labels()
    labels.fresh(12)
    names = labels.unite_rows(np.array(rows), WHY)
    solved = labels.solve()
    for row, name in zip(rows, names.tolist(), strict=True):
        own = {label for label in row if label > KEPT}
        assert len({int(solved.of[label]) for label in own}) <= 1
        assert name == (KEPT if KEPT in row else max(row))
        if KEPT in row:
            assert all(solved.reason[int(solved.of[label])] for label in own)


@given(ROWS)
def test_classes_of_rows_are_counted_as_those_of_unions(rows: list[list[int]]) -> None:
    parent = {label: label for row in rows for label in row}

    def find(label: int) -> int:
        return label if parent[label] == label else find(parent[label])

    for row in rows:
        for label in row:
            parent[find(label)] = find(row[0])
    assert count_classes(np.array(rows)) == len({find(label) for label in parent})


def test_fresh_labels_are_nobody_elses() -> None:
    labels = Labels()
    a, b = labels.fresh(3), labels.fresh(2)
    assert a.tolist() == [1, 2, 3]
    assert b.tolist() == [4, 5]
    assert not {FREE, KEPT} & {*a.tolist(), *b.tolist()}


def test_first_reason_stands() -> None:
    labels = Labels()
    a = labels.fresh(2)
    labels.unite(a[:1], a[1:], WHY)
    labels.pin(a[1:], Reason("came first"))
    labels.pin(a[:1], Reason("came second"))
    assert list(labels.solve().reason.values()) == [Reason("came first")]


@pytest.mark.parametrize("special", [FREE, KEPT])
def test_pinning_what_is_nobodys_is_nothing(special: int) -> None:
    labels = Labels()
    labels.fresh(2)
    labels.pin(np.array([special]), WHY)
    assert labels.solve().reason == {}
