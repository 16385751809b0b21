"""Batch norm, sum and ReLU of a training step on a CPU in bfloat16, as one function with fewer and faster passes.

torch's ReLU and its gradient convert every bfloat16 to float32 and back. A bfloat16 has the sign of the 16-bit integer
with the same bits, and comparing integers takes a third to a sixth of the time. Sum and ReLU work in place, as nothing
needs the batch norm's output again. Every bit of the result and of the gradients is what torch's modules give.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from budgetnet.common import cpu


def is_faster(norm: nn.BatchNorm2d, maps: Tensor) -> bool:
    """Return whether `norm_relu` applies here and is faster than the modules that it replaces.

    Args:
        norm: the batch norm.
        maps: its input, (batch, channels, height, width).
    """
    return (
        norm.training
        and maps.dtype == torch.bfloat16
        and maps.device.type == "cpu"
        and maps.is_contiguous(memory_format=torch.channels_last)
        # A batch of one pixel has no variance; the module says so.
        and maps.numel() > maps.shape[1]
        and not torch.compiler.is_compiling()
        and cpu.uses_settings()
    )


def norm_relu(norm: nn.BatchNorm2d, maps: Tensor, added: Tensor | None = None) -> Tensor:
    """Compute ``relu(norm(maps) + added)`` in training mode, and update the running statistics.

    Args:
        norm: the batch norm, with weights, running statistics and momentum.
        maps: bfloat16 (batch, channels, height, width), channels last in memory.
        added: of the same shape and type, to be added before the ReLU; nothing if omitted. A value in it that is no
            number must have reached `maps` as well, as the input of a residual block does.
    """
    return cast(Tensor, _NormReLU.apply(maps, norm.weight, norm.bias, added, norm))


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, norm: nn.BatchNorm2d
    ) -> Tensor:
        cast(Tensor, norm.num_batches_tracked).add_(1)
        output, mean, inverse = torch.native_batch_norm(
            maps, weight, bias, norm.running_mean, norm.running_var, True, cast(float, norm.momentum), norm.eps
        )
        if added is not None:
            output.add_(added)
        # A NaN may have the sign of a number below zero, and would be hidden; it is in the statistics as well.
        if math.isfinite(float(mean.dot(inverse)) + float(weight.dot(bias))):
            output.view(torch.int16).clamp_min_(0)
        else:
            output.relu_()
        ctx.save_for_backward(maps, output, weight, mean, inverse)
        ctx.eps, ctx.adds = norm.eps, added is not None
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, output, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last).view(torch.int16)
        passed = torch.ops.aten.threshold_backward(gradient, output.view(torch.int16), 0).view(torch.bfloat16)
        gradients = torch.ops.aten.native_batch_norm_backward(
            passed, maps, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        return (*gradients, passed if ctx.adds else None, None)
