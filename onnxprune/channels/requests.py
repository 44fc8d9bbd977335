"""What may go on request only: the rules of the options that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.checks import Names
from onnxprune.errors import check_name
from onnxprune.ops import check_operators

DENSE = "dense"
"""Units of dense layers, and the inner widths of attention."""

KINDS = (DENSE,)


def check_kinds(names: Sequence[str]) -> None:
    """Refuse what cannot go on request.

    Raises: UnknownName for the first such name.
    """
    for name in names:
        check_name("also", name, KINDS)


ALSO = Names(
    of=f"what may go beside filters: {', '.join(KINDS)}",
    commas=True,
    also=check_kinds,
    metavar="KINDS",
    help="Let more than filters go; dense: the units of hidden dense layers and the inner widths "
    "of attention. They count as filters in --rate.",
)

ALLOW_INEXACT = Names(
    of="operators, or of the beginnings of their names",
    commas=True,
    also=check_operators,
    metavar="OPERATORS",
    help="Prune through these operators although they mix channels, such as layernorm,groupnorm; "
    "the report names each node.",
)
