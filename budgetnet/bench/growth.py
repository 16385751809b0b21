"""How the cost of a training step grows with parameters, batch and image size, one of the three at a time."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from budgetnet.bench.training import Setting, Speed, Variant, learning, speeds
from budgetnet.environment import choose_precision
from budgetnet.errors import InputError
from budgetnet.files import write_bytes, write_text
from budgetnet.learner import Execution
from budgetnet.recipe import Recipe
from budgetnet.spec import ModelSpec

MIDDLE = (1_000_000, 128, 32)
"""Parameters, batch and image size where another one is varied."""
FIGURE_SUFFIXES = (".html", ".svg", ".png")
_AXES = {"params": "parameters", "batch_size": "batch size", "image_size": "image side, pixels"}


class Point(NamedTuple):
    """One network at one batch and image size, and how fast it was trained."""

    axis: str
    """What is varied: ``params``, ``batch_size`` or ``image_size``."""
    params: int
    macs: int
    """For one image."""
    batch_size: int
    image_size: int
    speed: Speed


def network_of(params: int, *, image_size: int) -> ModelSpec:
    """The network with the number of parameters nearest to a wanted one, of a family that differs in width alone.

    Four stages of one basic block, each twice as wide as the one before, on colour images.
    """
    specs = (
        ModelSpec.resnet(channels=[width, 2 * width, 4 * width, 8 * width], input_shape=(3, image_size, image_size))
        for width in range(4, 81)
    )
    return min(specs, key=lambda spec: abs(spec.params - params))


def grown(
    *,
    parameters: Sequence[int],
    batches: Sequence[int],
    image_sizes: Sequence[int],
    device: torch.device,
    seconds: float,
    progress: Callable[[str, int, int], None],
) -> list[Point]:
    """Measures training along each axis, the other two at their middle.

    Args:
        parameters: to measure at.
        batches: batch sizes to measure at.
        image_sizes: sides of square images, in pixels, to measure at.
        device: where to train.
        seconds: how long each point may take behind its first steps; three samples are taken at least.
        progress: is told the point, how many are done, and of how many.
    """
    params, batch_size, image_size = MIDDLE
    wanted = [("params", number, batch_size, image_size) for number in parameters]
    wanted += [("batch_size", params, number, image_size) for number in batches]
    wanted += [("image_size", params, batch_size, number) for number in image_sizes]
    precision = choose_precision("auto", device)
    points = []
    for done, (axis, count, batch, side) in enumerate(wanted):
        progress(f"{count:,} parameters, batch {batch}, image {side}", done, len(wanted))
        # What trained at the last point holds itself in a circle, and its memory with it.
        gc.collect()
        spec = network_of(count, image_size=side)
        setting = Setting(spec, Recipe(), batch, device)
        variant = Variant("budgetnet", precision, learning(setting, precision=precision, execution=Execution()))
        (speed,) = speeds(setting, [variant], seconds=seconds)
        points.append(Point(axis, spec.params, spec.macs, batch, side, speed))
    return points


def draw(points: list[Point], path: Path) -> None:
    """Draws images a second and peak memory along each axis, as a page that needs no network, or as SVG or PNG.

    Raises:
        InputError: as `require_drawable`, or no browser is there to draw with.
    """
    require_drawable(path)
    figure = _figure(points)
    if path.suffix.lower() == ".html":
        write_text(path, figure.to_html(include_plotlyjs=True, full_html=True))
        return
    try:
        write_bytes(path, figure.to_image(format=path.suffix[1:].lower()))
    except (ValueError, RuntimeError) as error:
        rule = f"cannot be drawn; .html needs no browser: {' '.join(str(error).split())[:200]}"
        raise InputError("--plot", str(path), rule) from None


def require_drawable(path: Path) -> None:
    """Refuses a figure's file before anything is measured for it.

    Raises:
        InputError: the file's name ends in no format that is known, its folder is missing, or what draws SVG and PNG is
            not installed.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise InputError("--plot", str(path), f"must end in {', '.join(FIGURE_SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError("--plot", str(path), "must be a file in a folder that exists and can be written to")
    if path.suffix.lower() != ".html" and find_spec("kaleido") is None:
        raise InputError("--plot", str(path), "needs the extra budgetnet[figures], and Chromium; .html needs neither")


def _figure(points: list[Point]) -> Any:
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=len(_AXES), shared_xaxes=True, vertical_spacing=0.08, horizontal_spacing=0.07)
    for column, (axis, label) in enumerate(_AXES.items(), 1):
        along = [point for point in points if point.axis == axis]
        places = [getattr(point, axis) for point in along]
        rates = [point.speed.images_per_second for point in along]
        memories = [None if point.speed.peak_memory is None else point.speed.peak_memory / 2**30 for point in along]
        for row, values in enumerate((rates, memories), 1):
            marks = {"mode": "lines+markers", "line": {"color": "#0072B2"}, "showlegend": False}
            figure.add_trace(Scatter(x=places, y=values, **marks), row=row, col=column)
            ticks = {"tickvals": places, "ticktext": [_short(place) for place in places]}
            figure.update_xaxes(type="log", **ticks, row=row, col=column)
        figure.update_xaxes(title_text=label, row=2, col=column)
    figure.update_yaxes(title_text="images a second", row=1, col=1)
    figure.update_yaxes(title_text="peak memory, GiB", row=2, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(template="plotly_white", width=1000, height=560, margin={"t": 30, "r": 20})
    return figure


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 50_000 else str(number)
