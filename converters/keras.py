"""Keras to ONNX by its own `Model.export`, on whatever backend it runs: `.keras` and `.h5` files.

Also `package.module:function` or `path/to/file.py:function` that returns a model, such as one that
loads a file with custom objects.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.files import temporary
from onnxprune.plugins import find_function, first_line

from ._checkpoints import TRUST
from ._export import Export, Options, busy, call, filled, without_leftovers
from ._inputs import BATCH, samples_of
from ._names import numbered, output_names
from ._torch import TRACED_BATCH, to_onnx
from ._windows import from_jax
from .tensorflow import calls_opened

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "tensorflow", "jax")
EXTRAS = {"tensorflow": "tensorflow", "jax": "jax"}
"""What exports on a backend, where that is no package of [keras]."""


def export(source: str, options: Options) -> Export:
    """Export the model that a file holds or a function returns; `weights` is a `.weights.h5`.

    Raises:
        ConversionError: no model, one that holds code and is not trusted, or that Keras does not
            export.
        MissingPackage: keras or its backend's exporter is not installed.
    """
    busy("importing Keras and its backend")
    keras = _import()
    busy("loading it")
    model = _load(keras, source, options)
    if not isinstance(model, keras.Model):
        raise ConversionError(f"{source}: found {type(model).__name__}, expected a keras.Model")
    if options.weights is not None:
        model.load_weights(options.weights)
    specs = _specs(keras, model, source, options)
    made = [np.zeros([1, *filled(spec.shape[1:])], spec.dtype) for spec in specs]
    call_on = _caller(keras, model)
    busy(f"exporting it, by Keras on {keras.config.backend()}")
    try:
        with temporary() as folder:
            names = _names(keras, model, call_on(*made))  # a model exports once it was called
            path = folder / "model.onnx"
            asked = {"opset_version": options.opset} if options.opset is not None else {}
            given = [_packed(keras, model, specs)]
            try:
                with _seen_whole(keras):
                    model.export(
                        str(path), format="onnx", verbose=False, input_signature=given, **asked
                    )
            except Exception as first:  # an exporter may raise anything
                if not _exported_by_torch(keras, model, specs, options, len(names), path):
                    raise first from None
            proto = without_leftovers(onnx.load(path), [spec.name for spec in specs])
            if keras.config.backend() == "jax":
                proto = from_jax(proto)
    except ImportError as error:
        backend = keras.config.backend()
        extra = EXTRAS.get(backend, "keras")
        other = "" if extra == "keras" else ", or use KERAS_BACKEND=torch"
        raise MissingPackage(
            f"Keras on {backend} exports with a package that is not installed "
            f"({first_line(error)}): pip install 'onnxprune[{extra}]'{other}"
        ) from error
    except Exception as error:  # an exporter may raise anything
        others = " or ".join(one for one in BACKENDS if one != keras.config.backend())
        left = [spec.name for spec in specs if None in spec.shape[1:]]
        sizes = f"give the open sizes of {' and '.join(left)}, " if left else ""
        raise ConversionError(
            f"{source}: Model.export failed: {first_line(error)}; {sizes}try a fixed batch, or "
            f"another backend with KERAS_BACKEND={others}"
        ) from error
    batch = specs[0].shape[0]
    by = f"Keras' exporter on {keras.config.backend()}"

    def run(*inputs: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        outputs = keras.tree.flatten(call_on(*inputs))
        return [np.asarray(keras.ops.convert_to_numpy(one)) for one in outputs]

    shape = tuple(filled(specs[0].shape[1:]))
    return Export(proto, run, shape, batch, by=by, names=names)


def _import() -> ModuleType:
    if (backend := _backend()) is not None:
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
    except ImportError as error:
        raise MissingPackage(
            f"keras and its backend are not installed ({first_line(error)}): "
            "pip install 'onnxprune[keras]'"
        ) from error
    module: ModuleType = keras
    return module


def _backend() -> str | None:
    """The backend to ask Keras for: an installed one, where the one of its configuration is not.

    Keras writes tensorflow into its configuration by itself, so that says little.
    """
    if "KERAS_BACKEND" in os.environ:
        return None
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        configured = json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        configured = "tensorflow"
    if importlib.util.find_spec(str(configured)):
        return None
    return next(filter(importlib.util.find_spec, BACKENDS), None)


def _load(keras: ModuleType, source: str, options: Options) -> Any:
    if ":" in source and not Path(source).exists():
        keras.utils.set_random_seed(options.seed)
        expected = "package.module:function or path/to/file.py:function, which returns a model"
        return call(find_function(source, expected), source, keras.Model)
    if not Path(source).exists():
        raise ConversionError(f"{source}: no such file; give the path of a saved model")
    try:
        return keras.saving.load_model(source, compile=False, safe_mode=not options.trust)
    except Exception as error:  # it raises anything
        if "safe_mode" in str(error):
            raise ConversionError(f"{source}: holds code (a Lambda layer); {TRUST}") from error
        raise ConversionError(
            f"{source}: cannot be loaded: {first_line(error)}; where it has custom objects or no "
            "architecture, give a function that returns the model, as module:function"
        ) from error


def _specs(keras: ModuleType, model: Any, source: str, options: Options) -> list[Any]:
    """The inputs: as the model declares them, of the given size where it leaves that open."""
    declared = list(model.inputs or ()) if getattr(model, "inputs", None) else []
    shapes = [tuple(one.shape) for one in declared]
    names = [one.name for one in declared]
    given = samples_of(options.input_shape, options.input_shapes, names, source)
    if not declared:
        shapes = [(None, *shape) for shape in given.values()]
    if not shapes:
        raise ConversionError(
            f"{source}: the shape of its input is not known; give that of one sample, "
            "such as 224,224,3"
        )
    if not declared and len(shapes) > 1:
        raise ConversionError(
            f"{source}: declares no inputs of the names {', '.join(given)}; build the model from "
            "keras.Input layers"
        )
    for k, name in enumerate(names):
        if name in given:
            shapes[k] = (None, *given[name])
    kinds = [str(one.dtype) for one in declared] or ["float32"]
    if len(shapes) < 2 or len({*names}) < len(shapes):
        names = [f"input_{k}" if k else "input" for k in range(len(shapes))]
    batches = [shape[0] if options.dynamic_batch else 1 for shape in shapes]
    return [
        keras.InputSpec(shape=(batch, *shape[1:]), dtype=kind, name=name)
        for batch, shape, kind, name in zip(batches, shapes, kinds, names, strict=True)
    ]


def _packed(keras: ModuleType, model: Any, values: Sequence[Any]) -> Any:
    """Put one value for each input into the structure that the model takes: a list, a dict."""
    if len(values) == 1 and not isinstance(getattr(model, "input", None), dict | list | tuple):
        return values[0]
    return keras.tree.pack_sequence_as(model.input, list(values))


def _seen_whole(keras: ModuleType) -> AbstractContextManager[None]:
    """Let tf2onnx, if it is what exports, see what is in functions that TensorFlow compiles."""
    if keras.config.backend() != "tensorflow" or importlib.util.find_spec("tf2onnx") is None:
        return nullcontext()
    return calls_opened(importlib.import_module("tf2onnx.tf_loader"))


def _exported_by_torch(
    keras: ModuleType, model: Any, specs: Sequence[Any], options: Options, count: int, path: Path
) -> bool:
    """Export a model on torch by torch's own exporter, and say whether that was done.

    Of any batch size Keras exports by TorchScript, which fails at its layer normalisation.
    """
    if keras.config.backend() != "torch":
        return False
    import torch

    class Function(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: "torch.Tensor") -> "list[torch.Tensor]":
            found = self.model(_packed(keras, self.model, inputs), training=False)
            return list(keras.tree.flatten(found))

    batch = TRACED_BATCH if options.dynamic_batch else 1
    shapes = [[batch, *filled(spec.shape[1:])] for spec in specs]
    made = tuple(
        torch.zeros(shape, dtype=getattr(torch, spec.dtype))
        for shape, spec in zip(shapes, specs, strict=True)
    )
    free = {0: torch.export.Dim(BATCH)} if options.dynamic_batch else {}
    auto = torch.export.Dim.AUTO
    sizes = [
        free | {k: auto for k, size in enumerate(spec.shape) if k and size is None}
        for spec in specs
    ]
    names = [spec.name for spec in specs]
    try:
        proto = to_onnx(
            Function().eval(),
            made,
            numbered(count),
            options,
            dynamic_shapes=(tuple(sizes),),
            input_names=names,
        )
    except Exception as error:  # as above
        logger.debug("torch's exporter failed, too: %s", error)
        return False
    onnx.save(proto, path)
    return True


def _caller(keras: ModuleType, model: Any) -> Callable[..., Any]:
    """The model as a function of arrays that returns its own structure."""

    def call_on(*inputs: npt.NDArray[Any]) -> Any:
        given = [keras.ops.convert_to_tensor(one) for one in inputs]
        return model(_packed(keras, model, given), training=False)

    return call_on


def _names(keras: ModuleType, model: Any, outputs: Any) -> list[str]:
    """What the outputs are called: by the keys of a dict, else by the layers that give them."""
    places = [tuple(place) for place, _ in keras.tree.flatten_with_path(outputs)]
    layers = getattr(model, "output_names", None)
    if isinstance(model, keras.Sequential):
        layers = [model.layers[-1].name]
    if layers is not None and not any(isinstance(key, str) for place in places for key in place):
        places = [(name,) for name in layers]
    return output_names(places)
