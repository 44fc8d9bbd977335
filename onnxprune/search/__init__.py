"""How far, in which order, and the record of a run.

Imports every room but cli. `make_task` puts a `Task` together, `search` walks down.

* `controllers`: the order of steps; `dpx`: one of them, a baseline
* `nets`: what they build, rank and measure, remembered; `ranking`: what ranks their channels
* `floors`: whether a net holds the floor; `apart`: searches that do without some samples, for it;
  `unseen`: what is foreseen of samples that nobody has seen
* `task`: what one search is given, and where it is; `protocols`: what it knows of other rooms
* `objective`: what is brought down, and how much each channel saves of it; `latency`: in ms
* `limits`: what is spared; `picker`: which channels may go; `rounding`: at which widths
* `target`: how far, and what must hold; `reach`: whether a net is there
* `clocks`: how long a model takes on the runtime asked for
* `settings`: what a run is asked for; `control`: its constants; `assemble`: a search made of them
* `judging`: what outputs are judged by; `holding`: what they hold; `places`: whether an axis counts
  places or features
* `samples`: samples as a model takes them; `scaling`: what a model says of the pixels it takes
* `remembered`: what a pruned model says that it was judged by
* `generated`: samples for a model that comes without any
* `baseline`: whether the unpruned model recognises the samples, and what fits if not
* `untaken`: branches that no sample takes
* `plan`: which filters went; `journal`: the run directory, `lines`: states in it; `outcome`: what a
  run came to; `refusal`: why a target is out of reach
* `about`: the model, machine and command of a run; `evidence`: its samples and layers, for the
  page; `pictures`: of those samples
"""

from onnxprune.search.about import about_run, versions
from onnxprune.search.assemble import (
    complete,
    make_task,
    open_model,
    open_unlabelled,
    samples_decide,
)
from onnxprune.search.baseline import check_baseline
from onnxprune.search.clocks import clock, measured_on, time_in_turn
from onnxprune.search.control import Control
from onnxprune.search.controllers import CONTROLLER_NAMES, CONTROLLERS, find_controller, search
from onnxprune.search.evaluators import metric_name
from onnxprune.search.evidence import changes, evidence_of
from onnxprune.search.fallback import check_fallback, with_fallback
from onnxprune.search.generated import parted
from onnxprune.search.journal import (
    ABOUT,
    CONFIG,
    DIGESTS,
    EVIDENCE,
    JOURNAL,
    LATENCY,
    MODEL,
    PLAN,
    REPORT,
    RunDirectory,
    check_own,
)
from onnxprune.search.judging import judged
from onnxprune.search.limits import Limits
from onnxprune.search.lines import to_try
from onnxprune.search.nets import Nets
from onnxprune.search.objective import OVER
from onnxprune.search.outcome import (
    already_met,
    describe,
    make_evaluator,
    make_report,
    parts_of,
    summary,
    told,
)
from onnxprune.search.picker import Picker
from onnxprune.search.plan import Plan
from onnxprune.search.ranking import walk_batch
from onnxprune.search.refusal import check_reach, unreachable
from onnxprune.search.samples import open_samples
from onnxprune.search.settings import AUTO, OPTIONS, PARTS, SETTINGS, Settings, merged
from onnxprune.search.target import Floor, Target, share_removed
from onnxprune.search.task import State, Task

__all__ = [
    "ABOUT",
    "AUTO",
    "CONFIG",
    "CONTROLLERS",
    "CONTROLLER_NAMES",
    "DIGESTS",
    "EVIDENCE",
    "JOURNAL",
    "LATENCY",
    "MODEL",
    "OPTIONS",
    "OVER",
    "PARTS",
    "PLAN",
    "REPORT",
    "SETTINGS",
    "Control",
    "Floor",
    "Limits",
    "Nets",
    "Picker",
    "Plan",
    "RunDirectory",
    "Settings",
    "State",
    "Target",
    "Task",
    "about_run",
    "already_met",
    "changes",
    "check_baseline",
    "check_fallback",
    "check_own",
    "check_reach",
    "clock",
    "complete",
    "describe",
    "evidence_of",
    "find_controller",
    "judged",
    "make_evaluator",
    "make_report",
    "make_task",
    "measured_on",
    "merged",
    "metric_name",
    "open_model",
    "open_samples",
    "open_unlabelled",
    "parted",
    "parts_of",
    "samples_decide",
    "search",
    "share_removed",
    "summary",
    "time_in_turn",
    "to_try",
    "told",
    "unreachable",
    "versions",
    "walk_batch",
    "with_fallback",
]
