"""Code of modules, written down by torch.fx: of the whole, else of the parts that it can follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.modules.tracing import evaluating
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

SPLITTING = ("split", "chunk", "unsafe_chunk", "unsafe_split", "split_with_sizes")


def written(module: nn.Module) -> fx.GraphModule:
    """Return a module as torch.fx writes it down, with the parameters that it has.

    Raises: whatever torch.fx raises for code that it cannot follow.
    """
    with evaluating(module):
        return torch.fx.GraphModule(module, _tracer().trace(module), type(module).__name__)


def written_parts(
    module: nn.Module, inputs: Sequence[Tensor]
) -> Iterator[tuple[str, fx.GraphModule, Sequence[Any]]]:
    """Yield the largest parts that torch.fx can write down, with what each is given first.

    A part has a name, as in `named_modules`; that of the whole is empty.
    Shapes: each input `[n, ...]`.
    """
    given: dict[str, Sequence[Any]] = {"": inputs}
    below = [""]
    while below:
        name = below.pop(0)
        part = module.get_submodule(name)
        code = _followed(part) if name in given else None
        if code is not None:
            yield name, code, given[name]
            continue
        given = given if name else _given(module, inputs)
        below += [f"{name}.{inner}".lstrip(".") for inner, _ in part.named_children()]


def _followed(part: nn.Module) -> fx.GraphModule | None:
    try:
        return written(part)
    except Exception:  # code that torch.fx cannot follow raises anything
        return None


def _given(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Sequence[Any]]:
    """What each part that runs is given the first time, unless it is given some of it by name."""
    found: dict[str, Sequence[Any]] = {}

    def note(name: str) -> Any:
        def hook(part: nn.Module, args: Any, named: Any) -> None:
            if not named:
                found.setdefault(name, args)

        return hook

    held = [
        part.register_forward_pre_hook(note(name), with_kwargs=True)
        for name, part in module.named_modules()
        if name
    ]
    try:
        with evaluating(module), torch.no_grad():
            module(*inputs)
    finally:
        for one in held:
            one.remove()
    return found


def _tracer() -> fx.Tracer:
    """A tracer that knows how many parts a tensor is split into, so that code may list them."""

    class Proxy(torch.fx.Proxy):
        def __len__(self) -> int:
            return _count(self.node) or super().__len__()

    class Tracer(torch.fx.Tracer):
        def proxy(self, node: Any) -> Any:
            return Proxy(node, self)

        def iter(self, obj: Any) -> Any:
            count = _count(obj.node)
            return iter([obj[k] for k in range(count)]) if count else super().iter(obj)

    return Tracer()


def _count(node: fx.Node) -> int:
    """How many parts a node splits a tensor into, 0 where that is not said."""
    if called(node) not in SPLITTING or len(node.args) < 2:
        return 0
    parts = node.args[1]
    if isinstance(parts, tuple | list):
        return len(parts)
    return parts if isinstance(parts, int) and "chunk" in called(node) else 0


def called(node: fx.Node) -> str:
    """Return the name of what a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
