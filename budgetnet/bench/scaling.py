"""Benchmark of how a training step scales with parameters, batch size and image size, varied one at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from budgetnet.bench.training import Speed, measure_speeds
from budgetnet.bench.variants import Setting, Variant, training_step
from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment
from budgetnet.training.step import Execution
from budgetnet.visualization.figures.style import BLUE, blank_figure, style_axes

MIDDLE = (1_000_000, 128, 32)
"""Parameters, batch size and image size while another one is varied."""
_AXES = {"params": "parameters", "batch_size": "batch size", "image_size": "image size, pixels"}


class Point(NamedTuple):
    """Speed of one network at one batch size and image size."""

    axis: str
    """The varied quantity: ``params``, ``batch_size`` or ``image_size``."""
    params: int
    macs: int
    """Multiply-accumulates per image."""
    batch_size: int
    image_size: int
    speed: Speed


class ScalingBenchmark(NamedTuple):
    """Speed along each axis."""

    environment: dict[str, Any]
    points: list[Point]

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds, memory in bytes."""
        rows = [{**point._asdict(), "speed": point.speed.to_mapping()} for point in self.points]
        return {"benchmark": "growth", "environment": self.environment, "rows": rows}


def network_of(params: int, *, image_size: int) -> ModelSpec:
    """Return the network whose number of parameters is closest, from a family that varies in width only.

    It has four stages of one basic block, each twice as wide as the previous one, on colour images.
    """
    specs = (
        ModelSpec.resnet(channels=[width, 2 * width, 4 * width, 8 * width], input_shape=(3, image_size, image_size))
        for width in range(4, 81)
    )
    return min(specs, key=lambda spec: abs(spec.params - params))


def require_params(parameters: Sequence[int], *, image_size: int) -> None:
    """Check that the family of `network_of` has a network of about each size.

    Raises:
        InputError: a number of parameters is below that of its smallest network, or above that of its largest.
    """
    smallest, largest = (network_of(params, image_size=image_size).params for params in (1, 10**9))
    for params in parameters:
        if not smallest <= params <= largest:
            raise InputError("params", params, f"must be from {smallest:,} to {largest:,}")


def run(
    *,
    parameters: Sequence[int],
    batches: Sequence[int],
    image_sizes: Sequence[int],
    device: torch.device,
    seconds: float,
    progress: Callable[[str], None],
) -> ScalingBenchmark:
    """Measure training along each axis, the other two at their values in `MIDDLE`.

    Args:
        parameters: numbers of parameters.
        batches: batch sizes.
        image_sizes: sides of square images, in pixels.
        device: where to train.
        seconds: duration per point after the warm-up; at least three samples are measured.
        progress: called with a description of each point.

    Raises:
        InputError: see `require_params`.
    """
    params, batch_size, image_size = MIDDLE
    require_params(parameters, image_size=image_size)
    settings = [("params", number, batch_size, image_size) for number in parameters]
    settings += [("batch_size", params, number, image_size) for number in batches]
    settings += [("image_size", params, batch_size, number) for number in image_sizes]
    precision = choose_precision("auto", device)
    points = []
    for number, (axis, count, batch, side) in enumerate(settings, 1):
        progress(f"{number}/{len(settings)}: {count:,} parameters, batch {batch}, image {side}")
        # The last step is part of a reference cycle; free its memory now.
        gc.collect()
        spec = network_of(count, image_size=side)
        setting = Setting(spec, Recipe(), batch, device)
        variant = Variant("budgetnet", precision, training_step(setting, precision=precision, execution=Execution()))
        (speed,) = measure_speeds(setting, [variant], seconds=seconds)
        points.append(Point(axis, spec.params, spec.macs, batch, side, speed))
    return ScalingBenchmark(describe_environment(device), points)


def scaling_figure(points: list[Point]) -> Any:
    """Draw images per second and peak memory along each axis."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    rates = [point.speed.images_per_second for point in points]
    params, batch_size, image_size = MIDDLE
    figure = blank_figure(
        title="Training speed by parameters, batch size and image size",
        note=f"one varied at a time; default: {_short(params)}, {batch_size} and {image_size}",
        alt=f"{min(rates):,.0f} to {max(rates):,.0f} images per second at {len(points)} points along parameters, batch "
        "size and image size.",
        height=240 * len(_AXES),
    )
    make_subplots(rows=len(_AXES), cols=2, vertical_spacing=0.12, horizontal_spacing=0.22, figure=figure)
    for row, (axis, label) in enumerate(_AXES.items(), 1):
        along = [point for point in points if point.axis == axis]
        values = [getattr(point, axis) for point in along]
        speeds = [point.speed.images_per_second for point in along]
        memories = [None if point.speed.peak_memory is None else point.speed.peak_memory / 2**30 for point in along]
        for column, series in enumerate((speeds, memories), 1):
            marks = {"mode": "lines+markers", "line": {"color": BLUE}, "showlegend": False}
            figure.add_trace(Scatter(x=values, y=series, **marks), row=row, col=column)
        ticks = {"tickvals": values, "ticktext": [_short(value) for value in values]}
        figure.update_xaxes(type="log", title_text=label, **ticks, row=row)
    style_axes(figure)
    figure.update_yaxes(title_text="images per second", col=1)
    figure.update_yaxes(title_text="peak memory, GiB", col=2)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 50_000 else str(number)
