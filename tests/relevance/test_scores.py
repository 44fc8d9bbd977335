"""Scores as a value: their total over classes, and their file."""

from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError, OutputError
from onnxprune.relevance.criteria import Scores, score
from tests.support.scoring import setting


def test_total_is_the_weighted_mean_over_classes() -> None:
    scores = Scores(np.array([[1.0, 2.0], [3.0, 6.0]]), "lrp", ("a", "b"))
    assert scores.total().tolist() == [2.0, 4.0]
    assert scores.total(np.array([3.0, 1.0])).tolist() == [1.5, 3.0]
    with pytest.raises(DataError, match="scores by lrp: 3 class weights, expected 2"):
        scores.total(np.ones(3))
    free = Scores(np.array([[1.0, 2.0]]), "magnitude", ("all",))
    assert free.total(np.ones(3)).tolist() == [1.0, 2.0]


def test_scores_survive_a_file(tmp_path: Path) -> None:
    graph, groups, data = setting()
    scores = score(graph, groups, data, "lrp:zplus", device="cpu")
    path = scores.save(tmp_path / "scores.npz")
    again = Scores.load(path)
    assert np.array_equal(again.values, scores.values)
    assert (again.criterion, again.classes) == ("lrp:zplus", ("cat", "dog", "ship"))
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


def test_files_that_are_not_scores_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, x=np.ones(3))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(other.read_bytes()[:50])
    for path in (other, cut, tmp_path / "missing.npz"):
        with pytest.raises(DataError, match="not scores"):
            Scores.load(path)
    with pytest.raises(OutputError):
        Scores(np.ones((1, 1)), "random", ("all",)).save(tmp_path / "no" / "scores.npz")
