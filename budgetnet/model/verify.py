"""Independent counts of a built network by torch and thop, to verify the closed form."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.model.network import build, count_parameters
from budgetnet.model.spec import ModelSpec


def count_built(spec: ModelSpec) -> dict[str, int]:
    """Build a network and count its parameters and MACs.

    Returns:
        ``built_params``: elements of its parameters; ``thop_params``: parameters counted by thop; ``torch_macs``:
        multiply-accumulates for one image, half the FLOPs counted by torch.
    """
    network = build(spec).eval()
    image = torch.zeros(1, *spec.input_shape)
    return {
        "built_params": count_parameters(network),
        "thop_params": thop_params(network, image),
        "torch_macs": torch_macs(network, image),
    }


def thop_params(network: nn.Module, image: Tensor) -> int:
    """Count parameters with thop, which runs the network on an image (1, channels, height, width)."""
    with warnings.catch_warnings():
        # thop imports distutils.
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop import profile

    with torch.no_grad():
        _, params = profile(network, inputs=(image,), verbose=False)
    return int(params)


def torch_macs(network: nn.Module, image: Tensor) -> int:
    """Count multiply-accumulates with torch, which runs the network on an image (1, channels, height, width)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops()) // 2
