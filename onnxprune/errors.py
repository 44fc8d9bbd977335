"""The tree of errors; every message says where, what was found, what was expected, what to do.

    OnnxPruneError
    ├── InvalidModel           not a readable ONNX model, or one that has nothing to prune
    ├── UnsupportedOp          the torch mirror has no forward for this operator
    │   └── UnsupportedAttribute   ... or not for this attribute or value of it
    ├── InvalidOp              an operator description contradicts itself (its author's mistake)
    ├── InvalidPlan            a plan that does not belong to the model, or empties a layer
    ├── UnreachableTarget      no plan meets the target
    ├── SurgeryError           the pruned graph is not the predicted one (our mistake: report it)
    ├── UnknownName            a criterion, rule or other choice that does not exist
    ├── DataError              samples or labels that cannot be read or do not fit the model
    ├── OutputError            a file or folder that cannot be written
    ├── RunDirectoryError      a run directory that cannot be read or resumed
    ├── MissingPackage         an optional package that the request needs
    └── ConversionError        a source that a converter cannot turn into ONNX

A filter that cannot go is not an error but data: see `ChannelGroups.reasons`.
"""

import difflib
from collections.abc import Collection


class OnnxPruneError(Exception):
    """Root of everything this package raises on purpose; its text is one readable line."""


class InvalidModel(OnnxPruneError):
    """A model that cannot be read, checked or pruned at all."""


class UnsupportedOp(OnnxPruneError):
    """An operator the torch mirror cannot run."""


class UnsupportedAttribute(UnsupportedOp):
    """An attribute, or a value of it, that an operator's forward does not implement."""


class InvalidOp(OnnxPruneError):
    """An operator description that contradicts itself or another one."""


class InvalidPlan(OnnxPruneError):
    """A plan that does not belong to the model, or that would empty a layer."""


class UnreachableTarget(OnnxPruneError):
    """A target that no plan within the limits can meet."""


class SurgeryError(OnnxPruneError):
    """The graph after surgery is not the one its cuts predict."""


class UnknownName(OnnxPruneError):
    """A name that is none of the choices; the message lists them."""


class DataError(OnnxPruneError):
    """Samples or labels that cannot be read, or that do not fit the model."""


class OutputError(OnnxPruneError):
    """A file or folder that cannot be written."""


class RunDirectoryError(OnnxPruneError):
    """A run directory that cannot be read or resumed."""


class MissingPackage(OnnxPruneError):
    """An optional package that is not installed; the message says how to install it."""


class ConversionError(OnnxPruneError):
    """A source that a converter cannot turn into ONNX."""


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is none of the known ones.

    Raises: UnknownName that lists them and suggests the nearest.
    """
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UnknownName(f"{kind} '{name}': unknown; expected one of {', '.join(known)}{hint}")
