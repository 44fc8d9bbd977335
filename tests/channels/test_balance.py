"""Groups that must lose equally many: whatever else ties channels, the balance is kept."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.arrays import IntArray
from onnxprune.channels.labels import Labels, Reason, balance

NONE = Reason("")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Labels, list[IntArray]]:
    """Labels with random ties, cut into groups in one or two ways."""
    groups, each = draw(st.integers(2, 4)), draw(st.integers(1, 6))
    labels = Labels()
    own = labels.fresh(groups * each)
    pairs = draw(
        st.lists(st.tuples(st.integers(0, own.size - 1), st.integers(0, own.size - 1)), max_size=4)
    )
    for a, b in pairs:
        labels.unite(own[[a]], own[[b]], NONE)
    order = draw(st.permutations(range(own.size)))
    return labels, [own.reshape(groups, each), own[list(order)].reshape(groups, each)]


@given(problems())
def test_every_class_is_in_every_group_equally_often(
    problem: tuple[Labels, list[IntArray]],
) -> None:
    labels, wanted = problem
    balance(labels, [(rows, NONE) for rows in wanted])
    of = labels.solve().of
    for rows in wanted:
        ordered = np.sort(of[rows], axis=1)
        assert (ordered == ordered[:1]).all()


def test_places_are_tied_in_order_where_nothing_else_is() -> None:
    labels = Labels()
    rows = labels.fresh(6).reshape(2, 3)
    balance(labels, [(rows, NONE)])
    of = labels.solve().of[rows]
    assert (of[0] == of[1]).all()
    assert np.unique(of).size == 3


def test_what_is_balanced_already_is_not_tied_further() -> None:
    labels = Labels()
    rows = labels.fresh(6).reshape(2, 3)
    labels.unite(rows[0], rows[1][[2, 0, 1]], NONE)
    balance(labels, [(rows, NONE)])
    assert np.unique(labels.solve().of[rows]).size == 3


def test_classes_are_balanced_one_by_one() -> None:
    """Not in sum: of labels 1 to 4, the first and last are as much as the other two."""
    labels = Labels()
    rows = labels.fresh(4)[[[0, 3], [1, 2]]]
    balance(labels, [(rows, NONE)])
    of = labels.solve().of[rows]
    assert (np.sort(of, axis=1) == np.sort(of[:1], axis=1)).all()
