"""Samples: from folders of images, arrays, files and functions, in the form that a model takes.

Imports errors, checks and plugins only. `load_data` is the way in.

* `samples`: `Data`, and every source that becomes one; `images`: folders, decoding, presets
* `variants`: what else the same images could be, where a model does not recognise them
* `layouts`: folders of other layouts, recognised to be refused
* `label_maps`: a class for each pixel, and how a classifier is a map of one pixel
"""

from onnxprune.data.images import PREPROCESS, PRESETS
from onnxprune.data.label_maps import IGNORED, class_axis, class_shares, counted, fit_labels
from onnxprune.data.layouts import check_classes
from onnxprune.data.samples import DATA, PER_CLASS, Data, SampleSource, load_data
from onnxprune.data.variants import of_preset, readings

__all__ = [
    "DATA",
    "IGNORED",
    "PER_CLASS",
    "PREPROCESS",
    "PRESETS",
    "Data",
    "SampleSource",
    "check_classes",
    "class_axis",
    "class_shares",
    "counted",
    "fit_labels",
    "load_data",
    "of_preset",
    "readings",
]
