"""A picture of a network: its convolutions and joins in layers, tied groups in colours.

It is one SVG, made of nothing but the graph: the same model gives the same picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from onnxprune.channels import ChannelGroups
from onnxprune.files import write_whole
from onnxprune.graph import Graph
from onnxprune.report.boxes import Box, find_boxes
from onnxprune.report.colouring import COLOURS, colours_of, neighbours
from onnxprune.report.layout import Layout, Point, Size, lay_out
from onnxprune.report.skeleton import pinning
from onnxprune.text import harmless

STAYS, ALONE, PLAIN = "url(#stays)", "#eceef0", "#ffffff"
"""Fills: no filter may go; a group of one convolution; no group."""
HATCHED = (
    '<defs><pattern id="stays" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="stays" width="6" height="6" fill="#ececec"/>'
    '<rect class="stripe" width="2" height="6" fill="#c9c9c9"/></pattern></defs>'
)

BOX, MARK, LETTER = (160.0, 36.0), 20.0, 6.0
"""Pixels: the box of a convolution, the height of other marks, and the width of a letter."""
BOX_LETTERS, MARK_LETTERS = 24, 18
MARGIN, LINE, COLUMN = 20.0, 16.0, 400.0
"""Pixels: around the picture; one line and one column of the legend."""
LISTED = 40
"""The legend counts the groups beyond that."""

STYLE = f"""
text {{ font: 11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1c1f23; }}
.small {{ font-size: 10px; }} .title {{ font-size: 16px; font-weight: 600; }}
.muted {{ fill: #5c646c; }} .end {{ text-anchor: end; }} .middle {{ text-anchor: middle; }}
.edges path {{ fill: none; stroke: #8d959d; stroke-width: 1.2; stroke-linejoin: round; }}
.boxes rect {{ stroke: #4a5158; stroke-width: .8; }} .boxes .pinning {{ stroke: #b2182b;
  stroke-width: 1.8; stroke-dasharray: 4 2; }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e4e6e8; }} .muted {{ fill: #8d959d; }} .tied text {{ fill: #1c1f23; }}
  rect[fill="{PLAIN}"] {{ fill: #15181b; }} rect[fill="{ALONE}"] {{ fill: #2d3237; }}
  .stays {{ fill: #24282c; }} .stripe {{ fill: #3d444b; }} .boxes .pinning {{ stroke: #ef6a77; }}
}}
"""


def write_drawing(
    graph: Graph, groups: ChannelGroups, path: str | Path, title: str = "network"
) -> Path:
    """Draw a network into an SVG file. The file appears whole or not at all.

    Raises: OutputError when the place is not writable.
    """
    return write_whole(path, draw(graph, groups, title))


def draw(graph: Graph, groups: ChannelGroups, title: str = "network") -> str:
    """Return the picture of a network as SVG."""
    boxes = find_boxes(graph, groups)
    layout = lay_out([box_size(box) for box in boxes], edges_of(boxes))
    return _Picture(title, groups, boxes, layout).text()


def short_name(name: str, op_type: str = "") -> str:
    """Return a node's name without the repetitions of exporters.

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


def box_size(box: Box) -> Size:
    """Return the width and height of a box. Units: pixels."""
    if box.is_convolution:
        return BOX
    return (LETTER * len(_clip(box.title, MARK_LETTERS)) + 18, MARK)


def tied_groups(groups: ChannelGroups, boxes: Sequence[Box]) -> list[int]:
    """Return the groups of several convolutions that may go."""
    members = Counter(box.group for box in boxes if box.is_convolution and box.group is not None)
    return [g for g, count in members.items() if count > 1 and g not in groups.pinned]


def group_colours(groups: ChannelGroups, boxes: Sequence[Box], layout: Layout) -> dict[int, str]:
    """Return the colour of each tied group; those that neighbour have different ones."""
    tied = tied_groups(groups, boxes)
    places: dict[int, list[Point]] = {group: [] for group in tied}
    for box, centre in zip(boxes, layout.centres, strict=True):
        if box.group in places:
            places[box.group].append(centre)
    return colours_of(places, neighbours([box.group for box in boxes], edges_of(boxes), places))


def edges_of(boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """Return the lines between boxes, by their numbers."""
    return [(source, k) for k, box in enumerate(boxes) for source in box.vertex.sources]


class _Picture:
    def __init__(
        self, title: str, groups: ChannelGroups, boxes: Sequence[Box], layout: Layout
    ) -> None:
        self.title, self.groups, self.boxes, self.layout = title, groups, boxes, layout
        self.pinning = pinning(groups)
        self.members: dict[int, list[Box]] = {}
        for box in boxes:
            if box.group is not None:
                self.members.setdefault(box.group, []).extend([box] * box.is_convolution)
        self.tied = tied_groups(groups, boxes)
        self.colours = group_colours(groups, boxes, layout)

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
            f'<rect width="100%" height="100%" fill="{PLAIN}"/>',
            *legend,
            f'<g class="edges" transform="{shift}">',
            *(f'<path d="{line_path(points)}"/>' for points in self.layout.lines),
            "</g>",
            f'<g class="boxes" transform="{shift}">',
            *(self._box(box, *centre) for box, centre in boxes),
            "</g>",
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _fill(self, box: Box) -> str:
        if box.is_convolution and not box.removable:
            return STAYS
        plain = ALONE if box.is_convolution else PLAIN
        return plain if box.group is None else self.colours.get(box.group, plain)

    def _box(self, box: Box, x: float, y: float) -> str:
        width, height = box_size(box)
        x, y, fill = x - width / 2, y - height / 2, self._fill(box)
        pins = box.vertex.node is not None and box.vertex.node.name in self.pinning
        parts = [
            f"<title>{_xml(chr(10).join(box.facts))}</title>",
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'rx="{3 if box.is_convolution else height / 2:g}" fill="{fill}"'
            + (' class="pinning"/>' if pins else "/>"),
        ]
        if box.is_convolution:
            share = f"{box.filters:,} filters, {_percent(box.removable, box.filters)}"
            number = "" if box.group is None else f"#{box.group + 1}"
            parts += [
                _text(x + 6, y + 14, _fit(short_title(box), BOX_LETTERS)),
                _text(x + 6, y + 29, share, "small"),
                _text(x + width - 6, y + 29, number, "small end"),
            ]
        else:
            parts.append(_text(x + width / 2, y + 14, _clip(box.title, MARK_LETTERS), "middle"))
        kind = ' class="tied"' if fill in COLOURS else ""
        return f"<g{kind}>{''.join(parts)}</g>"

    def _legend(self, width: float) -> tuple[list[str], float]:
        """Return the title and legend of the picture, and the y where they end."""
        filters = sum(box.filters for box in self.boxes)
        may_go = sum(box.removable for box in self.boxes)
        lines = [
            _text(MARGIN, MARGIN + 12, self.title, "title"),
            *_lines(
                f"{may_go:,} of {filters:,} filters ({_percent(may_go, filters)}) may go.",
                "Convolutions of one #number are a group: their filters go together. A group of "
                "several has a colour, a single one is grey.",
                "Hatched ones stay; a dashed frame marks what they stay for.",
            ),
        ]
        pinned = [group for group in self.members if group in self.groups.pinned]
        tied, top = self.tied, MARGIN + 68 + LINE
        if len(tied) > len(COLOURS):
            note = f"{len(tied)} groups share {len(COLOURS)} colours: the #number tells them apart."
            lines.append(_text(MARGIN, top, note, "muted"))
            tied, top = [], top + LINE
        for groups, columns in ((tied, int(width // COLUMN)), (pinned, 1)):
            shown = groups[:LISTED]
            rows = -(-len(shown) // columns)
            for place, group in enumerate(shown):
                x = MARGIN + place // rows * (width / columns)
                lines.append(self._entry(group, x, top + place % rows * LINE, width / columns))
            top += rows * LINE
            if len(groups) > LISTED:
                lines.append(_text(MARGIN, top + 10, f"and {len(groups) - LISTED} more", "small"))
                top += LINE
        return lines, top + MARGIN / 2

    def _entry(self, group: int, x: float, y: float, width: float) -> str:
        """One line of the legend."""
        boxes, why = self.members[group], str(self.groups.pinned.get(group, ""))
        more = f" and {len(boxes) - 1} more" if len(boxes) > 1 else ""
        line = f"#{group + 1}  {short_title(boxes[0])}{more}" + (f": {why}" if why else "")
        tip = "\n".join([*(box.title for box in boxes), *([why] if why else [])])
        return (
            f"<g><title>{_xml(tip)}</title>"
            f'<rect x="{x:.1f}" y="{y:.1f}" width="18" height="11" rx="2" '
            f'fill="{self.colours.get(group, STAYS)}"/>'
            f"{_text(x + 25, y + 10, _clip(line, int(width / LETTER) - 6), 'small')}</g>"
        )


def _lines(*texts: str) -> Iterable[str]:
    return (
        _text(MARGIN, MARGIN + 32 + LINE * row, text, "muted") for row, text in enumerate(texts)
    )


def short_title(box: Box) -> str:
    """Return what is written into a box."""
    return short_name(box.title, box.vertex.node.op_type if box.vertex.node else "")


def box_label(box: Box) -> str:
    """Return what is written into a box, as much as fits."""
    if box.is_convolution:
        return _fit(short_title(box), BOX_LETTERS)
    return _clip(box.title, MARK_LETTERS)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{mark}>{_xml(text)}</text>' if text else ""


def line_path(points: Sequence[Point]) -> str:
    """Return an SVG path: straight between points that share a coordinate, else a curve."""
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
    """Cut a name to `room` letters at its start, where names differ least, between parts first."""
    rest = name
    while len(rest) + 1 > room and (cut := re.search(r"[./]", rest[1:])):
        rest = rest[cut.start() + 1 :]
    if len(name) <= room:
        return name
    return f"\u2026{rest}" if len(rest) < room else f"\u2026{rest[1 - room :]}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part // max(whole, 1)} %"


def _xml(text: str) -> str:
    """Escape a text, whose lines stay."""
    return escape(harmless(text, lines=True))
