"""Both views remove as many filters of each layer, and differ in which."""

import numpy as np
import onnx

from onnxprune.samples import fashion_mnist as sample
from onnxprune.search import Settings
from tests.benchmarks.two_views import LRP, RECONSTRUCTION, Views


def test_views_differ_in_nothing_but_the_filters() -> None:
    asked = Settings.of(compensate="least-squares", threads=1, device="cpu", rate=0.25)
    views = Views(onnx.load(sample.MODEL), sample.REFERENCE, sample.TEST, asked, 0.25)
    sizes = np.bincount(views.groups.group)
    for dead in views.removed.values():
        assert (np.bincount(views.groups.group[dead]) == sizes // 4).all()
    only = [views.only(name) for name in (LRP, RECONSTRUCTION)]
    assert only[0].any()
    assert not (only[0] & only[1]).any()
    both = views.removed[LRP] & views.removed[RECONSTRUCTION]
    assert (only[0] | only[1] | both == views.removed[LRP] | views.removed[RECONSTRUCTION]).all()
