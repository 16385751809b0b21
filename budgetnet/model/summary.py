"""Table of a network's layers with output shapes and costs."""

from __future__ import annotations

from typing import Any, NamedTuple

from budgetnet.model.cost import Cost, layer_cost, plan_cost
from budgetnet.model.lowering import lower
from budgetnet.model.plan import Layer
from budgetnet.model.spec import ModelSpec

_TYPES = {"whitening": "Conv2d", "conv": "Conv2d", "norm": "BatchNorm2d", "linear": "Linear", "block": "ResnetBlock"}


class SummaryRow(NamedTuple):
    """One layer of a network."""

    layer: str
    """Type and number, as in the paper's Table 1: ``Conv2d-1``."""
    path: str
    """Module path in the built network."""
    output_shape: tuple[int, ...]
    """Output shape (batch, channels, height, width) or (batch, features); batch is -1."""
    cost: Cost


class Summary(NamedTuple):
    """Layers of a network; prints as a text table."""

    name: str
    input_shape: tuple[int, int, int]
    """Image shape (channels, height, width)."""
    rows: tuple[SummaryRow, ...]
    total: Cost

    def to_mapping(self) -> dict[str, Any]:
        """Return the table as plain data."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            **self.total._asdict(),
            "layers": [
                {
                    "layer": row.layer,
                    "type": row.layer.rpartition("-")[0],
                    "path": row.path,
                    "output_shape": list(row.output_shape),
                    **row.cost._asdict(),
                }
                for row in self.rows
            ],
        }

    def __str__(self) -> str:
        lines = [f"{'Layer':<18}{'Output shape':<22}{'Parameters':>16}{'MACs':>20}"]
        for row in self.rows:
            shape = str(list(row.output_shape))
            lines.append(f"{row.layer:<18}{shape:<22}{row.cost.params:>16,}{row.cost.macs:>20,}")
        lines.append(f"{'Total':<40}{self.total.params:>16,}{self.total.macs:>20,}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import summary_html

        return summary_html(self)


def _output_shape(layer: Layer) -> tuple[int, ...]:
    if layer.kind == "linear":
        return (-1, layer.out_channels)
    return (-1, layer.out_channels, layer.height, layer.width)


def summarise(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Summary:
    """Summarise a network's layers in order, with output shapes and costs.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels; default: the specification's.

    Raises:
        InputError: the input size is below 1, or so small that a stride would shrink a map below one pixel.
    """
    plan = lower(spec, input_size=input_size)
    rows = tuple(
        SummaryRow(f"{_TYPES[layer.kind]}-{number}", layer.path, _output_shape(layer), layer_cost(layer))
        for number, layer in enumerate(plan.layers(), 1)
    )
    return Summary(spec.label, plan.input_shape, rows, plan_cost(plan))
