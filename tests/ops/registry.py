"""The cases: a few nodes of ONNX text each, and how many of the channels around them may go.

`case("y = Relu(x)", 4, x=(4, 5, 5))` stands for the model

    x_image -> 1x1 Conv -> x [N, 4, 5, 5] -> Relu -> y -> 1x1 Conv -> y_out

in which 4 channels may go. A tuple is a tensor made by such a Conv, an array is a constant, and
what the text writes but does not read goes on to the Conv behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.sandwich import Case, weights

CASES: list[Case] = []


def case(
    body: str,
    removable: int,
    *,
    opset: int = 17,
    batch: int | None = None,
    why: str = "",
    masked: bool = True,
    **tensors: Any,
) -> None:
    """Add a case; lists are constants too, of integers.

    `masked=False` is for operators that make a NaN or an infinity of a channel that is 0, as
    Reciprocal does: there the channels are not set to 0 but read with weights of 0.
    """
    arrays = {
        name: np.array(value, np.int64) if isinstance(value, list) else value
        for name, value in tensors.items()
    }
    CASES.append(Case(body, removable, arrays, opset, batch, why, masked))


X = (4, 5, 5)
W = weights
SCALAR = np.float32
POSITIVE = np.abs(W(4))
