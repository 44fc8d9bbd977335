"""Cards: whether there is one that CUDA can compute on, asked of its driver."""

from __future__ import annotations

import ctypes
import functools

DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""The driver's library on Linux and on Windows."""


@functools.cache
def no_card() -> str:
    """Return what is missing for CUDA on this machine, "" where nothing is.

    Source: cuInit and cuDeviceGetCount of the CUDA driver API.
    """
    driver = _driver()
    if driver is None:
        return "no NVIDIA driver is installed (libcuda is not there)"
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if failed:
        return f"the NVIDIA driver finds no card it can use (CUDA error {failed})"
    return "" if count.value else "the NVIDIA driver finds no card (see CUDA_VISIBLE_DEVICES)"


def _driver() -> ctypes.CDLL | None:
    for name in DRIVERS:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
