"""How the cost of a training step grows with parameters, batch and image size, one of the three at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from budgetnet.bench.training import Speed, speeds
from budgetnet.bench.variants import Setting, Variant, learning
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision
from budgetnet.training.step import Execution
from budgetnet.visualization.figures.style import BLUE, blank_figure, style_axes
from budgetnet.visualization.figures.write import require_writable, write_figure

MIDDLE = (1_000_000, 128, 32)
"""Parameters, batch and image size where another one is varied."""
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
    """Draws images a second and peak memory along each axis.

    Raises:
        InputError: as `write_figure`.
    """
    require_writable(path, field="plot")
    write_figure(_figure(points), path, field="plot")


def _figure(points: list[Point]) -> Any:
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    rates = [point.speed.images_per_second for point in points]
    params, batch_size, image_size = MIDDLE
    figure = blank_figure(
        title="Training as parameters, batch and image grow",
        note=f"one varied at a time, the others at {_short(params)}, {batch_size} and {image_size}",
        alt=f"From {min(rates):,.0f} to {max(rates):,.0f} images a second are trained on, at {len(points)} points "
        "along parameters, batch size and image side.",
        height=240 * len(_AXES),
    )
    make_subplots(rows=len(_AXES), cols=2, vertical_spacing=0.12, horizontal_spacing=0.22, figure=figure)
    for row, (axis, label) in enumerate(_AXES.items(), 1):
        along = [point for point in points if point.axis == axis]
        places = [getattr(point, axis) for point in along]
        speeds = [point.speed.images_per_second for point in along]
        memories = [None if point.speed.peak_memory is None else point.speed.peak_memory / 2**30 for point in along]
        for column, values in enumerate((speeds, memories), 1):
            marks = {"mode": "lines+markers", "line": {"color": BLUE}, "showlegend": False}
            figure.add_trace(Scatter(x=places, y=values, **marks), row=row, col=column)
        ticks = {"tickvals": places, "ticktext": [_short(place) for place in places]}
        figure.update_xaxes(type="log", title_text=label, **ticks, row=row)
    style_axes(figure)
    figure.update_yaxes(title_text="images a second", col=1)
    figure.update_yaxes(title_text="peak memory, GiB", col=2)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 50_000 else str(number)
