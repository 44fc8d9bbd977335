"""Attention, of nets that mix convolutions with transformers.

Channels: whole heads may go, each with its queries, keys and values. The features of a head stay,
because the products of queries and keys are scaled by their number.
Relevance: not defined, so LRP refuses it; the criterion taylor follows the gradient.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op, without
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.site import Edit, PrunedSite, Shape, Site

if TYPE_CHECKING:
    from torch import Tensor

HEADS = "which needs all features of a head"
CACHED = Pins("which keeps what it has read for the next call")


def _kept_heads(site: PrunedSite, index: int, count: int) -> int:
    """How many of `count` heads on the last axis of an input survive."""
    alive = site.kept[index].get(2)
    return count if alive is None else int(alive.reshape(count, -1).any(1).sum())


def _mask_axes(shape: Shape | None) -> str:
    """The axes of a mask: one for each head, or one for all."""
    if shape is None or len(shape) < 3 or shape[-3] == 1:
        return "*"
    return "N (h R) L S" if len(shape) == 4 else "(h R) L S"


def _attention_channels(site: Site) -> How:
    """Each head of keys and values serves R heads of queries."""
    queries, keys = site.shapes[0], site.shapes[1]
    if queries is None or keys is None:
        return UNKNOWN
    if any(site.node.inputs[4:]) or any(site.node.outputs[1:]):
        return CACHED
    m = _mask_axes(site.shapes[3] if len(site.shapes) > 3 else None)
    if len(queries) == 3:
        heads = site.attribute("kv_num_heads")
        sizes = {"h": heads, "R": site.attribute("q_num_heads") // heads}
        return Axes(f"N L (h R E), N S (h E), N S (h V), {m} -> N L (h R V)", HEADS, sizes=sizes)
    e = "E" if site.attribute("scale") is None else "e"
    sizes = {"h": keys[1], "R": queries[1] // keys[1]}
    pattern = f"N (h R) L {e}, N h S {e}, N h S v, {m} -> N (h R) L v"
    return Axes(pattern, HEADS, sizes=sizes)


def _restate_heads(site: PrunedSite) -> Edit | None:
    heads = site.attribute("kv_num_heads")
    if heads is None:
        return None
    left = _kept_heads(site, 1, heads)
    both = {"kv_num_heads": left, "q_num_heads": site.attribute("q_num_heads") // heads * left}
    return None if left == heads else Edit(attributes=both)


def _apart(x: Tensor, heads: int | None) -> Tensor:
    """Heads on an axis of their own. Shapes: `[N, L, H * E]` or `[N, H, L, E]` -> the latter."""
    if x.ndim == 4 or heads is None:
        return x
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _unseen(scores: Tensor, earlier: int, causal: int, left: int, right: int) -> Tensor:
    """Which keys a query may not see; `earlier` ones stand before all queries.

    Shapes: scores `[.., L, S]` -> `[L, S]`.
    """
    queries, keys = (torch.arange(n, device=scores.device) for n in scores.shape[-2:])
    ahead = keys - queries[:, None] - earlier
    late = (ahead > 0) & bool(causal) | (ahead > right) & (right >= 0)
    return late | (ahead < -left) & (left >= 0)


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    past_keys: Tensor | None = None,
    past_values: Tensor | None = None,
    lengths: Tensor | None = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Means of values, weighted by how well their keys fit a query; also all keys and values.

    Past keys and values come before the given ones.
    Shapes: queries `[N, H, L, E]`, keys `[N, h, S, E]`, values `[N, h, S, V]` -> `[N, H, L, V]`, or
    heads side by side, `[N, L, H * E]`; mask broadcast to `[N, H, L, S]`.
    Source: ONNX operator Attention-25.
    """
    if lengths is not None:
        raise UnsupportedAttribute("a count of keys and values for each sample; expected none")
    q, k, v = (
        _apart(x, heads)
        for x, heads in ((queries, q_num_heads), (keys, kv_num_heads), (values, kv_num_heads))
    )
    earlier = 0 if past_keys is None else past_keys.shape[2]
    all_k, all_v = (
        x if past is None else torch.cat((past, x), 2)
        for past, x in ((past_keys, k), (past_values, v))
    )
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (all_k, all_v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if softcap == 0.0 else softcap * torch.tanh(scores / softcap)
    unseen = _unseen(scores, earlier, is_causal, left_window_size, right_window_size)
    if mask is not None and mask.dtype == torch.bool:
        unseen = unseen | ~mask
    elif mask is not None:
        scores = scores + mask
    scores = scores.masked_fill(unseen, float("-inf"))
    y = torch.softmax(scores, -1).nan_to_num() @ v
    return (y if queries.ndim == 4 else y.transpose(1, 2).flatten(2)), all_k, all_v


_attends = partial(
    op, "Attention", _attention_channels, restate=_restate_heads, relevance=Relevance.SLOPE
)
_attends(since=(25,))(attention)
_attends(since=(23, 24))(without(attention, "left_window_size", "right_window_size"))


def _rotated_channels(site: Site) -> How:
    if site.shapes[0] is None:
        return UNKNOWN
    heads = site.attribute("num_heads")
    x, sizes = ("N h L E", {}) if site.rank() == 4 else ("N L (h E)", {"h": heads})
    return Axes(f"{x}, *, *, * -> {x}", "which turns features in pairs", sizes=sizes)


def _restate_rotated(site: PrunedSite) -> Edit | None:
    heads = site.attribute("num_heads")
    if heads is None or site.rank() == 4:
        return None
    left = _kept_heads(site, 0, heads)
    return None if left == heads else Edit(attributes={"num_heads": left})


@op(
    "RotaryEmbedding",
    _rotated_channels,
    since=(23,),
    relevance=Relevance.LINEAR,
    restate=_restate_rotated,
)
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Any = None,
    /,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Turn pairs of features by angles that grow with the position.

    Shapes: x `[N, H, L, E]` or `[N, L, H * E]`, positions `[N, L]`, cosines and sines
    `[P, angles]`, or `[N, L, angles]` without positions -> as x.
    Source: ONNX operator RotaryEmbedding-23.
    """
    heads = _apart(x, num_heads)
    size = rotary_embedding_dim or heads.shape[-1]
    c, s = (t[:, None] if positions is None else t[positions][:, None] for t in (cosines, sines))
    turned, rest = heads[..., :size], heads[..., size:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((c * a - s * b, s * a + c * b), -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat((c * a - s * b, s * a + c * b), -1)
    y = torch.cat((turned, rest), -1)
    return y if x.ndim == 4 else y.transpose(1, 2).flatten(2)
