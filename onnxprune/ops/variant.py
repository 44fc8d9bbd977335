"""Versions of an operator that differ in nothing but the attributes they have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def without(forward: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """Return a forward as it was in versions that did not have the attributes `names` yet."""
    signature = inspect.signature(forward)
    left = [p for p in signature.parameters.values() if p.name not in names]

    def run(*inputs: Any, **attributes: Any) -> Any:
        return forward(*inputs, **attributes)

    run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    run.__doc__, run.__module__ = forward.__doc__, forward.__module__
    return run
