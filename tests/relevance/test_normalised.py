"""Relevance across normalisations by statistics of the sample: centring is linear."""

import numpy as np
import pytest
import torch
from onnx import ModelProto

from tests.support.dense import STABILISERS, every, mirror_of
from tests.support.models import images, model

NORMS = {
    "InstanceNormalization(a, scale, shift)": (2, 3),
    "GroupNormalization<num_groups=3>(a, scale, shift)": (2, 3, 4),
    "LayerNormalization<axis=1>(a, scales, shifts)": (1, 2, 3),
    "MeanVarianceNormalization<axes=[0,2,3]>(a)": (0, 2, 3),
    "MeanVarianceNormalization<axes=[2,3]>(a)": (2, 3),
}
"""Each with the axes that one mean spans, of `[N, C, H, W]` or, of groups, `[N, 3, C/3, H, W]`."""


def chain(norm: str, blocks: int = 1) -> ModelProto:
    """Blocks of a convolution, a ReLU and a normalisation, as some networks have them."""
    nodes = "".join(
        f"c{k} = Conv<pads=[1,1,1,1]>({f'b{k - 1}' if k else 'x'}, w{min(k, 1)})\n"
        f"a{k} = Relu(c{k})\n"
        f"b{k} = {norm.replace('(a', f'(a{k}')}\n"
        for k in range(blocks)
    )
    text = f"""
net (float[2,3,8,8] x) => (float[2,4] z)
<float[6,3,3,3] w0, float[6,6,3,3] w1, float[4,6,8,8] v, float[6] scale, float[6] shift,
 float[6,1,1] scales, float[6,1,1] shifts> {{
  {nodes}
  d = Conv(b{blocks - 1}, v)
  z = Flatten(d)
}}
"""
    return model(text, header='<ir_version: 10, opset_import: ["" : 21]>')


@pytest.mark.parametrize("norm", NORMS)
def test_centring_is_linear_and_the_deviation_is_given(norm: str) -> None:
    """What a ReLU cut has no relevance, and a mean loses none; a shift takes its own share."""
    proto = chain(norm)
    mirror = mirror_of(proto, fold=False)
    x = images(proto, 2)
    env, found = mirror.trace(x), every(mirror, x, [1, 3], "epsilon")
    assert not found["a0"][env["a0"] == 0].any()
    shift = 0.0
    if "shift" in norm:
        shift = mirror.constants["shifts" if "shifts" in norm else "shift"].reshape(6, 1, 1)
    left = found["b0"] * (env["b0"] - shift) / env["b0"]
    shape, axes = ((2, 6, 8, 8), NORMS[norm])
    if "Group" in norm:
        shape = (2, 3, 2, 8, 8)
    before, after = (one.reshape(shape).sum(axes) for one in (found["a0"], left))
    np.testing.assert_allclose(before, after, atol=STABILISERS * found["b0"].abs().max())


@pytest.mark.parametrize("norm", NORMS)
def test_relevance_does_not_grow_from_block_to_block(norm: str) -> None:
    """It did, a thousandfold in each, where a ReLU stands before a normalisation."""
    proto = chain(norm, blocks=5)
    found = every(mirror_of(proto, fold=False), images(proto, 2), [1, 3], "epsilon")
    sums = [float(found[f"c{k}"].abs().sum()) for k in range(5)]
    assert torch.isfinite(found["x"]).all()
    assert max(sums) < 100 * min(sums), sums
