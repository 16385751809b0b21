"""Blocks of many samples at once: what they are counted from, one row per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.cost import block_cost


class Widths(NamedTuple):
    """Widths of a stage, and what follows for blocks with as many input as output channels."""

    width: Any
    inner: Any
    """Width inside a bottleneck; that of the stage for other blocks."""
    hidden: Any
    """Hidden width of squeeze-and-excitation; 0 without it."""

    def at(self, rows: slice) -> Self:
        """Return those of some rows."""
        return type(self)(*(at(values, rows) for values in self))


class Rows:
    """Parameters of samples as numbers: an array for each, or one number for all samples."""

    def __init__(
        self, settings: BlockSettings, columns: Mapping[str, Any], *, step: NDArray[np.int64], number: Any
    ) -> None:
        """Read the parameters.

        Args:
            settings: what the samples' blocks share.
            columns: the parameters, by name.
            step: what the widths are multiples of.
            number: type of the counts.
        """
        self._settings, self._number = settings, number
        area = np.asarray(columns["shortcut"], dtype=number) * _squared(columns["shortcut_kernel_size"], number)
        self._values: dict[str, Any] = {
            "area": area,
            "first": _squared(columns["first_kernel_size"], number),
            "second": _squared(columns["second_kernel_size"], number),
            "groups": np.asarray(columns["groups"], dtype=number),
            "group_width": np.asarray(columns["group_width"], dtype=number),
            "ratio": np.asarray(columns["bottleneck_ratio"], dtype=np.float64),
            "squeeze": np.asarray(columns["squeeze_excitation_ratio"], dtype=np.float64),
            "step": step.astype(np.float64),
            "widest": (MAX_CHANNELS // step * step).astype(np.float64),
        }

    def keep(self, rows: slice) -> None:
        """Keep some rows."""
        self._values = {name: at(values, rows) for name, values in self._values.items()}

    @property
    def shortcut_area(self) -> Any:
        """Kernel area of shortcuts, in pixels; 0 without a kernel."""
        return self._values["area"]

    def widths(self, exact: NDArray[np.float64]) -> Widths:
        """Round widths as `rounded_width` does, and derive what blocks need."""
        values, settings = self._values, self._settings
        width = np.minimum(_rounded(exact / values["step"]) * values["step"], values["widest"])
        width = width.astype(self._number, copy=False)
        inner, hidden = width, 0
        if settings.bottleneck:
            inner = _rounded(width * values["ratio"]).astype(self._number, copy=False)
        if settings.squeeze_ratio:
            of = inner if settings.squeeze_excitation.ratio_of == "inner" else width
            hidden = hidden_widths(of, values["squeeze"], settings.squeeze_excitation.rounding)
        return Widths(width, inner, hidden)

    def block_costs(self, inputs: Widths, own: Widths, pixels: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        """Return the costs of one block of each sample.

        Args:
            inputs: widths of the stage that the block's input comes from.
            own: widths of the block's stage.
            pixels: as `budgetnet.model.cost.block_cost` takes it.
        """
        values, settings = self._values, self._settings
        ratio_of = settings.squeeze_excitation.ratio_of
        inner = (inputs if settings.ratio_of_input else own).inner
        of_input = ratio_of == "input" or (ratio_of == "inner" and settings.ratio_of_input)
        hidden = (inputs if of_input else own).hidden
        if settings.bottleneck:
            grouped = (_grouped(inner, values["groups"], values["group_width"]),) * 2
        else:
            grouped = _grouped(inputs.width, values["groups"]), _grouped(own.width, values["groups"])
        return block_cost(
            settings, inputs.width, own.width, inner, grouped, hidden, values["first"], values["second"], pixels
        )


def at(values: Any, rows: Any) -> Any:
    """Return some rows of a column; one value for all as it is."""
    return values[rows] if np.ndim(values) else values


def hidden_widths(widths: Any, ratio: Any, rounding: str) -> Any:
    """Return hidden widths as `SqueezeExcitation.hidden` does; 0 for a ratio of 0."""
    if rounding == "multiple-of-8":
        hidden = np.maximum(8, np.floor(widths * ratio / 8 + 0.5) * 8)
    elif rounding == "down":
        hidden = np.maximum(1, np.floor(widths * ratio))
    else:
        hidden = _rounded(widths * ratio)
    return (hidden * (ratio > 0)).astype(widths.dtype, copy=False)


def _squared(values: Any, number: Any) -> Any:
    return np.square(np.asarray(values, dtype=number))


def _grouped(channels: Any, groups: Any, group_width: Any = 0) -> Any:
    """Return the channels of each group: the group width or, where it is 0, the channels divided by the groups."""
    if np.all(group_width):
        return group_width
    whole = channels
    if np.any(groups != 1):
        # Groups divide the channels. Floats are divided faster than integers.
        whole = channels / groups if channels.dtype == np.float64 else channels // groups
    return np.where(group_width, group_width, whole) if np.ndim(group_width) else whole


def _rounded(values: Any) -> Any:
    """Return the nearest whole numbers, at least 1; numpy rounds halves to even, as Python does."""
    return np.maximum(1, np.rint(values))
