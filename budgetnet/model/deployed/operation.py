"""One operation that a runtime executes."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "subtract",
    "divide",
    "conv",
    "norm",
    "activation",
    "add",
    "max-pool",
    "average-pool",
    "squeeze",
    "multiply",
    "slice",
    "pad",
    "to-blocks",
    "from-blocks",
    "global-average",
    "global-max",
    "linear",
    "scale",
]
"""``subtract`` and ``divide`` normalise the images; ``squeeze`` and ``multiply`` are the pooling and the scaling of
squeeze-and-excitation; ``slice`` and ``pad`` make a padding shortcut; ``to-blocks`` and ``from-blocks`` copy a map into
the blocked layout and back; ``scale`` multiplies the logits."""

BLOCK_SIZES = (1, 8, 16)
"""Channels in a block: 16 with AVX-512, 8 with AVX2, 1 on CPUs whose layout is not blocked."""

IMAGES = 0
"""Tensor that holds the images."""


class Operation(NamedTuple):
    """One operation. Channels are those of the network, without padding; sizes are those of one image."""

    kind: Kind
    inputs: tuple[int, ...]
    """Tensors that it reads; of a fused sum, the tensor that is added comes last."""
    output: int
    """Tensor that it writes."""
    in_channels: int
    out_channels: int
    in_height: int
    in_width: int
    height: int
    width: int
    kernel: int
    """Side of the kernel or of the pooled windows, in pixels."""
    stride: int
    groups: int
    activation: str
    """Activation function fused into a convolution, or that of an ``activation``; empty for none."""
    sum: bool
    """Whether a sum is fused into a convolution."""
    blocked: bool
    """Whether the output is in the blocked layout."""
    size: int
    """Elements of the output, with padded channels."""
    bias: bool
    """Whether a convolution or linear layer has a bias, at least that of a norm folded into it."""
