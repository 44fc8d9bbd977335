"""How a network of torch is called: with one input, with several by place or name."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ConversionError

from ._export import Options
from ._inputs import Shape, check_all, each, needed, parameters, samples_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Call:
    """What a network is called with.

    Shapes: of one sample of each input.
    """

    shapes: Mapping[str, Shape]
    """In the order of the network."""
    keywords: tuple[str, ...] = ()
    """Those that go in by name; they are the last ones."""
    packed: bool = False
    """Whether the network takes any number of inputs, as `*inputs`."""

    def split(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Part values, one for each input, into those that go in by place and those by name."""
        first = len(values) - len(self.keywords)
        return tuple(values[:first]), dict(zip(self.keywords, values[first:], strict=True))

    def on(self, network: Callable[..., object], values: Sequence[Any]) -> object:
        """Call a network."""
        places, named = self.split(values)
        return network(*places, **named)

    def zeros(self, batch: int) -> "list[torch.Tensor]":
        """Make a batch of each input. Shapes: each `[batch, *shape]`."""
        import torch

        return [torch.zeros((batch, *shape)) for shape in self.shapes.values()]

    def spread(self, one: object) -> object:
        """Say the same of each input, in the structure that torch.export wants."""
        places, named = self.split([one] * len(self.shapes))
        if named:
            return dict.fromkeys(self.shapes, one)
        return (places,) if self.packed else places


def called(network: "torch.nn.Module", source: str, options: Options) -> Call:
    """Return how a network is called, by the shapes that a user gives.

    Raises: ConversionError: no shapes, too few, or such of inputs that it does not have.
    """
    takes = _takes(network)
    must = needed(takes)
    if options.input_shape is None and not options.input_shapes:
        if len(must) > 1:
            raise ConversionError(f"{source}: has the inputs {', '.join(must)}; {each(must)}")
        raise ConversionError(
            f"{source}: the shape of its input is not known; "
            "give the shape of one sample, such as 3,224,224"
        )
    if options.input_shape is not None and len(must) < 2:
        return Call({"input": options.input_shape}, packed=takes is ANY)
    names = must if options.input_shape is not None else [*takes]
    shapes = samples_of(options.input_shape, options.input_shapes, names, source)
    check_all(must, shapes, source)
    if takes is ANY:
        return Call(shapes, packed=True)
    places = itertools.takewhile(
        lambda pair: pair[0] == pair[1].name and pair[1].kind is not pair[1].KEYWORD_ONLY,
        zip(shapes, takes.values(), strict=False),
    )
    return Call(shapes, tuple(shapes)[len([*places]) :])


ANY: Mapping[str, inspect.Parameter] = {}
"""What a network takes that takes any number of inputs."""


def _takes(network: "torch.nn.Module") -> Mapping[str, inspect.Parameter]:
    """What a network takes, by name."""
    import torch

    if not isinstance(network, torch.jit.ScriptModule):
        return parameters(network.forward) or ANY
    forward: Any = network.forward
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    return {
        one.name: inspect.Parameter(
            one.name, kind, default=None if one.has_default_value() else empty
        )
        for one in forward.schema.arguments[1:]
    }
