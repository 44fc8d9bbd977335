"""How long `inspect` takes on large graphs: CPU seconds and memory of each, to stdout.

python -m tests.benchmarks.size relus,convolutions 25000,50000,100000
python -m tests.benchmarks.size residuals 5000,10000,20000 --svg /tmp/drawing.svg
"""

from __future__ import annotations

import argparse
import resource
import time

from onnxprune.errors import OnnxPruneError
from onnxprune.report import inspect
from tests.support.long_graphs import GRAPHS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", help=f"names with commas, of {', '.join(GRAPHS)}; or all")
    parser.add_argument("sizes", help="numbers of nodes, with commas")
    parser.add_argument("--svg", help="also draw into this file")
    given = parser.parse_args()
    print("graph nodes seconds MB ends in")
    for name in GRAPHS if given.graphs == "all" else given.graphs.split(","):
        for size in map(int, given.sizes.split(",")):
            proto = GRAPHS[name](size)
            begun = time.process_time()
            try:
                ended = f"{len(inspect(proto, svg=given.svg)['groups'])} groups"
            except OnnxPruneError as error:
                ended = str(error)
            seconds = time.process_time() - begun
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            print(f"{name} {size} {seconds:.2f} {peak:.0f} {ended}", flush=True)


if __name__ == "__main__":
    main()
