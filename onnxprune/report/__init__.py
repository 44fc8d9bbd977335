"""What people look at: the page of a run, plots, and a drawing of the network.

Imports channels, surgery's costs and evaluation's captions. Reads the files of a run, not its
objects.

* `page`: the page of a run, with its `templates`; `record`: what a run's files say
* `figures`: figures as text; `pull_request`: a comparison in Markdown
* `plots`: curves of several methods
* `inspection`: which filters can go, and why the others stay
* `drawing`: the network as SVG; `network`: as JSON, for the page; `skeleton`: what of it is drawn;
  `boxes`: what is written into it; `layout`: where it stands; `colouring`: what is tied
* `side_by_side`: several runs on one page; `pair`: two models; `rendering`: templates filled in
* `verdict`, `opportunities`, `steps`, `layers`, `changes`: what the page says
* `intervals`: how sure figures of few samples are; `png`: small pictures
"""

from onnxprune.report.figures import (
    amount,
    count,
    percent,
    promised,
    rows,
    ruined,
    samples_of,
    slower,
    timed_on,
    why_stopped,
)
from onnxprune.report.inspection import inspect
from onnxprune.report.intervals import paired, redrawn, resampled, weighted, wilson
from onnxprune.report.network import network_of
from onnxprune.report.page import write_page
from onnxprune.report.pair import write_pair
from onnxprune.report.plots import write_curve_plot
from onnxprune.report.png import Pixels, data_uri, heat, outlined, photo
from onnxprune.report.pull_request import classes, markdown
from onnxprune.report.side_by_side import write_comparison

__all__ = [
    "Pixels",
    "amount",
    "classes",
    "count",
    "data_uri",
    "heat",
    "inspect",
    "markdown",
    "network_of",
    "outlined",
    "paired",
    "percent",
    "photo",
    "promised",
    "redrawn",
    "resampled",
    "rows",
    "ruined",
    "samples_of",
    "slower",
    "timed_on",
    "weighted",
    "why_stopped",
    "wilson",
    "write_comparison",
    "write_curve_plot",
    "write_page",
    "write_pair",
]
