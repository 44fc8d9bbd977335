"""Detectors: boxes read from data sets and from outputs, and how well they agree.

Imports data and plugins.

* `reading`: the way in: data sets of any layout; `yolo`, `coco`, `voc`: a reader for each;
  `annotations`: what they read
* `heads`: what outputs say; `recognise`: which head a model has
* `boxes`: overlap and suppression; `precision`: average precision and its soft form
"""
