"""Plan and bytes of the samples' runs over threads, hash seeds and what libraries are allowed.

python -m tests.benchmarks.same_bytes
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from tests.test_same_bytes import result_of

RUNS = {
    "label maps": ("segmentation", "--max-drop", "0.02"),
    "classes, least squares": ("fashion_mnist", "--max-drop", "0.02"),
    "boxes": ("detection", "--macs", "0.8"),
    "classes, iterative, bias": (
        *("fashion_mnist", "--control", "iterative"),
        *("--compensate", "bias", "--macs", "0.6"),
    ),
}


def main() -> None:
    """Print how many results there are of each run: one."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, run in RUNS.items():
        found: dict[str, list[str]] = {}
        started = time.monotonic()
        for threads, seed in itertools.product((1, 2, 4), (1, 2)):
            held = "" if seed == 1 else str(threads)
            with tempfile.TemporaryDirectory() as folder:
                result = result_of(Path(folder), run, threads, seed, held)
            found.setdefault(result, []).append(f"{threads} threads, hash seed {seed}")
        seconds = time.monotonic() - started
        print(f"{name}: {list(found.values())} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
