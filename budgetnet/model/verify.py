"""Counts of a built network by other hands than ours, to check the closed form against."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.model.network import build, count_parameters
from budgetnet.model.spec import ModelSpec


def count_built(spec: ModelSpec) -> dict[str, int]:
    """Builds a network and counts it.

    Returns:
        ``built_params``: elements of its parameters; ``thop_params``: parameters by thop; ``torch_macs``:
        multiply-accumulates for one image, half of what torch's counter of operations says.
    """
    network = build(spec).eval()
    image = torch.zeros(1, *spec.input_shape)
    return {
        "built_params": count_parameters(network),
        "thop_params": thop_params(network, image),
        "torch_macs": torch_macs(network, image),
    }


def thop_params(network: nn.Module, image: Tensor) -> int:
    """Parameters of a network by thop, which runs it on an image."""
    with warnings.catch_warnings():
        # thop still asks distutils for versions.
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop import profile

    with torch.no_grad():
        _, params = profile(network, inputs=(image,), verbose=False)
    return int(params)


def torch_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of a network by torch's counter of operations, which runs it on an image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops()) // 2
