"""Bytes of a network's weights as they are deployed: batch norms folded into convolutions where they can be.

What is counted are the weights and biases of convolutions and the linear layer, and the four numbers for each channel
of a norm that is not folded because something else comes between, as in front of pre-activation blocks. Not counted, a
few hundred bytes, are the constants that normalise images and the shapes and settings of operations.
"""

from __future__ import annotations

from typing import Literal

from budgetnet.model.deployed.operations import operations
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

Precision = Literal["float32", "float16", "int8"]
"""Numbers that weights are stored as. ``int8``: weights of 1 byte, with a scale and a bias of 4 bytes for each output
channel; norms that are not folded stay float32."""

_WEIGHT: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}
_BIAS: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 4}
_SCALE: dict[Precision, int] = {"float32": 0, "float16": 0, "int8": 4}
_NORM: dict[Precision, int] = {"float32": 16, "float16": 8, "int8": 16}
"""Bytes of a weight, of the bias and the scale of an output channel, and of a channel of a norm."""


def weight_bytes(spec: ModelSpec, precision: Precision = "float32") -> int:
    """Return the bytes of a network's weights at a precision."""
    weights = biases = outputs = normed = 0
    # Norms are folded before any layout is chosen.
    for each in operations(lower(spec), block_size=1):
        if each.kind in ("conv", "linear"):
            weights += each.in_channels // each.groups * each.out_channels * each.kernel**2
            outputs += each.out_channels
            biases += each.bias * each.out_channels
        elif each.kind == "norm":
            normed += each.out_channels
    stored = weights * _WEIGHT[precision] + biases * _BIAS[precision]
    return stored + outputs * _SCALE[precision] + normed * _NORM[precision]
