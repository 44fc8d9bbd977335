"""A small U-Net that finds garments in scenes, with scenes to prune it on and to judge it by.

`MODEL` reads images [N, 1, 56, 56] in 0..1 and writes class scores [N, 6, 56, 56]. `REFERENCE` (40
scenes) and `TEST` (60) hold `images/`, their label maps in `masks/` (255: does not count) and
`classes.txt`; no garment of theirs was trained on. `train.py` beside this file made all three.

The garments are Fashion-MNIST's, Copyright (c) 2017 Zalando SE, under the MIT licence, whose text
is in this project's LICENSE.
"""

from importlib.resources import files
from pathlib import Path

_HERE = Path(str(files(__name__)))

MODEL = _HERE / "model.onnx"
REFERENCE = _HERE / "reference"
TEST = _HERE / "test"

__all__ = ["MODEL", "REFERENCE", "TEST"]
