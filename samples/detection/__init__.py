"""A small detector of shapes, with scenes to prune it on and to judge it by.

`MODEL` reads images [N, 3, 96, 96] in 0..1 and writes boxes and class scores as YOLOv8 does,
[N, 4 + 4, 180]. `REFERENCE` (40 scenes) and `TEST` (100) hold `images/`, their `labels/` and
`data.yaml`; none of them was trained on. `train.py` beside this file made all three.
"""

from importlib.resources import files
from pathlib import Path

_HERE = Path(str(files(__name__)))

MODEL = _HERE / "model.onnx"
REFERENCE = _HERE / "reference"
TEST = _HERE / "test"

__all__ = ["MODEL", "REFERENCE", "TEST"]
