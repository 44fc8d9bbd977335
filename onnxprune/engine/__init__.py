"""Where sums over samples are taken: in this process, or on workers of a cluster.

Relevance, damage, moments and accuracy are sums over samples. A `Job` computes the part of one
shard, a fixed batch of samples, and whoever asks adds the parts in the order of the shards. So the
result has the same bits, wherever the parts were computed and however many workers there were.

* `job`: what is computed; `running`: on which engine; `here`: in this process, on its threads
* `parcels`: values on their way to a worker; `worker`: what happens there
* `pool`: workers that share the shards, of which some die and some are slow
* `cluster`: workers of ray
"""

from onnxprune.engine.here import cores, on_threads
from onnxprune.engine.job import Course, Job, Portable, once
from onnxprune.engine.running import (
    ENGINES,
    PROCESS,
    RAY,
    Engine,
    Talk,
    each,
    is_spread,
    talk,
    use_engine,
    using,
)

__all__ = [
    "ENGINES",
    "PROCESS",
    "RAY",
    "Course",
    "Engine",
    "Job",
    "Portable",
    "Talk",
    "cores",
    "each",
    "is_spread",
    "on_threads",
    "once",
    "talk",
    "use_engine",
    "using",
]
