"""What people look at: the page of a run, plots, and a drawing of the network.

Imports channels, surgery's costs and evaluation's captions. Reads the files of a run, not its
objects.

* `page`: the page of a run, with the template `page.html`; `record`: what a run's files say
* `figures`: figures as text; `pull_request`: a comparison in Markdown
* `plots`: accuracy over pruning rate
* `inspection`: which filters can go, and why the others stay
* `drawing`: the network as SVG; `skeleton`: what of it is drawn; `boxes`: what is written into it;
  `layout`: where it stands
"""

from onnxprune.report.figures import amount, count, percent, rows, samples_of, slower, why_stopped
from onnxprune.report.inspection import inspect
from onnxprune.report.page import write_page
from onnxprune.report.plots import write_curve_plot
from onnxprune.report.pull_request import classes, markdown

__all__ = [
    "amount",
    "classes",
    "count",
    "inspect",
    "markdown",
    "percent",
    "rows",
    "samples_of",
    "slower",
    "why_stopped",
    "write_curve_plot",
    "write_page",
]
