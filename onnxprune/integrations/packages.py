"""Tools that may not be installed."""

from __future__ import annotations

import importlib
from typing import Any

from onnxprune.errors import MissingPackage


def tool(module: str, extra: str) -> Any:
    """Import a module of a tool.

    Raises: MissingPackage that names the extra where the tool is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f'{module}: cannot be imported ({error}); pip install "onnxprune[{extra}]"'
        ) from error
