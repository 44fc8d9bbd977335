"""Whatever is put together: what is pruned is what is masked, and the model is valid."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from tests.support.assertions import check_pruned, some
from tests.support.models import model
from tests.support.random_networks import networks

EXACT = 1e-4
"""Relative; ten layers deep, some of which square what they read."""

SIZES = (8, 16)
"""Of an image whose height and width are open."""


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    networks(),
    st.integers(0, 2**16),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from([(), ("dense",)]),
)
def test_pruned_equals_masked_in_any_network(
    text: str, seed: int, share: float, also: tuple[str, ...]
) -> None:
    graph = Graph(model(text, seed=seed))
    groups = find_groups(graph, also=also)
    dead = some(groups, share, seed)
    if dead.any():
        check_pruned(graph, groups, dead, SIZES, EXACT)
