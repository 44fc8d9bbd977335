"""Random small networks, as ONNX text: blocks that a hypothesis strategy puts one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st


@dataclass(frozen=True)
class Image:
    """A tensor of the network, `[N, channels, size, size]`, or twice the size if it is open."""

    name: str
    channels: int
    size: int


@dataclass
class Network:
    """A network under construction; every block adds lines and returns what it made."""

    draw: Callable[[st.SearchStrategy[int]], int]
    open: bool
    lines: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    shared: dict[tuple[int, int], str] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)

    def pick(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`."""
        return self.draw(st.integers(low, high))

    def weight(self, *shape: int, kind: str = "w") -> str:
        """Declare a random constant."""
        name = f"{kind}{len(self.weights)}"
        self.weights.append(f"float[{','.join(map(str, shape))}] {name}")
        return name

    def ints(self, *values: int) -> str:
        """Add a constant vector of integers."""
        return self.node(f"Constant<value_ints=[{','.join(map(str, values))}]>()")

    def node(self, call: str, outputs: int = 1) -> str:
        """Add a node and return the names of its outputs, separated by commas."""
        names = ", ".join(f"t{len(self.lines)}_{k}" for k in range(outputs))
        self.lines.append(f"{names} = {call}")
        return names

    def image(self, call: str, channels: int, size: int) -> Image:
        """Add a node that makes an image."""
        return Image(self.node(call), channels, size)

    def some(self) -> Image:
        """Draw one of the last images."""
        recent = self.images[-4:]
        return recent[self.pick(0, len(recent) - 1)]

    def text(self, outputs: dict[str, str]) -> str:
        """The whole graph; outputs are names with their types."""
        heads = ", ".join(f"{kind} {name}" for name, kind in outputs.items())
        body = "\n".join(self.lines)
        image = "float[N,3,H,W]" if self.open else "float[N,3,8,8]"
        return f"g ({image} x) => ({heads}) <{', '.join(self.weights)}> {{\n{body}\n}}"

    def shape_slices(self, x: Image) -> tuple[str, str, str]:
        """Work out the batch, the channels and the size of an image at run time."""
        shape = self.node(f"Shape({x.name})")
        bounds = [self.ints(k) for k in (0, 1, 2, 4)]
        n, c, space = (
            self.node(f"Slice({shape}, {low}, {high})") for low, high in pairwise(bounds)
        )
        return n, c, space


def conv(net: Network, x: Image, channels: int | None = None) -> Image:
    """A convolution, with or without a bias, of 1 or 3 pixels."""
    channels, kernel = channels or net.pick(2, 6), net.pick(0, 1)
    w = net.weight(channels, x.channels, 2 * kernel + 1, 2 * kernel + 1)
    b = f", {net.weight(channels)}" if net.pick(0, 1) else ""
    pads = f"<pads=[{kernel},{kernel},{kernel},{kernel}]>"
    return net.image(f"Conv{pads}({x.name}, {w}{b})", channels, x.size)


def shared_conv(net: Network, x: Image) -> Image:
    """A convolution whose weight may have been used before."""
    channels = net.pick(2, 4)
    w = net.shared.setdefault((channels, x.channels), net.weight(channels, x.channels, 1, 1))
    return net.image(f"Conv({x.name}, {w})", channels, x.size)


