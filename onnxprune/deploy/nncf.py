"""INT8 by NNCF: post-training quantisation that also corrects biases. It needs the extra [nncf].

NNCF calibrates each time that it quantises. So it gets fewer samples than onnxruntime's quantiser,
and takes longer all the same.

Source: nncf.quantize on an ONNX model.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from onnx import ModelProto

from onnxprune.data import Data
from onnxprune.deploy.quantiser import CALIBRATING, batches, labelled, prepared, refused
from onnxprune.errors import MissingPackage
from onnxprune.graph import copied
from onnxprune.progress import track

MOST = 64
"""How many samples it calibrates on at most, spread over all that are given."""


class NncfQuantiser:
    """NNCF's quantiser, with the ranges of the samples.

    Raises: MissingPackage without NNCF; InvalidModel as `StaticQuantiser` does.
    """

    def __init__(self, model: ModelProto, data: Data) -> None:
        self._nncf = find_nncf()
        self.float_model = prepared(model)
        few = data.every(-(-len(data) // MOST))
        self._samples = list(batches(self.float_model, few))
        graph = self.float_model.graph
        initial = {tensor.name for tensor in graph.initializer}
        self.nodes = tuple(
            node.name
            for node in graph.node
            if any(name and name not in initial for name in node.input)
        )

    @property
    def made_by(self) -> str:
        return f"nncf {self._nncf.__version__}"

    def __call__(self, kept: Collection[str]) -> ModelProto:
        nncf, own = self._nncf, copied(self.float_model)
        scope = nncf.IgnoredScope(names=list(kept)) if kept else None
        try:
            with _silently():
                found = nncf.quantize(
                    own,
                    nncf.Dataset(_Tracked(self._samples)),
                    subset_size=len(self._samples),
                    ignored_scope=scope,
                )
        except Exception as error:  # its errors have no root of their own
            raise refused("nncf", error) from error
        return labelled(found, self.float_model)


class _Tracked:
    """Samples that NNCF goes through more than once, each time with word of how far it is."""

    def __init__(self, samples: Sequence[dict[str, Any]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return track(CALIBRATING, self._samples, len(self._samples))


def find_nncf() -> Any:
    """Import NNCF.

    Raises: MissingPackage that names the extra.
    """
    try:
        with _silently():
            return importlib.import_module("nncf")
    except ImportError as error:
        raise MissingPackage('--int8 nncf: needs NNCF; pip install "onnxprune[nncf]"') from error


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Keep NNCF's progress bars and remarks off the screen."""
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
