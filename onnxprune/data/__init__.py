"""Samples: from folders of images, arrays, files and functions, in the form that a model takes.

Imports only what lies below: errors, checks, memory and their like. `load_data` is the way in.

* `samples`: `Data`; `inputs`: samples of several inputs; `heads`: what the outputs hold
* `sources`: every source that becomes one; `forms`: how its items are held against the model
* `streamed`: samples that are read when they are asked for, and ahead; `archives`: `.npz`, `.npy`
* `folders`, `images`: folders of images, decoding; `pictures`: their files, opened with care
* `targets`: labels and other targets
* `shards`: WebDataset's tar files and Parquet
* `presets`: how pixels are scaled
* `noise`: noise that is smooth as photographs are
* `mirrored`: mirror images of few
* `variants`: what else the same images could be, where a model does not recognise them
* `layouts`: folders of other layouts, recognised to be refused
* `letterbox`: an image whole on a canvas of another shape, and where its boxes go
* `label_maps`: a class for each pixel, and how a classifier is a map of one pixel
"""

from onnxprune.data.heads import KINDS, Head
from onnxprune.data.images import Form, decode, find_images, image_size
from onnxprune.data.inputs import Inputs, Rows, Samples, by_name, joined, pieces, read
from onnxprune.data.label_maps import IGNORED, class_axis, class_shares, counted, fit_labels
from onnxprune.data.layouts import annotation_files, boxes_layout, check_classes
from onnxprune.data.letterbox import FITS, Placement, fitted
from onnxprune.data.mirrored import with_mirrored
from onnxprune.data.noise import noisy_pixels, smooth_noise
from onnxprune.data.presets import PREPROCESS, PRESETS, find_preset, name_preset
from onnxprune.data.samples import ALL, DATA, Data, part_of
from onnxprune.data.sources import MEMORY, PER_CLASS, InputForm, SampleSource, load_data
from onnxprune.data.streamed import Streamed, ahead
from onnxprune.data.targets import MAX_LABEL
from onnxprune.data.variants import of_preset, readings

__all__ = [
    "ALL",
    "DATA",
    "FITS",
    "IGNORED",
    "KINDS",
    "MAX_LABEL",
    "MEMORY",
    "PER_CLASS",
    "PREPROCESS",
    "PRESETS",
    "Data",
    "Form",
    "Head",
    "InputForm",
    "Inputs",
    "Placement",
    "Rows",
    "SampleSource",
    "Samples",
    "Streamed",
    "ahead",
    "annotation_files",
    "boxes_layout",
    "by_name",
    "check_classes",
    "class_axis",
    "class_shares",
    "counted",
    "decode",
    "find_images",
    "find_preset",
    "fit_labels",
    "fitted",
    "image_size",
    "joined",
    "load_data",
    "name_preset",
    "noisy_pixels",
    "of_preset",
    "part_of",
    "pieces",
    "read",
    "readings",
    "smooth_noise",
    "with_mirrored",
]
