"""A small residual CNN trained on Fashion-MNIST, with images to prune it on and to judge it by.

`MODEL` reads images [N, 1, 28, 28] in 0..1. `REFERENCE` (20 images per class) and `TEST` (30 per
class) hold one folder per class, named so that alphabetical order is label order; the training
saw neither. `train.py` beside this file made all three.

The images are Fashion-MNIST's, Copyright (c) 2017 Zalando SE, under the MIT licence, whose text
is in this project's LICENSE.
"""

from importlib.resources import files
from pathlib import Path

_HERE = Path(str(files(__name__)))

MODEL = _HERE / "model.onnx"
REFERENCE = _HERE / "reference"
TEST = _HERE / "test"

__all__ = ["MODEL", "REFERENCE", "TEST"]
