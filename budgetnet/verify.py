"""Counts of a built network by other hands than ours, to check the closed form against."""

from __future__ import annotations

import warnings

import torch
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.build import build, count_parameters
from budgetnet.spec import ModelSpec


def count_built(spec: ModelSpec) -> dict[str, int]:
    """Builds a network and counts it.

    Returns:
        ``built_params``: elements of its parameters; ``thop_params``: parameters by thop; ``torch_macs``:
        multiply-accumulates for one image, half of what torch's counter of operations says.
    """
    with warnings.catch_warnings():
        # thop still asks distutils for versions.
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop import profile

    network = build(spec).eval()
    params = count_parameters(network)
    image = torch.zeros(1, *spec.input_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    with torch.no_grad():
        _, thop_params = profile(network, inputs=(image,), verbose=False)
    return {"built_params": params, "thop_params": int(thop_params), "torch_macs": counter.get_total_flops() // 2}
