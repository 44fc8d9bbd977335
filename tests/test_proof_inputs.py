"""A model of several inputs is run, in every branch that its inputs choose."""

import numpy as np
import pytest

from onnxprune.errors import SurgeryError
from tests.support.cuts import Cut
from tests.support.models import model

STATES = """
g (float[N,3,S] x, float[2,N,4] state, int64 rate) => (float[N,2,S] y, float[2,N,4] next)
<float[6,3,1] w, float[2,6,1] v, float[1,3,1] u> {
  fast = Constant<value_int=16000>()
  q = Equal(rate, fast)
  a = Conv(x, w)
  r = If(q) <
    then_branch = one () => (float[N,6,S] p) { p = Relu(a) },
    else_branch = two () => (float[N,6,S] n) { n = Neg(a) }
  >
  y = Conv(r, v)
  m = Conv(x, u)
  s = ReduceMean<axes=[2]>(m)
  z = Constant<value_ints=[0]>()
  t = Unsqueeze(s, z)
  b = Squeeze(t, z)
  h = Transpose<perm=[1,0,2]>(b)
  next = Add(state, h)
}
"""


@pytest.mark.parametrize("branch", ["then_branch", "else_branch"])
def test_a_model_of_several_inputs_is_run_in_every_branch(branch: str) -> None:
    cut = Cut(model(STATES))
    cut.proof(cut.pruned)
    (node,) = (node for node in cut.pruned.graph.node if node.op_type == "If")
    body = next(attribute.g for attribute in node.attribute if attribute.name == branch)
    body.node[0].op_type = "Abs"
    with pytest.raises(SurgeryError, match=r"output 'y' .* on x \[1, 3, 224\], state \[2, 1, 4\]"):
        cut.proof(cut.pruned)


def test_samples_of_several_inputs_are_run() -> None:
    feeds = {"x": np.zeros((1, 3, 224), np.float32), "state": np.zeros((2, 1, 4), np.float32)}
    cut = Cut(model(STATES), samples=feeds)
    cut.scaled("w", 1.01)
    with pytest.raises(SurgeryError, match=r"on x \[1, 3, 256\]"):  # of zeros nothing shows
        cut.proof(cut.pruned)


def test_what_no_made_up_input_fits_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    cut = Cut(
        model("""
        g (float[N,3,S] x, int64[3] shape) => (float[N,2,S] y, float[A,B,C] z)
        <float[6,3,1] w, float[2,6,1] v> {
          a = Conv(x, w)
          y = Conv(a, v)
          k = ReduceMean<axes=[2], keepdims=0>(x)
          z = Reshape(k, shape)
        }
        """)
    )
    cut.proof(cut.pruned)
    assert len(caplog.text.splitlines()) == 1
    assert "could not be checked by running: on x [1, 3, 224], shape [3]: it fails" in caplog.text
