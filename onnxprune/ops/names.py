"""Names of operators as users give them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.errors import UnknownName
from onnxprune.ops._op import OPS


def check_operators(names: Sequence[str]) -> None:
    """Refuse a name that is not the beginning of any described operator's name.

    Raises: UnknownName for the first such name.
    """
    known = {name.lower() for _, name in OPS}
    for name in names:
        if not any(one.startswith(name.lower()) for one in known):
            raise UnknownName(
                f"allow_inexact '{name}': no operator's name begins so; expected operators such "
                f"as layernorm, groupnorm, reducemean"
            )
