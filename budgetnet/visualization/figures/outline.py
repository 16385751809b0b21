"""Outline of a network, as in the paper's Figure 1, with the cost of every part."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.cost import cost_of, layer_cost
from budgetnet.model.lowering import lower
from budgetnet.model.plan import BlockPlan, Layer, Plan
from budgetnet.model.spec import ModelSpec
from budgetnet.visualization.figures.style import BLUE, FAINT, GREEN, INK, ORANGE, RULE, SKY, WASH, blank_figure, listed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ORDER = {
    "basic": "conv, norm, {0}, conv, norm; sum, {0}",
    "preact": "norm, {0}, conv, norm, {0}, conv; sum",
    "bottleneck": "conv, norm, {0}, conv, norm, {0}, conv, norm; sum, {0}",
    "preact-bottleneck": "norm, {0}, conv, norm, {0}, conv, norm, {0}, conv; sum",
}
"""Layers of each kind of block, with a placeholder for the activation."""


class OutlineRow(NamedTuple):
    """A box of the outline: the stem, identical blocks of a stage, or the head."""

    part: str
    """``stem``, ``stage 1`` and so on, or ``head``."""
    blocks: int
    """Number of identical consecutive blocks; 0 for stem and head."""
    steps: tuple[str, ...]
    """Operations in order, such as ``conv 5x5, 64 → 128, stride 2``."""
    shortcut: str
    """Shortcut of each block, such as ``projection 1x1, stride 2``; empty if there is none."""
    output: tuple[int, int, int]
    """Output shape (channels, height, width), in pixels."""
    params: int
    """Trainable parameters of all blocks together."""


def outline_rows(spec: ModelSpec) -> tuple[OutlineRow, ...]:
    """Return the boxes of a network's outline in order; identical blocks share a box."""
    plan = lower(spec)
    rows = [_stem(plan)]
    for number, stage in enumerate(plan.stages, 1):
        boxes = [_block(f"stage {number}", block) for block in stage]
        for box, alike in groupby(boxes):
            count = len(list(alike))
            rows.append(box._replace(blocks=count, params=count * box.params))
    return (*rows, _head(plan))


def outline(spec: ModelSpec) -> Figure:
    """Draw the outline of a network: stem, stages with their blocks and shortcuts, head."""
    from plotly.graph_objects import Scatter

    cost = cost_of(spec)
    image = "x".join(map(str, spec.input_shape))
    orders = dict.fromkeys(f"{own.kind} blocks: {_order(own)}" for own in spec.block_settings)
    note = f"{cost.params:,} parameters, {cost.macs:,} MACs for an image of {image}; {'; '.join(orders)}"
    drawing = outline_drawing(spec)
    title, below = f"Outline of {spec.label}", 4
    figure = blank_figure(title=title, note=note, alt=outline_alt(spec), height=drawing.place + below, width=640)
    for places, symbol, size in ((drawing.tips, "triangle-down", 11), (drawing.sums, "circle-cross-open", 15)):
        marker = {"symbol": symbol, "size": size, "color": INK, "line": {"width": 1.5}}
        marks = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(Scatter(x=[_MIDDLE] * len(places), y=places, cliponaxis=False, **marks))
    figure.update_layout(shapes=drawing.shapes, annotations=drawing.annotations, dragmode=False)
    figure.update_layout(margin={"b": below, "l": 2, "r": 2})
    figure.update_xaxes(range=[0, 1], visible=False, fixedrange=True)
    # One unit is one pixel, so that text fits for any number of stages.
    figure.update_yaxes(range=[drawing.place, 0], visible=False, fixedrange=True)
    return figure


def _order(settings: BlockSettings) -> str:
    order = _ORDER[settings.kind].format(_words(settings.activation))
    if settings.linear and not settings.preact:
        order = order.removesuffix(f", {_words(settings.activation)}")
    return order if settings.equal_expansion else f"{order}, without the first conv where it is as wide as its input"


def outline_drawing(spec: ModelSpec) -> Drawing:
    """Return the shapes, markers and annotations of an outline."""
    drawing, params = Drawing(), cost_of(spec).params
    drawing.end(f"image {'x'.join(map(str, spec.input_shape))}")
    for part, boxes in groupby(outline_rows(spec), key=lambda row: row.part):
        drawing.part(part, list(boxes), total=params)
    drawing.arrow()
    drawing.end(f"{spec.num_classes} classes")
    return drawing


