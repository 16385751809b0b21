"""Pictures of a network as SVG, made without a browser: for notebooks, pages and whatever shows a file.

Plotly draws in a browser alone. The outline of a network needs no axes, so that a few rectangles, lines and words are
all there is to it; everything else is left to the libraries that draw.
"""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.visualization.figures.outline import Drawing, outline_alt, outline_drawing
from budgetnet.visualization.figures.style import BLUE, FAINT, FONT, GREEN, INK, ORANGE

_NAMESPACE = "http://www.w3.org/2000/svg"
_WIDTH = 640
"""Pixels of an outline."""


def outline_svg(spec: ModelSpec) -> str:
    """Return the outline of a network, as drawn by `outline`, as a self-contained SVG document."""
    drawing = outline_drawing(spec)
    height = drawing.place + 4
    root = svg_document(_WIDTH, height, title=f"Outline of {spec.label}", words=outline_alt(spec))
    # Backgrounds first, then connections and boxes, in drawing order.
    for shape in sorted(drawing.shapes, key=lambda each: _DEPTHS[each.get("layer", "above")]):
        _shape(root, shape)
    _marks(root, drawing)
    for note in drawing.annotations:
        _word(root, note)
    return ElementTree.tostring(root, encoding="unicode")


def silhouette_svg(spec: ModelSpec, *, width: int = 640) -> str:
    """A network at a glance, as an SVG element: a column for each convolution that the image passes, stem to head.

    A column is as high as the map that leaves it and as wide as its channels, both by their square roots, so that the
    areas can be told apart and a network of any size fits.

    Args:
        spec: the network.
        width: of the drawing, in pixels.
    """
    plan = lower(spec)
    linear = plan.head.linear
    stem = [(conv.out_channels, max(conv.height, conv.width), ORANGE) for conv in plan.stem.convs]
    columns: list[list[tuple[int, int, str]]] = [stem]
    for stage in plan.stages:
        columns.append(
            [(conv.out_channels, max(conv.height, conv.width), BLUE) for block in stage for conv in block.convs]
        )
    head = [plan.head.conv] if plan.head.conv else []
    columns.append([(conv.out_channels, max(conv.height, conv.width), GREEN) for conv in head])
    columns[-1].append((linear.out_channels, 1, GREEN))
    names = ["stem", *(str(number) for number in range(1, len(plan.stages) + 1)), "head"]
    gap, between, tall, margin = 2.0, 14.0, 84.0, 12.0
    flat = [column for part in columns for column in part]
    gaps = gap * (len(flat) - len(columns)) + between * (len(columns) - 1)
    # With many columns, the gaps alone would fill the drawing.
    scale = 1.0 if gaps <= width / 2 else width / 2 / gaps
    unit = (width - 2 * margin - gaps * scale) / sum(math.sqrt(channels) for channels, _, _ in flat)
    rise = tall / math.sqrt(max(size for _, size, _ in flat))
    root = svg_document(width, int(tall) + 24, title=f"Silhouette of {spec.label}", words=outline_alt(spec))
    left = margin
    for name, part in zip(names, columns, strict=True):
        began = left
        for channels, size, colour in part:
            wide, high = unit * math.sqrt(channels), rise * math.sqrt(size)
            top = (tall - high) / 2
            add_element(root, "rect", x=left, y=top, width=wide, height=high, fill=colour, fill_opacity=0.85)
            left += wide + gap * scale
        left += (between - gap) * scale
        middle = (began + left - between * scale) / 2
        add_element(root, "text", text=name, x=middle, y=tall + 16, text_anchor="middle", font_size=11, fill=FAINT)
    return ElementTree.tostring(root, encoding="unicode")


_DEPTHS = {"below": 0, "between": 1, "above": 2}


def svg_document(width: int, height: int, *, title: str, words: str) -> ElementTree.Element:
    """Return an empty self-contained SVG document, in pixels, with a title and a text alternative."""
    root = ElementTree.Element("svg")
    # Shrinks with its container, and is never wider than drawn.
    facts = {
        "xmlns": _NAMESPACE,
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "font-family": FONT,
        "style": f"width:100%;max-width:{width}px;height:auto;background:#fff",
    }
    for name, value in facts.items():
        root.set(name, value)
    add_element(root, "title", text=title)
    add_element(root, "desc", text=words)
    return root


def add_element(parent: ElementTree.Element, tag: str, *, text: str = "", **attributes: object) -> ElementTree.Element:
    """Add an SVG element; lengths are in pixels, and underscores in names of attributes stand for hyphens."""
    element = ElementTree.SubElement(parent, tag)
    element.text = text or None
    for name, value in attributes.items():
        # To the hundredth of a pixel.
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        element.set(name.replace("_", "-"), shown)
    return element


def _shape(root: ElementTree.Element, shape: dict[str, Any]) -> None:
    line = shape["line"]
    stroke = {"stroke": line.get("color", "none"), "stroke_width": line.get("width", 0)}
    if shape["type"] == "path":
        # Alternating x (share of the width) and y (pixels).
        numbers = iter(re.findall(r"[\d.]+", shape["path"]))
        points = [
            f"{float(across) * _WIDTH:.1f} {float(down):.1f}" for across, down in zip(numbers, numbers, strict=True)
        ]
        add_element(root, "path", d=f"M {' L '.join(points)}", fill="none", **stroke)
        return
    left, right = (float(shape[side]) * _WIDTH for side in ("x0", "x1"))
    top, bottom = float(shape["y0"]), float(shape["y1"])
    if shape["type"] == "line":
        add_element(root, "line", x1=left, y1=top, x2=right, y2=bottom, **stroke)
    else:
        size: dict[str, Any] = {"width": right - left, "height": bottom - top}
        add_element(root, "rect", x=left, y=top, **size, fill=shape["fillcolor"], **stroke)


def _marks(root: ElementTree.Element, drawing: Drawing) -> None:
    middle = drawing.middle * _WIDTH
    for tip in drawing.tips:
        corners = " ".join(f"{middle + across:.1f},{tip + down:.1f}" for across, down in ((-5, -4), (5, -4), (0, 5)))
        add_element(root, "polygon", points=corners, fill=INK)
    for place in drawing.sums:
        add_element(root, "circle", cx=middle, cy=float(place), r=7.5, fill="#fff", stroke=INK, stroke_width=1.5)
        cross = f"M {middle - 7.5:.1f} {place} h 15 M {middle:.1f} {place - 7.5} v 15"
        add_element(root, "path", d=cross, stroke=INK, stroke_width=1.5)


def _word(root: ElementTree.Element, note: dict[str, Any]) -> None:
    font, size = note["font"], note["font"].get("size", 14)
    anchor = {"left": "start", "center": "middle", "right": "end"}[note["xanchor"]]
    lines = note["text"].split("<br>")
    # Text is positioned by its baseline; its middle is about a third of its size above.
    top = float(note["y"]) + size * 0.35 - (len(lines) - 1) * size * 0.6
    for number, line in enumerate(lines):
        place = {"x": float(note["x"]) * _WIDTH, "y": top + number * size * 1.2}
        look = {"font_size": size, "fill": font.get("color", INK), "text_anchor": anchor}
        if "<b>" in line:
            look["font_weight"] = "bold"
        add_element(root, "text", text=re.sub(r"</?b>", "", line), **place, **look)
