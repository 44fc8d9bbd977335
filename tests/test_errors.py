"""Every error is described in the tree of errors, and is one of ours."""

import importlib
import re


def test_every_error_is_a_public_one_of_ours() -> None:
    errors = importlib.import_module("onnxprune.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type) and value.__module__ == errors.__name__:
            assert issubclass(value, errors.OnnxPruneError), name
            assert re.search(rf"\b{name}\b", errors.__doc__ or ""), f"{name} is not in the tree"