def outline_alt(spec: ModelSpec) -> str:
    """Return the text alternative of an outline."""

    def each(values: list[str]) -> str:
        return values[0] if len(set(values)) == 1 else listed(values)

    stages = spec.stages
    count = "1 stage" if len(stages) == 1 else f"{len(stages)} stages"
    blocks = each([str(stage.blocks) for stage in stages])
    kinds = "/".join(dict.fromkeys(own.kind for own in spec.block_settings))
    kernels = each([" and ".join(dict.fromkeys(f"{size}x{size}" for size in stage.kernel_sizes)) for stage in stages])
    return (
        f"{spec.label}: a stem of {spec.stem.channels} channels; {count} of {blocks} {kinds} "
        f"block{'' if blocks == '1' else 's'} with {each([str(stage.channels) for stage in stages])} channels and "
        f"kernels of {kernels}; {spec.head.pooling} pooling and a linear layer to {spec.num_classes} classes; "
        f"{cost_of(spec).params:,} parameters in all."
    )


def _stem(plan: Plan) -> OutlineRow:
    stem, activation = plan.stem, _words(plan.activation)
    steps = [f"whitening {_conv(stem.whitening)}, {activation}"] if stem.whitening else []
    for conv, norm in zip(stem.convs, (*stem.inner_norms, stem.norm), strict=True):
        steps += [_conv(conv), f"norm, {activation}"] if norm else [_conv(conv)]
    if stem.squeeze_excitation:
        steps.append(f"squeeze-and-excitation, {stem.squeeze_excitation[0].out_channels} hidden")
    height, width = stem.conv.height, stem.conv.width
    if stem.pool_size:
        steps.append(f"max pool {stem.pool_size}x{stem.pool_size}, stride {stem.pool_stride}")
        height, width = -(-height // stem.pool_stride), -(-width // stem.pool_stride)
    output = (stem.conv.out_channels, height, width)
    return OutlineRow("stem", 0, tuple(steps), "", output, _params(list(stem.layers())))


def _head(plan: Plan) -> OutlineRow:
    head, activation = plan.head, _words(plan.activation)
    steps = [f"norm, {activation}"] if head.norm else []
    if head.conv:
        steps += [_conv(head.conv), f"norm, {activation}"]
    size = f"{head.pool_size}x{head.pool_size}" if head.pool_size else ""
    steps.append(f"{head.pooling} pool {size}, flatten" if size else f"global {head.pooling} pooling")
    if head.dropout:
        steps.append(f"dropout {head.dropout:g}")
    linear = head.linear
    scale = f", x {head.scale:.3g}" if head.scale != 1 else ""
    steps.append(f"linear, {linear.in_channels} → {linear.out_channels}{scale}")
    return OutlineRow("head", 0, tuple(steps), "", (linear.out_channels, 1, 1), _params(list(head.layers())))


def _block(part: str, block: BlockPlan) -> OutlineRow:
    steps = [_conv(conv) for conv in block.convs]
    if block.settings.dropout:
        steps.insert(-1, f"dropout {block.settings.dropout:g}")
    if block.squeeze_excitation:
        attention = f"squeeze-and-excitation, {block.squeeze_excitation[0].out_channels} hidden"
        steps.insert(len(steps) - block.inner_attention, attention)
    sum_ = block.output
    stride = f", stride {sum_.stride}" if sum_.stride > 1 else ""
    kernel = block.shortcut_conv.kernel_size if block.shortcut_conv else 0
    shortcut = {
        "identity": "identity",
        "projection": f"projection {kernel}x{kernel}{stride}",
        "average-pool": f"average pool{stride}, conv {kernel}x{kernel}",
        "padding": f"zero channels{stride}",
        "none": "",
    }[block.shortcut]
    return OutlineRow(
        part, 1, tuple(steps), shortcut, (sum_.out_channels, sum_.height, sum_.width), _params(list(block.layers()))
    )


def _conv(layer: Layer) -> str:
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    size = f"{layer.kernel_size}x{layer.kernel_size}"
    pool = f", max pool {layer.pool}x{layer.pool}" if layer.pool > 1 else ""
    return f"conv {size}, {layer.in_channels} → {layer.out_channels}{stride}{groups}{pool}"


def _words(activation: str) -> str:
    return activation.replace("_", " ")


def _params(layers: list[Layer]) -> int:
    return sum(layer_cost(layer).params for layer in layers)


# Heights in pixels.
_HEADER = 44
_LINE = 19
_PADDING = 8
_GAP = 22
_JOIN = 13
"""From a box to what comes before or behind it."""
# Shares of the width.
_LEFT, _RIGHT, _LOOP = 0.025, 0.665, 0.705
_MIDDLE = (_LEFT + _RIGHT) / 2
_CHARACTERS = 35
"""Number of characters that fit on a line of a box in 390 pixels."""


class Drawing:
    """Shapes, markers and annotations from top to bottom; x as a share of the width, y in pixels."""

    middle = _MIDDLE
    """Where the way from part to part runs."""

    def __init__(self) -> None:
        self.place = 0
        """How far down everything so far reaches, in pixels."""
        self.shapes: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.tips: list[float] = []
        """Where the tips of arrows are."""
        self.sums: list[float] = []
        """Where a block's output and its shortcut are added."""

    def end(self, text: str) -> None:
        """What goes in, or comes out."""
        self._word(text, x=_MIDDLE, y=10, anchor="center")
        self.place += 20

    def arrow(self) -> None:
        """The way from one part to the next."""
        self._way(_GAP - 6)
        self.place += _GAP
        self.tips.append(self.place - 6)

    def part(self, part: str, rows: list[OutlineRow], *, total: int) -> None:
        """Stem, stage or head: what leaves it, its share of the parameters, and its boxes on a common ground."""
        self.arrow()
        top, params = self.place, sum(row.params for row in rows)
        channels, height, width = rows[-1].output
        leaves = f"{channels} classes" if part == "head" else f"out: {channels} x {height}x{width}"
        small = {"size": 12, "color": FAINT}
        self._word(f"<b>{part.capitalize()}</b>", x=_LEFT, y=14, anchor="left")
        self._word(leaves, x=_LEFT, y=32, anchor="left", font=small)
        self._word(f"{params:,} parameters", x=0.975, y=14, anchor="right", font={"size": 13})
        share = 100 * params / total
        of_all = f"{share:.1f} % of all" if share >= 0.1 else "under 0.1 % of all"
        self._word(of_all, x=0.975, y=32, anchor="right", font=small)
        self.place += _HEADER
        colour = {"stem": ORANGE, "head": GREEN}.get(part, BLUE)
        for row in rows:
            self._box(row, colour=colour)
        self._way(_PADDING)
        self.place += _PADDING
        ground = {"layer": "below", "fillcolor": WASH, "line": {"color": RULE, "width": 1}}
        self.shapes.append({"type": "rect", "x0": 0, "x1": 1, "y0": top, "y1": self.place, **ground})
        # The part's share of the parameters as a bar along its upper edge.
        at = {"x0": 0, "x1": params / total, "y0": top, "y1": top + 3}
        self.shapes.append({"type": "rect", **at, "fillcolor": colour, "line": {"width": 0}})

    def _box(self, row: OutlineRow, *, colour: str) -> None:
        lines = [line for step in row.steps for line in _lines(step)]
        if row.blocks > 1:
            lines.insert(0, f"<b>{row.blocks} blocks alike</b>, each:")
        fork = self.place
        if row.blocks:
            self._way(_JOIN)
            self.place += _JOIN
        height = 2 * _PADDING + _LINE * len(lines) - 4
        at = {"x0": _LEFT, "x1": _RIGHT, "y0": self.place, "y1": self.place + height}
        self.shapes.append({"type": "rect", **at, "fillcolor": "#FFFFFF", "line": {"color": colour, "width": 1.5}})
        for number, line in enumerate(lines):
            at = {"x": _LEFT + 0.02, "y": _PADDING + 8 + _LINE * number}
            self._word(line, **at, anchor="left", font={"size": 13})
        if row.shortcut:
            words = "<br>".join(row.shortcut.split(", "))
            self._word(words, x=_LOOP + 0.01, y=height / 2, anchor="left", font={"size": 12})
        self.place += height
        if row.blocks:
            self._way(2 * _JOIN)
        if row.shortcut:
            join = self.place + _JOIN
            around = f"M {_MIDDLE} {fork} L {_LOOP} {fork} L {_LOOP} {join} L {_MIDDLE} {join}"
            self.shapes.append({"type": "path", "path": around, "line": {"color": SKY, "width": 2}, "layer": "between"})
            self.sums.append(join)
        if row.blocks:
            self.place += 2 * _JOIN

    def _way(self, length: float) -> None:
        """A line down the middle, from the current place."""
        at = {"x0": _MIDDLE, "x1": _MIDDLE, "y0": self.place, "y1": self.place + length}
        self.shapes.append({"type": "line", **at, "line": {"color": INK, "width": 1.5}, "layer": "between"})

    def _word(self, text: str, *, x: float, y: float, anchor: str, font: dict[str, Any] | None = None) -> None:
        """Text whose middle lies so many pixels below the current place."""
        at = {"x": x, "y": self.place + y, "xanchor": anchor, "yanchor": "middle", "align": anchor}
        self.annotations.append({"text": text, "showarrow": False, "font": font or {}, **at})


def _lines(step: str) -> list[str]:
    """A step as lines that fit into a box, parted behind commas alone."""
    phrases = step.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return textwrap.wrap(phrases, _CHARACTERS, subsequent_indent="  ", break_on_hyphens=False)
