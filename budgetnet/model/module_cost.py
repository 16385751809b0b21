"""Cost of any torch module, counted by torch on one image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.common.errors import InputError
from budgetnet.model.cost import Cost

_COUNTED = (nn.modules.conv._ConvNd, nn.Linear)


def module_cost(module: nn.Module, *, input_shape: tuple[int, int, int]) -> Cost:
    """Count a module's parameters, and its multiply-accumulates and activations for one image.

    Parameters that are shared count once; frozen ones count. Multiply-accumulates are half of what torch's
    `FlopCounterMode` counts; activations are the output elements of convolutions and linear layers, but not of those
    within attention and recurrent layers. The module runs once, in evaluation mode and without gradients; its mode is
    restored.

    Args:
        module: takes images (1, channels, height, width).
        input_shape: image as (channels, height, width).

    Raises:
        InputError: the module fails on such an image.
    """
    activations = 0

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal activations
        activations += output.numel()

    parameter = next(module.parameters(), torch.empty(0))
    dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=dtype)
    modes = {part: part.training for part in module.modules()}
    hooks = [part.register_forward_hook(count) for part in modes if isinstance(part, _COUNTED)]
    try:
        with torch.no_grad(), _without_fused_layers(), FlopCounterMode(display=False) as counter:
            module.eval()(image)
    except Exception as error:
        shape = "x".join(map(str, input_shape))
        rule = f"fails on an image of {shape}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise InputError("network", type(module).__name__, rule) from None
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in modes.items():
            part.training = mode
    params = sum(math.prod(each.shape) for each in module.parameters())
    return Cost(params, int(counter.get_total_flops()) // 2, activations)


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    """Compute attention and recurrent layers by matrix products: torch counts nothing for kernels that fuse them."""
    attention = torch.backends.mha
    recurrent: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    fused, enabled = attention.get_fastpath_enabled(), [library.enabled for library in recurrent]
    attention.set_fastpath_enabled(False)
    for library in recurrent:
        library.enabled = False
    try:
        yield
    finally:
        attention.set_fastpath_enabled(fused)
        for library, before in zip(recurrent, enabled, strict=True):
            library.enabled = before