def grouped(net: Network, x: Image) -> Image:
    """A convolution in two groups, or one group for each channel."""
    if x.channels % 2 or net.pick(0, 1):
        more = net.pick(1, 2)
        w = net.weight(more * x.channels, 1, 3, 3)
        call = f"Conv<group={x.channels}, pads=[1,1,1,1]>({x.name}, {w})"
        return net.image(call, more * x.channels, x.size)
    channels = 2 * net.pick(1, 3)
    w = net.weight(channels, x.channels // 2, 1, 1)
    return net.image(f"Conv<group=2>({x.name}, {w})", channels, x.size)


def activate(net: Network, x: Image) -> Image:
    """An activation or a normalisation."""
    c = x.channels
    calls = [
        lambda: f"Relu({x.name})",
        lambda: f"Sigmoid({x.name})",
        lambda: f"HardSwish({x.name})",
        lambda: f"PRelu({x.name}, {net.weight(c, 1, 1)})",
        lambda: f"Mul({x.name}, {net.weight(1, c, 1, 1)})",
        lambda: f"Add({net.weight(c, 1, 1)}, {x.name})",
        lambda: f"Softmax<axis=3>({x.name})",
        lambda: f"InstanceNormalization({x.name}, {net.weight(c)}, {net.weight(c)})",
        lambda: (
            f"BatchNormalization({x.name}, {net.weight(c)}, {net.weight(c)}, "
            f"{net.weight(c)}, {net.weight(c, kind='var')})"
        ),
    ]
    return net.image(calls[net.pick(0, len(calls) - 1)](), c, x.size)


def join(net: Network, x: Image) -> Image:
    """A sum or a product with an image of the same shape, made where there is none."""
    same = [i for i in net.images if (i.channels, i.size) == (x.channels, x.size)]
    other = same[net.pick(0, len(same) - 1)] if net.pick(0, 2) else conv(net, x, x.channels)
    kind = ("Add", "Sum", "Mul", "Max")[net.pick(0, 3)]
    return net.image(f"{kind}({x.name}, {other.name})", x.channels, x.size)


def concat(net: Network, x: Image) -> Image:
    """A Concat with one or two images of the same size, perhaps the same."""
    same = [i for i in net.images if i.size == x.size]
    parts = [x] + [same[net.pick(0, len(same) - 1)] for _ in range(net.pick(1, 2))]
    names = ", ".join(part.name for part in parts)
    return net.image(f"Concat<axis=1>({names})", sum(p.channels for p in parts), x.size)


def split(net: Network, x: Image) -> Image:
    """A split of which one part is convolved, then joined in either order."""
    if x.channels < 2:
        return x
    first = net.pick(1, x.channels - 1)
    sizes = net.ints(first, x.channels - first)
    a, b = net.node(f"Split<axis=1>({x.name}, {sizes})", 2).split(", ")
    convolved = conv(net, Image(b, x.channels - first, x.size), x.channels - first)
    b = net.node(f"Add({b}, {convolved.name})")
    return net.image(f"Concat<axis=1>({b}, {a})", x.channels, x.size)


def select(net: Network, x: Image) -> Image:
    """Channels by bounds, with a step, or by index."""
    if x.channels < 3:
        return x
    kind, c = net.pick(0, 2), x.channels
    one = net.ints(1)
    if kind == 0:
        start = net.pick(0, 1)
        bounds = f"{net.ints(start)}, {net.ints(c - 1)}, {one}"
        return net.image(f"Slice({x.name}, {bounds})", c - 1 - start, x.size)
    if kind == 1:
        bounds = f"{net.ints(0)}, {net.ints(c)}, {one}, {net.ints(2)}"
        return net.image(f"Slice({x.name}, {bounds})", -(-c // 2), x.size)
    indices = [net.pick(-c, c - 1) for _ in range(net.pick(2, c))]
    call = f"Gather<axis=1>({x.name}, {net.ints(*indices)})"
    return net.image(call, len(indices), x.size)


def shuffle(net: Network, x: Image) -> Image:
    """A channel shuffle, with bounds written or worked out."""
    if x.channels % 2:
        return x
    half, s = x.channels // 2, x.size
    if not net.open and net.pick(0, 1):
        five, four = net.ints(-1, 2, half, s, s), net.ints(0, x.channels, s, s)
    else:
        n, c, space = net.shape_slices(x)
        two = net.ints(2)
        c = net.node(f"Div({c}, {two})") if net.pick(0, 1) else net.ints(half)
        five = net.node(f"Concat<axis=0>({n}, {two}, {c}, {space})")
        four = net.node(f"Concat<axis=0>({n}, {net.ints(-1)}, {space})")
    r = net.node(f"Reshape({x.name}, {five})")
    t = net.node(f"Transpose<perm=[0,2,1,3,4]>({r})")
    return net.image(f"Reshape({t}, {four})", x.channels, s)


def excite(net: Network, x: Image) -> Image:
    """Squeeze and excite, with convolutions or matrices."""
    c, r = x.channels, net.pick(2, 3)
    p = net.node(f"GlobalAveragePool({x.name})")
    if net.pick(0, 1):
        a = net.node(f"Relu({net.node(f'Conv({p}, {net.weight(r, c, 1, 1)})')})")
        gate = net.node(f"Conv({a}, {net.weight(c, r, 1, 1)})")
    else:
        a = net.node(f"Gemm({net.node(f'Flatten({p})')}, {net.weight(c, r)})")
        m = net.node(f"MatMul({a}, {net.weight(r, c)})")
        gate = net.node(f"Reshape({m}, {net.ints(-1, c, 1, 1)})")
    return net.image(f"Mul({x.name}, {net.node(f'Sigmoid({gate})')})", c, x.size)


def mask(net: Network, x: Image) -> Image:
    """A map of one channel, broadcast, expanded or tiled."""
    m = net.node(f"Conv({x.name}, {net.weight(1, x.channels, 1, 1)})")
    kind = net.pick(0, 3)
    if kind == 1:
        m = net.node(f"Expand({m}, {net.node(f'Shape({x.name})')})")
    elif kind == 2:
        m = net.node(f"Expand({m}, {net.ints(1, x.channels, 1, 1)})")
    elif kind == 3:
        m = net.node(f"Tile({m}, {net.ints(1, x.channels, 1, 1)})")
    return net.image(f"Mul({x.name}, {m})", x.channels, x.size)


def resize(net: Network, x: Image) -> Image:
    """Half or twice the size, by a pool, a Resize, a transposed convolution or blocks."""
    c, s, kind = x.channels, x.size, net.pick(0, 6)
    if kind < 2 and s > 1:
        pool = ("MaxPool", "AveragePool")[kind]
        return net.image(f"{pool}<kernel_shape=[2,2], strides=[2,2]>({x.name})", c, s // 2)
    if kind == 2 and s > 1 and s % 2 == 0 and c <= 4:
        return net.image(f"SpaceToDepth<blocksize=2>({x.name})", 4 * c, s // 2)
    if s > 8:
        return x
    if kind == 3:
        factors = net.node("Constant<value_floats=[1.0,1.0,2.0,2.0]>()")
        return net.image(f'Resize<mode="linear">({x.name}, , {factors})', c, 2 * s)
    if kind == 4:
        n, read, space = net.shape_slices(x)
        channels = net.ints(c) if net.pick(0, 1) else read
        twice = net.node(f"Mul({space}, {net.ints(2)})") if net.open else net.ints(2 * s, 2 * s)
        sizes = net.node(f"Concat<axis=0>({n}, {channels}, {twice})")
        return net.image(f"Resize({x.name}, , , {sizes})", c, 2 * s)
    if kind == 5 and c % 4 == 0:
        mode = ("DCR", "CRD")[net.pick(0, 1)]
        call = f'DepthToSpace<blocksize=2, mode="{mode}">({x.name})'
        return net.image(call, c // 4, 2 * s)
    channels = net.pick(2, 4)
    call = f"ConvTranspose<strides=[2,2]>({x.name}, {net.weight(c, channels, 2, 2)})"
    return net.image(call, channels, 2 * s)


def turn(net: Network, x: Image) -> Image:
    """There and back again: channels last, or space as a sequence."""
    c, s, k = x.channels, x.size, net.weight(x.channels)
    if net.pick(0, 1):
        t = net.node(f"Transpose<perm=[0,2,3,1]>({x.name})")
        m = net.node(f"Mul({t}, {k})")
        return net.image(f"Transpose<perm=[0,3,1,2]>({m})", c, s)
    t = net.node(f"Transpose<perm=[0,2,1]>({net.node(f'Reshape({x.name}, {net.ints(0, c, -1)})')})")
    m = net.node(f"Transpose<perm=[0,2,1]>({net.node(f'Add({t}, {k})')})")
    n, read, space = net.shape_slices(x)
    channels = net.ints(c) if net.pick(0, 1) else read
    target = net.node(f"Concat<axis=0>({n}, {channels}, {space})")
    return net.image(f"Reshape({m}, {target if net.open else net.ints(-1, c, s, s)})", c, s)


def pointwise(net: Network, x: Image) -> Image:
    """A dense layer for each pixel, channels last."""
    channels = net.pick(2, 6)
    t = net.node(f"Transpose<perm=[0,2,3,1]>({x.name})")
    m = net.node(f"MatMul({t}, {net.weight(x.channels, channels)})")
    b = net.node(f"Add({m}, {net.weight(channels)})")
    return net.image(f"Transpose<perm=[0,3,1,2]>({b})", channels, x.size)


def normalise(net: Network, x: Image) -> Image:
    """Written out: by the mean and deviation over space, or in groups of channels."""
    c = x.channels
    if c % 2 == 0 and net.pick(0, 1):
        r = net.node(f"Reshape({x.name}, {net.ints(0, c // 2, -1)})")
        n = net.node(f"InstanceNormalization({r}, {net.weight(c // 2)}, {net.weight(c // 2)})")
        n = net.node(f"Reshape({n}, {net.node(f'Shape({x.name})')})")
    else:
        d = net.node(f"Sub({x.name}, {net.node(f'ReduceMean<axes=[2,3]>({x.name})')})")
        v = net.node(f"ReduceMean<axes=[2,3]>({net.node(f'Mul({d}, {d})')})")
        one = net.node("Constant<value_float=1.0>()")
        deviation = net.node(f"Sqrt({net.node(f'Add({v}, {one})')})")
        n = net.node(f"Div({d}, {deviation})")
    scaled = net.node(f"Mul({n}, {net.weight(c, 1, 1)})")
    return net.image(f"Add({scaled}, {net.weight(c, 1, 1)})", c, x.size)


def pad(net: Network, x: Image) -> Image:
    """Channels of zeros before and after, or a border in space that is cut off again."""
    before, after = net.pick(-1, 2), net.pick(0, 2)
    channels = x.channels + before + after
    if channels < 2 or x.channels < 2:
        return x
    amounts = net.ints(0, before, 1, 1, 0, after, -1, -1)
    return net.image(f"Pad({x.name}, {amounts})", channels, x.size)


def head(net: Network, x: Image, name: str) -> str:
    """An output: a map, or a vector in one of three layouts; returns its type."""
    kind, flat = net.pick(0, 1 if net.open else 3), x.channels * x.size**2
    if kind == 0:
        net.lines.append(f"{name} = Conv({x.name}, {net.weight(2, x.channels, 1, 1)})")
        return f"float[N,2,{name}0,{name}1]" if net.open else f"float[N,2,{x.size},{x.size}]"
    if kind == 1:
        f = net.node(f"Flatten({net.node(f'GlobalAveragePool({x.name})')})")
        flat = x.channels
    elif kind == 2:
        f = net.node(f"Reshape({x.name}, {net.ints(-1, flat)})")
    else:
        f = net.node(f"Flatten({net.node(f'Transpose<perm=[0,2,3,1]>({x.name})')})")
    net.lines.append(f"{name} = Gemm({f}, {net.weight(flat, 2)})")
    return "float[N,2]"


def attend(net: Network, x: Image) -> Image:
    """Each pixel attends to all, in two heads of two or three."""
    size, width = net.pick(2, 3), x.channels
    if net.open or x.size > 8:
        return x
    tokens = net.node(f"Reshape({x.name}, {net.ints(0, width, -1)})")
    rows = net.node(f"Transpose<perm=[0,2,1]>({tokens})")

    def heads(perm: str) -> str:
        y = net.node(f"MatMul({rows}, {net.weight(width, 2 * size)})")
        y = net.node(f"Add({y}, {net.weight(2 * size)})") if net.pick(0, 1) else y
        return net.node(
            f"Transpose<perm=[{perm}]>({net.node(f'Reshape({y}, {net.ints(0, -1, 2, size)})')})"
        )

    scores = net.node(f"MatMul({heads('0,2,1,3')}, {heads('0,2,3,1')})")
    means = net.node(f"MatMul({net.node(f'Softmax<axis=-1>({scores})')}, {heads('0,2,1,3')})")
    joined = net.node(f"Transpose<perm=[0,2,1,3]>({means})")
    flat = net.node(f"Reshape({joined}, {net.ints(0, -1, 2 * size)})")
    out = net.node(f"MatMul({flat}, {net.weight(2 * size, width)})")
    back = net.node(f"Transpose<perm=[0,2,1]>({out})")
    return net.image(f"Reshape({back}, {net.ints(0, width, x.size, x.size)})", width, x.size)


BLOCKS = (conv, shared_conv, grouped, activate, join, concat, split, select, shuffle)
BLOCKS += (excite, mask, resize, turn, pointwise, normalise, pad, attend)


@st.composite
def networks(draw: st.DrawFn) -> str:
    """A network of up to ten blocks with one or two heads, as ONNX text."""
    net = Network(lambda strategy: draw(strategy), draw(st.booleans()))
    net.images.append(conv(net, Image("x", 3, 8)))
    for _ in range(net.pick(1, 10)):
        block = BLOCKS[net.pick(0, len(BLOCKS) - 1)]
        made = block(net, net.some())
        if made not in net.images and made.channels <= 32:
            net.images.append(made)
    heads = {"y": head(net, net.images[-1], "y")}
    if net.pick(0, 2) == 0:
        heads["z"] = head(net, net.some(), "z")
    return net.text(heads)
