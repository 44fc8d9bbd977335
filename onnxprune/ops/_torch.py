"""torch, imported when an attribute of it is first used: `inspect` and `apply` never need it.

Raises: MissingPackage at that moment, where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onnxprune.errors import MissingPackage

if TYPE_CHECKING:
    import torch as torch
    from torch.nn import functional as functional
else:

    class _Lazy:
        def __init__(self, name: str) -> None:
            self._name, self._module = name, None

        def __getattr__(self, attribute: str) -> Any:
            try:
                if self._module is None:
                    self._module = importlib.import_module(self._name)
                return getattr(self._module, attribute)
            except ModuleNotFoundError as error:
                if error.name != "torch":
                    raise
                raise MissingPackage(
                    'this needs torch, which is not installed: pip install "onnxprune[cpu]", '
                    'or "onnxprune[gpu]" for CUDA'
                ) from error

    torch = _Lazy("torch")
    functional = _Lazy("torch.nn.functional")
