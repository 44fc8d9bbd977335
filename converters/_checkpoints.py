"""Checkpoints of torch: what a file holds, and weights out of it.

A checkpoint is a pickle, and a pickle can run any code when it is loaded. torch loads weights
without running any (`weights_only=True`); whatever else a file holds is loaded only if the user
trusts it.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ConversionError
from onnxprune.plugins import beside, first_line

if TYPE_CHECKING:
    import torch

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
"""How files that torch.save wrote are called."""

INNER = ("state_dict", "model_state_dict", "model_state", "model_ema", "model", "net", "network")
"""Where training loops keep the weights of the network in what they save."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before the names: DataParallel, torch.compile, Lightning."""

TRUST = "--trust (trust=True in Python) loads it all the same, if you know where it comes from"


def is_path(weights: str) -> bool:
    """Say whether weights are a file, and not the name of published ones."""
    return Path(weights).suffix in (*SUFFIXES, ".safetensors") or Path(weights).exists()


def is_script(path: str | Path) -> bool:
    """Say whether a file is a TorchScript archive, which holds a network and no pickled code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(Path(name).name == "constants.pkl" for name in archive.namelist())


def code_in(path: str | Path) -> list[str]:
    """Return the names of what loading a checkpoint would call beside making weights.

    The file is read, not run. Files of before torch 1.6 are not told from others: an empty list.
    """
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # no checkpoint: whoever loads it says so better
        return []


def load_checkpoint(path: str | Path, *, trust: bool) -> Any:
    """Return what a checkpoint holds; nothing in it is executed unless it is trusted.

    Raises:
        ConversionError: no such file, no checkpoint, or one that runs code and is not trusted.
    """
    import torch

    try:
        with beside(str(path)):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except FileNotFoundError as error:
        raise ConversionError(f"{path}: no such file; expected a saved state dict") from error
    except Exception as error:  # unpickling raises anything
        if trust:
            raise ConversionError(f"{path}: cannot be loaded: {first_line(error)}") from error
        if called := code_in(path):
            raise ConversionError(
                f"{path}: is a pickle that runs code when it is loaded ({called[0]} and "
                f"{len(called) - 1} more), not a state dict; {TRUST}"
            ) from error
        raise ConversionError(
            f"{path}: not a state dict that loads with weights_only=True: {first_line(error)}; "
            f"save one with torch.save(network.state_dict(), path), or {TRUST}"
        ) from error


def load_state(path: str | Path, *, trust: bool) -> dict[str, "torch.Tensor"]:
    """Return the weights in a file by name: of torch.save or of safetensors.

    Raises:
        ConversionError: as `load_checkpoint`, or a file without weights.
    """
    if Path(path).suffix == ".safetensors":
        return _load_safetensors(path)
    found: Any = load_checkpoint(path, trust=trust)
    if not isinstance(found, Mapping) and hasattr(found, "state_dict"):
        found = found.state_dict()
    if not isinstance(found, Mapping):
        raise ConversionError(f"{path}: found {type(found).__name__}, expected a state dict")
    for name in INNER:
        inner: Any = found.get(name)
        if hasattr(inner, "state_dict"):
            inner = inner.state_dict()
        if isinstance(inner, Mapping):
            return dict(inner)
    return dict(found)


def load_weights(network: "torch.nn.Module", path: str, *, trust: bool = False) -> None:
    """Fill `network` from a checkpoint.

    Raises:
        ConversionError: as `load_state`, or weights of another network.
    """
    fill(network, load_state(path, trust=trust), path)


def fill(network: "torch.nn.Module", state: Mapping[str, "torch.Tensor"], path: str) -> None:
    """Fill `network` from weights by name, whatever wrapper they were saved through.

    Raises:
        ConversionError: weights of another network.
    """
    own = network.state_dict().keys()
    for prefix in PREFIXES:
        if not own & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: weights of another network: {error}") from error


def class_count(state: Mapping[str, "torch.Tensor"]) -> int | None:
    """Return the number of outputs of the last layer that the weights are of."""
    shapes = [value.shape for value in state.values() if getattr(value, "ndim", 0) in (2, 4)]
    return int(shapes[-1][0]) if shapes else None


def _load_safetensors(path: str | Path) -> dict[str, "torch.Tensor"]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConversionError(
            f"{path}: needs the package safetensors: pip install safetensors"
        ) from error
    try:
        return dict(load_file(str(path)))
    except Exception as error:  # it has no errors of its own
        raise ConversionError(f"{path}: cannot be loaded: {first_line(error)}") from error
