"""The user's own module, from the function that builds it and a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import UnmatchedModule
from onnxprune.modules.tracing import check_module
from onnxprune.ops._torch import torch
from onnxprune.plugins import WHATEVER, find_function, first_line

if TYPE_CHECKING:
    from torch import nn

EXPECTED = (
    "package.module:function or path/to/file.py:function that takes nothing and returns a "
    "torch.nn.Module"
)


def build_module(place: str, weights: str | Path | None = None) -> nn.Module:
    """Return the module that a function builds, filled from the file of a state dict.

    Raises: UnknownName for a function that cannot be imported; InvalidType where it returns no
    module; UnmatchedModule where it fails or the weights are not its module's.
    """
    found = find_function(place, EXPECTED)
    try:
        module = found if isinstance(found, torch.nn.Module) else found()
    except WHATEVER as error:
        raise UnmatchedModule(
            f"{place}: calling it without arguments failed ({first_line(error)}); expected "
            f"{EXPECTED}"
        ) from error
    check_module(module)
    if weights is not None:
        _fill(module, Path(weights))
    return module


def _fill(module: nn.Module, path: Path) -> None:
    """Fill a module from a state dict, or from a checkpoint that holds one; nothing is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        held = state.get("state_dict", state) if isinstance(state, Mapping) else state
        module.load_state_dict(held)
    except FileNotFoundError as error:
        raise UnmatchedModule(f"{path}: no such file; expected a saved state dict") from error
    except Exception as error:  # unpickling raises anything
        raise UnmatchedModule(
            f"{path}: not a state dict of the module ({first_line(error)}); save one with "
            f"torch.save(module.state_dict(), path)"
        ) from error
