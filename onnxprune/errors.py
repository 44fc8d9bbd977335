"""The tree of errors; every message says where, what was found, what was expected, what to do.

    OnnxPruneError
    ├── InvalidValue           a value out of its range; a ValueError, too
    │   └── UnknownName        a criterion, rule or other choice that does not exist
    │       └── UnknownOption  an option that does not exist; a TypeError, too
    ├── InvalidType            a value of a wrong type; a TypeError, too
    ├── InvalidModel           not a readable ONNX model, or one that has nothing to prune
    ├── UnsupportedOp          the torch mirror has no forward for this operator
    │   └── UnsupportedAttribute   ... or not for this attribute or value of it
    ├── InvalidOp              an operator description contradicts itself (its author's mistake)
    ├── InvalidPlan            a plan that cannot be read, is of another model, or empties a layer
    ├── UnreachableTarget      no plan meets the target
    ├── SurgeryError           the pruned graph is not the predicted one (our mistake: report it)
    ├── DataError              samples or labels that cannot be read or do not fit the model
    ├── OutOfMemory            an array that does not fit into memory; a MemoryError, too
    ├── OutputError            a file or folder that cannot be written
    ├── RunDirectoryError      a run directory that cannot be read or resumed
    ├── MissingPackage         an optional package that the request needs
    ├── EngineFailed           a cluster that is not there, or whose workers die again and again
    ├── RuntimeFailed          a runtime that refuses a model, crashes or hangs
    ├── ConversionError        a source that a converter cannot turn into ONNX
    └── UnmatchedModule        a torch module that is not what a pruned model was made from

A filter that cannot go is not an error but data: see `ChannelGroups.reasons`.
"""

import difflib
from collections.abc import Collection

from onnxprune.text import harmless

LONGEST = 1000
"""Characters of a message; the middle of a longer one says nothing that anybody reads."""


class OnnxPruneError(Exception):
    """Root of everything this package raises on purpose; its text is one readable line."""

    def __init__(self, text: str = "") -> None:
        super().__init__(harmless(text, LONGEST).strip())


class InvalidValue(OnnxPruneError, ValueError):
    """A value that is not in its range, or none of the choices."""


class InvalidType(OnnxPruneError, TypeError):
    """A value of another type than is expected."""


class InvalidModel(OnnxPruneError):
    """A model that cannot be read, checked or pruned at all."""


class UnsupportedOp(OnnxPruneError):
    """An operator the torch mirror cannot run."""

    what: str = ""
    instead: tuple[str, bool] | None = None
    """The criterion that works in its place, and whether weights can be corrected beside it."""


class UnsupportedAttribute(UnsupportedOp):
    """An attribute, or a value of it, that an operator's forward does not implement."""


class InvalidOp(OnnxPruneError):
    """An operator description that contradicts itself or another one."""


class InvalidPlan(OnnxPruneError, ValueError):
    """A plan that is not one, does not belong to the model, or that would empty a layer."""


class UnreachableTarget(OnnxPruneError):
    """A target that no plan within the limits can meet."""


class SurgeryError(OnnxPruneError):
    """The graph after surgery is not the one its cuts predict."""


class UnknownName(InvalidValue):
    """A name that is none of the choices; the message lists them."""


class UnknownOption(UnknownName, TypeError):
    """An option that does not exist; the message names the nearest."""


class DataError(OnnxPruneError, ValueError):
    """Samples or labels that cannot be read, or that do not fit the model."""


class OutOfMemory(OnnxPruneError, MemoryError):
    """What is computed at once does not fit into memory; the message says how to compute less."""


class OutputError(OnnxPruneError):
    """A file or folder that cannot be written."""


class RunDirectoryError(OnnxPruneError):
    """A run directory that cannot be read or resumed."""


class MissingPackage(OnnxPruneError):
    """An optional package that is not installed; the message says how to install it."""


class EngineFailed(OnnxPruneError):
    """A cluster that cannot be reached, or whose workers die on the same shard again and again."""


class RuntimeFailed(OnnxPruneError):
    """A runtime, in a process of its own, that refuses a model, crashes or hangs."""


class ConversionError(OnnxPruneError):
    """A source that a converter cannot turn into ONNX."""


class UnmatchedModule(OnnxPruneError):
    """A torch module that cannot be cut to be what a pruned model is; the message names where."""


LESS = "give --memory in MB, or lower --batch-size (memory= and batch_size= in Python)"


def out_of_memory(where: str, error: Exception) -> OutOfMemory | None:
    """Return the error to raise where another one means that memory is exhausted, else None.

    One of ours stays as it is, with the place that it names.

    Python and NumPy raise MemoryError, torch RuntimeError on a CPU and OutOfMemoryError on a GPU,
    onnxruntime errors of its own.
    """
    if isinstance(error, OutOfMemory):
        return error
    said = ("out of memory", "allocate memory", "bad_alloc", "bad allocation", "alloc_failed")
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in said):
        return OutOfMemory(f"{where}: out of memory; {LESS}")
    return None


NOTICE = 25
"""The level of a log line that everybody sees and that is no warning."""


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is none of the known ones.

    Raises: UnknownName that lists them and suggests the nearest; UnknownOption where `kind` is an
    option.
    """
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        error = UnknownOption if kind == "option" else UnknownName
        raise error(f"{kind} '{name}': unknown; expected one of {', '.join(known)}{hint}")
