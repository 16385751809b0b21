"""Learning curves of a run as SVG, drawn without a browser."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

from budgetnet.runs.records import RunRecord
from budgetnet.visualization.figures.curves import Curves, collect_curves, describe_course
from budgetnet.visualization.figures.style import BLACK, BLUE, FAINT, INK, ORANGE, RULE, shortened
from budgetnet.visualization.figures.svg import add_element, svg_document

_TOP, _BOTTOM = 44, 300
"""Vertical positions of the highest and the lowest value of a panel, in pixels."""
_PANEL = 390
"""Width of a panel, in pixels."""
_FEW = 20
"""Maximum number of epochs with markers."""
_LOOKS: dict[str, dict[str, Any]] = {
    "training": {"stroke": ORANGE, "stroke_width": 2, "stroke_dasharray": "6 4"},
    "validation": {"stroke": BLUE, "stroke_width": 2},
    "end of a cycle": {"stroke": FAINT, "stroke_width": 1, "stroke_dasharray": "2 3"},
}
_BEST: dict[str, Any] = {"r": 5, "fill": BLACK, "stroke": "#fff", "stroke_width": 1.5}


def curves_svg(record: RunRecord) -> str:
    """Draw accuracy and loss of a run over its epochs, side by side, as a self-contained SVG document."""
    panels = [collect_curves(record, measure="accuracy"), collect_curves(record, measure="loss")]
    title = f"{shortened(record.identity.spec.label, 60)}, seed {record.identity.seed}"
    root = svg_document(960, 384, title=title, words=". ".join(map(describe_course, panels)))
    _text(root, title, 12, 24, size=16)
    for curves, left in zip(panels, (56, 546), strict=True):
        _panel(root, curves, left)
    for place, (name, look) in enumerate(_LOOKS.items()):
        x = 56 + 136 * place
        if name != "end of a cycle" or panels[0].restarts:
            add_element(root, "line", x1=x, x2=x + 28, y1=366, y2=366, **look)
            _text(root, name, x + 36, 371)
    if panels[0].runs[0].best_epoch is not None:
        add_element(root, "circle", cx=478, cy=366, **_BEST)
        _text(root, "best epoch", 490, 371)
    return ElementTree.tostring(root, encoding="unicode")


def _panel(root: ElementTree.Element, curves: Curves, left: int) -> None:
    """Draw one measure with its axes, in percent or in nats."""
    (run,) = curves.runs
    unit, scale = ("accuracy, %", 100) if curves.measure == "accuracy" else ("cross-entropy, nats", 1)
    lines = {"training": run.training, "validation": run.validation}
    finite = [scale * value for values in lines.values() for value in values if math.isfinite(value)] or [0.0]
    heights, first, last = _ticks(min(finite), max(finite)), run.epochs[0], max(run.epochs[-1], run.epochs[0] + 1)

    def across(epoch: float) -> float:
        return left + 8 + (_PANEL - 16) * (epoch - first) / (last - first)

    def down(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - heights[0]) / (heights[-1] - heights[0])

    for value in heights:
        add_element(root, "line", x1=left, x2=left + _PANEL, y1=down(value), y2=down(value), stroke=RULE)
        _text(root, f"{value:g}", left - 6, down(value) + 4, anchor="end")
    for epoch in _ticks(first, last):
        if epoch == int(epoch) and first <= epoch <= last:
            _text(root, f"{epoch:g}", across(epoch), _BOTTOM + 18, anchor="middle")
    _text(root, f"{unit}, by epoch", left + _PANEL / 2, _BOTTOM + 38, anchor="middle")
    for restart in curves.restarts:
        add_element(
            root, "line", x1=across(restart), x2=across(restart), y1=_TOP, y2=_BOTTOM, **_LOOKS["end of a cycle"]
        )
    for name, values in lines.items():
        # Start a new line after a value that is not finite, which leaves a gap.
        path, move = "", "M"
        for epoch, value in zip(run.epochs, values, strict=True):
            if not math.isfinite(value):
                move = "M"
                continue
            path += f"{move} {across(epoch):.2f} {down(scale * value):.2f} "
            move = "L"
            if len(values) <= _FEW:
                add_element(root, "circle", cx=across(epoch), cy=down(scale * value), r=3, fill=_LOOKS[name]["stroke"])
        add_element(root, "path", d=path.strip(), fill="none", id=f"{curves.measure}-{name}", **_LOOKS[name])
    if run.best_epoch is not None:
        best = scale * run.validation[run.best_epoch - 1]
        add_element(root, "circle", cx=across(run.best_epoch), cy=down(best), **_BEST)


def _text(root: ElementTree.Element, text: str, x: float, y: float, *, size: int = 13, anchor: str = "start") -> None:
    add_element(root, "text", text=text, x=x, y=y, font_size=size, text_anchor=anchor, fill=INK)


def _ticks(low: float, high: float) -> list[float]:
    """Up to eight multiples of 1, 2 or 5 times a power of ten, the first not above a range and the last not below."""
    span = high - low or max(abs(low), 1.0)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0) if span / (factor * power) <= 6)
    return [round(step * count, 12) for count in range(math.floor(low / step), math.ceil((low + span) / step) + 1)]
