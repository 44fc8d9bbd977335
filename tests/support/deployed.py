"""What the tests of deployment deploy."""

from tests.support.models import model

NET = model(
    """g (float[N, 3, 8, 8] x) => (float[N, 4] y) <float[4, 3, 3, 3] w> {
        c = Conv(x, w) p = GlobalMaxPool(c) y = Flatten(p)
    }"""
)
