"""What a network costs, in closed form: folded over the plan, with nothing built.

Units, for one image:

* parameters: trainable numbers: weights and biases of convolutions and linear layers, scale and shift of batch norm;
  not the running statistics.
* MACs: multiply-accumulates of convolutions and linear layers. Left out: batch norm, activation functions, pooling,
  the residual sum, biases and the product of squeeze-and-excitation's gate.
* activations: elements that convolutions and linear layers put out (Radosavovic et al. 2020, "Designing Network Design
  Spaces"), a measure of memory traffic. Left out: everything else.
"""

from __future__ import annotations

from typing import NamedTuple

from budgetnet.plan import Layer, Plan, lower
from budgetnet.spec import ModelSpec


class Cost(NamedTuple):
    """Cost of a layer or of a whole network, for one image."""

    params: int
    macs: int
    activations: int


def layer_cost(layer: Layer) -> Cost:
    """Cost of one layer of a plan."""
    if layer.kind == "norm":
        return Cost(2 * layer.out_channels, 0, 0)
    if layer.kind == "block":
        return Cost(0, 0, 0)
    weights = layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2
    positions = layer.height * layer.width
    bias = layer.out_channels if layer.bias else 0
    return Cost(weights + bias, weights * positions, layer.out_channels * positions)


def plan_cost(plan: Plan) -> Cost:
    """Cost of a whole network."""
    params = macs = activations = 0
    for layer in plan.layers():
        part = layer_cost(layer)
        params += part.params
        macs += part.macs
        activations += part.activations
    return Cost(params, macs, activations)


def cost_of(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Cost:
    """Cost of the network that a specification describes.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels, in place of the specification's own.
    """
    return plan_cost(lower(spec, input_size=input_size))
