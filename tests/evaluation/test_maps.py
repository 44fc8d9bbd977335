"""Label maps, measured batch by batch, against counting by hand."""

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

from onnxprune.data import Data
from onnxprune.evaluation import Evaluator

RNG = np.random.default_rng(3)
CLASSES, SIZE = 3, 4
X = RNG.normal(size=(7, 2, SIZE, SIZE)).astype(np.float32)
Y = RNG.integers(0, CLASSES, (7, SIZE, SIZE))
Y[:, 0, 0] = 255
DATA = Data(X, Y, tuple("abc"))
WEIGHT = ", ".join(f"{w:.3f}" for w in RNG.normal(size=CLASSES * 2))
NET = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, {SIZE}, {SIZE}] x) => (float[N, {CLASSES}, {SIZE}, {SIZE}] y)
<float[{CLASSES}, 2, 1, 1] w = {{{WEIGHT}}}> {{ y = Conv(x, w) }}""")


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """What onnx.reference scores each pixel that counts, and its label."""
    (scores,) = onnx.reference.ReferenceEvaluator(NET).run(None, {"x": X})
    counts = Y != 255
    return np.moveaxis(np.asarray(scores, np.float64), 1, -1)[counts], Y[counts]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_every_batch_is_held_against_its_own_maps(batch_size: int) -> None:
    scores, labels = pixels()
    predicted = scores.argmax(1)
    found = Evaluator(DATA, batch_size=batch_size, threads=1)(NET)
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for k in range(CLASSES):
        mine = labels == k
        assert found.correct[k] == (mine & (predicted == k)).sum()
        assert found.total[k] == mine.sum()
        assert found.probability[k] == pytest.approx(share[mine, k].sum(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_intersections_and_unions_add_up_over_batches(batch_size: int) -> None:
    scores, labels = pixels()
    predicted = scores.argmax(1)
    found = Evaluator(DATA, metric="mean-iou", batch_size=batch_size, threads=1)(NET)
    for k in range(CLASSES):
        assert found.correct[k] == ((labels == k) & (predicted == k)).sum()
        assert found.total[k] == ((labels == k) | (predicted == k)).sum()
