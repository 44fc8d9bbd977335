"""Parameters that cannot be restated: some elements name channels, others follow an open axis.

A restated parameter is a constant. Where the model leaves an axis open (the batch, a height or a
width) and works an element out from it at run time, a constant would freeze that element.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnxprune.ops._op import Pins, Site

FROZEN = Pins("which names channels beside sizes that are only known at run time")


def follows_open(site: Site, *inputs: int) -> list[int]:
    """Return which elements of the inputs, parameters of one length, follow an open axis."""
    names = site.node.inputs
    known = [k for k in inputs if k < len(names) and names[k] and site.values[k] is not None]
    return sorted({int(e) for k in known for e in np.flatnonzero(site.open(names[k]))})


def names_channels(site: Site, index: int, elements: Iterable[int]) -> list[int]:
    """Return those of some elements of a known parameter that state a number of channels.

    The others are worked out from channels, and so come out right, or follow an open axis.
    """
    name = site.node.inputs[index]
    moving = np.ravel(site.counted(name) | site.open(name))
    return [k for k in elements if not moving[k]]
