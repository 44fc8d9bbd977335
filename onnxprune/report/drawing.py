"""A picture of a network: its convolutions and joins in layers, its groups in colours.

One SVG text, made of nothing but the graph, so that the same model gives the same picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from onnxprune.channels import ChannelGroups
from onnxprune.files import write_whole
from onnxprune.graph import Graph
from onnxprune.report.layout import Layout, Point, Size, lay_out
from onnxprune.report.skeleton import Vertex, find_vertices, pinning

COLOURS = (
    *("#77aadd", "#ee8866", "#eedd88", "#ffaabb"),
    *("#99ddff", "#44bb99", "#bbcc33", "#c9a3d6"),
)
"""Fills for black text, distinct for colour-blind readers too. Source: Tol 2021, Colour schemes,
"light"; its olive, hard to tell from pear at this size, is replaced."""
PINNED, PLAIN = "url(#pinned)", "#ffffff"
HATCHED = (
    '<defs><pattern id="pinned" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#ececec"/>'
    '<rect width="2" height="6" fill="#c9c9c9"/></pattern></defs>'
)
NEAR = 12
"""Parts before and after in which a colour is used but once, where the palette allows."""

BOX, MARK, LETTER = (160.0, 36.0), 20.0, 6.0
"""Pixels: the box of a convolution, the height of other marks, and the width of a letter."""
BOX_LETTERS, MARK_LETTERS = 24, 18
MARGIN, LINE, COLUMN = 20.0, 16.0, 400.0
"""Pixels: around the picture; one line and one column of the legend."""
LISTED = 40
"""More groups than that are counted in the legend, not listed."""

STYLE = """
text { font: 11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1c1f23; }
.small { font-size: 10px; } .title { font-size: 16px; font-weight: 600; }
.muted { fill: #5c646c; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.edges path { fill: none; stroke: #8d959d; stroke-width: 1.2; stroke-linejoin: round; }
.parts rect { stroke: #4a5158; stroke-width: .8; } .parts .pinning { stroke: #b2182b;
  stroke-width: 1.8; stroke-dasharray: 4 2; }
"""


@dataclass(frozen=True)
class Box:
    """A part with what is written into it; `group` is None where several or none meet."""

    vertex: Vertex
    group: int | None
    title: str
    width: int = 0
    removable: int = 0
    reason: str = ""


def write_drawing(
    graph: Graph, groups: ChannelGroups, path: str | Path, title: str = "network"
) -> Path:
    """Draw a network into an SVG file, whole or not at all.

    Raises: OutputError when the place is not writable.
    """
    return write_whole(path, draw(graph, groups, title))


def draw(graph: Graph, groups: ChannelGroups, title: str = "network") -> str:
    """Return the picture of a network as SVG."""
    boxes = list(_boxes(groups, find_vertices(graph, groups)))
    layout = lay_out(
        [_size(box) for box in boxes],
        [(source, k) for k, box in enumerate(boxes) for source in box.vertex.sources],
    )
    return _Picture(title, groups, boxes, layout).text()


def short_name(name: str, op_type: str = "") -> str:
    """Return a node's name without what exporters repeat in it.

    >>> short_name("/layer1/layer1.0/conv1/Conv", "Conv")
    'layer1.0/conv1'
    """
    parts = [part for part in name.split("/") if part]
    for said in (op_type, op_type.lower()):
        if len(parts) > 1 and re.sub(r"_\d+$", "", parts[-1]) == said:
            parts.pop()
    return "/".join(
        part for part, after in pairwise([*parts, ""]) if not after.startswith(f"{part}.")
    )


def _boxes(groups: ChannelGroups, parts: Sequence[Vertex]) -> Iterator[Box]:
    filters = {found.node: found for found in groups.filters}
    for part in parts:
        node = part.node
        if node is None:
            yield Box(part, None, part.tensor)
        elif part.kind != "filters":
            yield Box(part, _group_of(groups, part.tensor), node.op_type)
        elif node.name not in filters:
            yield Box(part, None, node.name, reason="its filters are not known")
        else:
            channels = filters[node.name].channels
            owned = channels[channels >= 0]
            reasons = dict.fromkeys(
                groups.reasons[c] for c in owned.tolist() if c in groups.reasons
            )
            yield Box(
                part,
                Counter(groups.group[owned].tolist()).most_common(1)[0][0] if owned.size else None,
                node.name,
                channels.size,
                int(groups.removable[owned].sum()),
                "; ".join(reasons),
            )


def _group_of(groups: ChannelGroups, tensor: str) -> int | None:
    """The only group with channels in a tensor, or None."""
    found = {
        int(group)
        for channels in groups.cuts.get(tensor, {}).values()
        for group in groups.group[channels[channels >= 0]]
    }
    return found.pop() if len(found) == 1 else None


def _size(box: Box) -> Size:
    if box.vertex.kind == "filters":
        return BOX
    return (LETTER * len(_clip(box.title, MARK_LETTERS)) + 18, MARK)


def colours_of(groups: ChannelGroups, boxes: Sequence[Box]) -> dict[int, str]:
    """Give each group a colour that none of those drawn near it has, where there are enough."""
    places: dict[int, list[int]] = {}
    for place, box in enumerate(boxes):
        if box.group is not None and box.vertex.kind == "filters":
            places.setdefault(box.group, []).append(place)
    found: dict[int, str] = {}
    used: dict[str, list[int]] = {colour: [] for colour in COLOURS}
    for group, mine in places.items():
        if group in groups.pinned:
            found[group] = PINNED
            continue

        def closeness(colour: str, mine: Sequence[int] = mine) -> tuple[int, int]:
            near = [min(abs(a - b) for a in mine) for b in used[colour]]
            return sum(distance <= NEAR for distance in near), len(near)

        found[group] = min(COLOURS, key=closeness)
        used[found[group]] += mine
    return found


class _Picture:
    def __init__(
        self, title: str, groups: ChannelGroups, boxes: Sequence[Box], layout: Layout
    ) -> None:
        self.title, self.groups, self.boxes, self.layout = title, groups, boxes, layout
        self.colours = colours_of(groups, boxes)
        self.pinning = pinning(groups)

    def text(self) -> str:
        inner = max(self.layout.width, 2 * COLUMN)
        legend, top = self._legend(inner)
        width, height = inner + 2 * MARGIN, top + self.layout.height + MARGIN
        shift = f"translate({MARGIN + (inner - self.layout.width) / 2:.1f} {top:.1f})"
        boxes = zip(self.boxes, self.layout.centres, strict=True)
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}">',
            f"<style>{STYLE}</style>",
            HATCHED,
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *legend,
            f'<g class="edges" transform="{shift}">',
            *(f'<path d="{_path(points)}"/>' for points in self.layout.lines),
            "</g>",
            f'<g class="parts" transform="{shift}">',
            *(self._box(box, *centre) for box, centre in boxes),
            "</g>",
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _box(self, box: Box, x: float, y: float) -> str:
        filters = box.vertex.kind == "filters"
        width, height = _size(box)
        x, y = x - width / 2, y - height / 2
        fill = PLAIN if box.group is None else self.colours.get(box.group, PLAIN)
        if filters and not box.removable:
            fill = PINNED
        pins = box.vertex.node is not None and f"{box.vertex.node}" in self.pinning
        parts = [
            f"<title>{_xml(self._tip(box))}</title>",
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'rx="{3 if filters else height / 2:g}" fill="{fill}"'
            + (' class="pinning"/>' if pins else "/>"),
        ]
        if filters:
            right = x + width - 6
            share = f"{box.width:,} filters, {_percent(box.removable, box.width)}"
            number = "" if box.group is None else f"#{box.group + 1}"
            parts += [
                _text(x + 6, y + 14, _fit(_label(box), BOX_LETTERS)),
                _text(x + 6, y + 29, share, "small"),
                _text(right, y + 29, number, "small end"),
            ]
        else:
            parts.append(_text(x + width / 2, y + 14, _clip(box.title, MARK_LETTERS), "middle"))
        return f"<g>{''.join(parts)}</g>"

    def _tip(self, box: Box) -> str:
        """What shows when the mouse rests on a box."""
        if box.vertex.node is None:
            return f"{box.vertex.kind} {box.title}"
        lines = [f"{box.vertex.node}"]
        if box.vertex.kind == "filters":
            lines.append(f"{box.removable:,} of {box.width:,} filters may go")
        if box.group is not None:
            lines.append(f"group #{box.group + 1}, {self.groups.names[box.group]}")
        if box.reason:
            lines.append(f"stays: {box.reason}")
        return "\n".join(lines)

    def _legend(self, width: float) -> tuple[list[str], float]:
        """The head of the picture, and where it ends."""
        total = sum(box.width for box in self.boxes)
        may_go = sum(box.removable for box in self.boxes)
        lines = [
            _text(MARGIN, MARGIN + 12, self.title, "title"),
            _text(
                MARGIN,
                MARGIN + 32,
                f"{may_go:,} of {total:,} filters ({_percent(may_go, total)}) may go. Convolutions "
                "of one #number and colour are a group: their filters go together.",
                "muted",
            ),
            _text(
                MARGIN,
                MARGIN + 32 + LINE,
                "Hatched ones stay; a dashed frame marks what they stay for.",
                "muted",
            ),
        ]
        members: dict[int, list[Box]] = {}
        for box in self.boxes:
            if box.group is not None and box.vertex.kind == "filters":
                members.setdefault(box.group, []).append(box)
        pinned = [group for group in members if group in self.groups.pinned]
        tied = [g for g, boxes in members.items() if len(boxes) > 1 and g not in pinned]
        top = MARGIN + 68
        for groups, columns in ((tied, int(width // COLUMN)), (pinned, 1)):
            shown = groups[:LISTED]
            rows = -(-len(shown) // columns)
            for place, group in enumerate(shown):
                x = MARGIN + place // rows * (width / columns)
                y = top + place % rows * LINE
                lines.append(self._entry(group, members[group], x, y, width / columns))
            top += rows * LINE
            if len(groups) > LISTED:
                lines.append(_text(MARGIN, top + 10, f"and {len(groups) - LISTED} more", "small"))
                top += LINE
        return lines, top + MARGIN / 2

    def _entry(self, group: int, boxes: Sequence[Box], x: float, y: float, width: float) -> str:
        """One line of the legend."""
        why = self.groups.pinned.get(group)
        more = f" and {len(boxes) - 1} more" if len(boxes) > 1 else ""
        line = f"#{group + 1}  {_label(boxes[0])}{more}" + (f": {why}" if why else "")
        tip = "\n".join([*(box.title for box in boxes), *([why] if why else [])])
        return (
            f"<g><title>{_xml(tip)}</title>"
            f'<rect x="{x:.1f}" y="{y:.1f}" width="18" height="11" rx="2" '
            f'fill="{self.colours[group]}"/>'
            f"{_text(x + 25, y + 10, _clip(line, int(width / LETTER) - 6), 'small')}</g>"
        )


def _label(box: Box) -> str:
    return short_name(box.title, box.vertex.node.op_type if box.vertex.node else "")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{mark}>{_xml(text)}</text>' if text else ""


def _path(points: Sequence[Point]) -> str:
    """Straight where points share a coordinate, else a curve that starts and ends upright."""
    (x, y), steps = points[0], [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for a, b in points[1:]:
        if abs(a - x) < 1e-3 or abs(b - y) < 1e-3:
            steps.append(f"L{a:.1f} {b:.1f}")
        else:
            middle = (y + b) / 2
            steps.append(f"C{x:.1f} {middle:.1f} {a:.1f} {middle:.1f} {a:.1f} {b:.1f}")
        x, y = a, b
    return "".join(steps)


def _clip(text: str, room: int) -> str:
    """Cut a text to `room` letters."""
    return text if len(text) <= room else f"{text[: room - 1]}\u2026"


def _fit(name: str, room: int) -> str:
    """Cut a name to `room` letters, at its start, where names differ least; between parts first."""
    while len(name) > room and "/" in name.removeprefix("\u2026/"):
        name = "\u2026/" + name.removeprefix("\u2026/").split("/", 1)[1]
    return name if len(name) <= room else f"\u2026{name[1 - room :]}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part // max(whole, 1)} %"


def _xml(text: str) -> str:
    """Escape a text, without the control characters that XML cannot hold."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))
