"""What a filter is worth: the torch mirror of a graph, LRP through it, and other criteria.

Imports channels, data and what lies below. `score` and `Meter` are the ways in.

* `mirror`: the graph as torch; `fuse`: normalisation folded into its convolution
* `batches`: samples in batches that the model takes; `memory`: how many fit at once
* `rules`: LRP's rules; `sharing`: what they come to, shares in proportion to contributions
* `routes`: where relevance flows; `lrp`: the walk back
* `criteria`: criteria by name; `measures`: their formulas; `scores`: their result
* `class_sums`: the sums of their values over samples
* `weights`: filters as rows of real numbers; `advice`: what to use where a criterion cannot be
* `damage`: what removing several channels together does; `divergence`: to the class probabilities
* `generated`: inputs that have the statistics which a network stores
* `heat`: what a network looks at in an image
* `threads`: how many threads torch may use; `repeatable`: deterministic kernels on a card
"""

from onnxprune.relevance.batches import LOOKING, Batch, OnSamples, batches_of, cut
from onnxprune.relevance.criteria import (
    CRITERIA,
    CRITERION_NAMES,
    Scores,
    data_free,
    find_criterion,
    score,
)
from onnxprune.relevance.damage import SAMPLES, Damage, Meter
from onnxprune.relevance.generated import match_statistics, stored_statistics
from onnxprune.relevance.heat import Explained, heat_maps
from onnxprune.relevance.memory import Halving, allowed_bytes, batch_in_cache, batch_within, on_disk
from onnxprune.relevance.mirror import Mirror, Step, Tensors, choose_device
from onnxprune.relevance.repeatable import repeatable
from onnxprune.relevance.rules import RULES, Branch, Composite, Rule, Term, find_composite
from onnxprune.relevance.threads import one_thread

__all__ = [
    "CRITERIA",
    "CRITERION_NAMES",
    "LOOKING",
    "RULES",
    "SAMPLES",
    "Batch",
    "Branch",
    "Composite",
    "Damage",
    "Explained",
    "Halving",
    "Meter",
    "Mirror",
    "OnSamples",
    "Rule",
    "Scores",
    "Step",
    "Tensors",
    "Term",
    "allowed_bytes",
    "batch_in_cache",
    "batch_within",
    "batches_of",
    "choose_device",
    "cut",
    "data_free",
    "find_composite",
    "find_criterion",
    "heat_maps",
    "match_statistics",
    "on_disk",
    "one_thread",
    "repeatable",
    "score",
    "stored_statistics",
]
