"""Pruned modules as files: tensors and numbers of channels, nothing that is executed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from onnxprune.errors import InvalidModel, UnmatchedModule
from onnxprune.files import write_whole
from onnxprune.modules.cutting import STATED, with_state
from onnxprune.modules.restating import edits_of, with_edits
from onnxprune.modules.tracing import check_module
from onnxprune.ops._torch import torch
from onnxprune.plugins import first_line

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)
else:
    Module = TypeVar("Module")

FORMAT = 1


def save_pruned_module(module: nn.Module, path: str | Path) -> Path:
    """Write a pruned module, also after it was fine-tuned, for `load_pruned_module`.

    The file is a dict for `torch.load(path, weights_only=True)`: `state_dict`, and `stated`, the
    numbers of channels of each layer.
    Raises: InvalidType for what is no module; OutputError when the place is not writable.
    """
    check_module(module)
    stated = {
        name: {key: _plain(getattr(one, key)) for key in STATED if _is_stated(one, key)}
        for name, one in module.named_modules()
    }
    content = io.BytesIO()
    held = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    kept = {name: found for name, found in stated.items() if found}
    written = {"state_dict": held, "stated": kept, "restated": edits_of(module)}
    torch.save({"format": FORMAT, **written}, content)
    return write_whole(path, [content.getbuffer()])


def load_pruned_module(module: Module, path: str | Path) -> Module:
    """Return a copy of a module, as its own code builds it, with the widths and weights of a file.

    `path` is what `export_weights` or `save_pruned_module` wrote; nothing in it is executed.
    Raises: InvalidModel when there is no such file or it is no pruned module; InvalidType for what
    is no module; UnmatchedModule for a module of other layers.
    """
    check_module(module)
    content = _read(Path(path))
    state, stated = content["state_dict"], content["stated"]
    known, layers = module.state_dict(), dict(module.named_modules())
    missing = [name for name in known if name not in state]
    strange = [name for name in state if name not in known and not _is_new_bias(name, layers)]
    strange += [name for name in stated if name not in layers]
    if missing or strange:
        what = f"has no '{strange[0]}'" if strange else f"has '{missing[0]}', the file has not"
        raise UnmatchedModule(f"{path}: the module {what}; give the module that was pruned")
    loaded = with_state(
        module, {name: np.array(tensor.numpy()) for name, tensor in state.items()}, {}
    )
    for name, found in stated.items():
        layer = loaded.get_submodule(name)
        for key, value in found.items():
            setattr(layer, key, tuple(value) if isinstance(value, list) else value)
    try:
        edits = content.get("restated")
        return with_edits(loaded, edits) if edits else loaded  # type: ignore[return-value]
    except Exception as error:  # the code of another module, or a file that somebody changed
        raise UnmatchedModule(
            f"{path}: the module's code is not the one whose numbers were restated "
            f"({first_line(error)}); give the module that was pruned"
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InvalidModel(
            f"{path}: no such file; 'onnxprune export-weights' writes one"
        ) from error
    except Exception as error:  # unpickling raises anything
        raise InvalidModel(
            f"{path}: not a pruned module ({first_line(error)}); 'onnxprune export-weights' writes "
            f"one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InvalidModel(f"{path}: not a pruned module; 'onnxprune export-weights' writes one")
    return content


def _is_new_bias(name: str, layers: Mapping[str, nn.Module]) -> bool:
    """Say whether a layer that has a weight and no bias got one."""
    path, _, last = name.rpartition(".")
    return last == "bias" and getattr(layers.get(path), "weight", None) is not None


def _is_stated(module: nn.Module, key: str) -> bool:
    return isinstance(getattr(module, key, None), int | tuple)


def _plain(value: Any) -> Any:
    return [int(one) for one in value] if isinstance(value, tuple) else int(value)
