"""How much memory there is, and how much of it is taken where nobody sets a limit."""

from __future__ import annotations

import math
from pathlib import Path

from onnxprune.engine import is_spread

SHARE = 0.25
"""The share of the free memory that is used where the user sets no limit."""
MEGABYTE = 2**20
LITTLE = 128 * MEGABYTE
"""Bytes; so much is had without asking how much there is."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux states the limit of a container (cgroup version 2)."""


def fits(size: int, memory: int | None = None, *, shared: bool = True) -> bool:
    """Say whether so many bytes are within `memory`, or without it in a quarter of what is free.

    Where jobs run in other processes, which can read what is `shared` themselves, only a little is
    held here.
    Units: memory, MB of 2**20 bytes.
    """
    if shared and size > LITTLE and is_spread():
        return False
    if memory is not None:
        return size <= memory * MEGABYTE
    return size <= LITTLE or size <= SHARE * free_bytes()


def free_bytes() -> int:
    """Return how much memory is free on this machine, or in this container."""
    import psutil

    return int(min(psutil.virtual_memory().available, _container_bytes()))


def _container_bytes() -> float:
    """What a container may still take, infinite where there is no limit.

    psutil reports the machine and knows no containers. Cached files count as free, because the
    system drops them when memory is short.
    """
    try:
        limit, used = (int((CGROUP / f"memory.{one}").read_text()) for one in ("max", "current"))
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        cached = dict(line.split() for line in lines)["inactive_file"]
        return max(limit - used + int(cached), 0)
    except (OSError, ValueError, KeyError):
        return math.inf
