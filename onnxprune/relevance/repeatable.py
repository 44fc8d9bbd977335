"""Deterministic kernels and single precision on a card, so that CUDA repeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.ops._torch import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Products of matrices repeat themselves on CUDA with workspaces of a fixed size."""


@contextmanager
def repeatable() -> Iterator[None]:
    """Let torch choose deterministic kernels on CUDA, without TF32, until the block ends.

    An operator that has none is named in a warning of torch and computed all the same. Without a
    card nothing changes.
    Source: https://pytorch.org/docs/stable/notes/randomness.html
    """
    if not torch.cuda.is_available():
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32)
    strict = torch.get_deterministic_debug_mode()
    try:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
        products.allow_tf32 = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = before
        torch.set_deterministic_debug_mode(strict)
