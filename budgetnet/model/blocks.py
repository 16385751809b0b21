"""Torch modules of a network: stem, residual blocks, shortcuts and head, built from the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.model import batch_norm
from budgetnet.model.plan import BlockPlan, Layer, Plan

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}


def conv(layer: Layer) -> nn.Conv2d:
    """Build a convolution; the weights of a whitening convolution are frozen."""
    module = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        bias=layer.bias,
    )
    module.weight.requires_grad = layer.kind != "whitening"
    return module


def norm(layer: Layer) -> nn.BatchNorm2d:
    """Build a batch norm."""
    return nn.BatchNorm2d(layer.out_channels)


def norm_activate(
    norm_module: nn.BatchNorm2d,
    activation: Callable[[Tensor], Tensor],
    maps: Tensor,
    added: Callable[[], Tensor | None] = lambda: None,
) -> Tensor:
    """Compute ``activation(norm(maps) + added())`` with the fastest available implementation.

    Args:
        norm_module: the batch norm.
        activation: one of `ACTIVATIONS`.
        maps: input (batch, channels, height, width).
        added: returns a tensor of the same shape that is added, or None; called after the batch norm, unless both are
            fused.
    """
    if activation is functional.relu and batch_norm.is_faster(norm_module, maps):
        return batch_norm.norm_relu(norm_module, maps, added())
    maps = norm_module(maps)
    residual = added()
    return activation(maps if residual is None else maps + residual)


def max_pool(maps: Tensor, side: int) -> Tensor:
    """Pool windows of a side in pixels, partial windows at the border included; a side of 1 changes nothing."""
    return functional.max_pool2d(maps, side, ceil_mode=True) if side > 1 else maps


def drop_images(maps: Tensor, rate: float) -> Tensor:
    """Set the maps of random images of a batch to zero, and scale the others so that the mean is unchanged."""
    from torchvision.ops import stochastic_depth  # Slow to import, and rarely used.

    return cast(Tensor, stochastic_depth(maps, rate, "row"))


class SqueezeExcitation(nn.Module):
    """Channel attention computed from the pooled map (Hu et al. 2018, Squeeze-and-Excitation Networks)."""

    def __init__(self, layers: tuple[Layer, Layer], *, activation: str) -> None:
        super().__init__()
        self.reduce, self.expand = (conv(layer) for layer in layers)
        self.activation = ACTIVATIONS[activation]

    def forward(self, maps: Tensor) -> Tensor:
        """Scale the channels of maps (batch, channels, height, width)."""
        pooled = maps.mean(dim=(2, 3), keepdim=True)
        return maps * torch.sigmoid(self.expand(self.activation(self.reduce(pooled))))


class Shortcut(nn.Module):
    """The shortcut of a residual block that changes the shape."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.kind = plan.shortcut
        self.stride = plan.output.stride
        self.added_channels = plan.output.out_channels - plan.output.in_channels
        self.conv = conv(plan.shortcut_conv) if plan.shortcut_conv else None
        self.norm = norm(plan.shortcut_norm) if plan.shortcut_norm else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to the block's output shape."""
        if self.kind == "padding":
            return functional.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added_channels))
        if self.kind == "average-pool" and self.stride > 1:
            # Partial windows at the border average the pixels that they cover; ceil_mode gives ceil(side / stride).
            maps = functional.avg_pool2d(maps, self.stride, ceil_mode=True, count_include_pad=False)
        if self.conv is not None:
            maps = self.conv(maps)
        return maps if self.norm is None else self.norm(maps)


class ResnetBlock(nn.Module):
    """A residual block of any kind: convolutions with batch norm, and a shortcut."""

    def __init__(self, plan: BlockPlan, *, activation: str) -> None:
        super().__init__()
        self.preact = plan.kind == "preact"
        self.drop_rate = 0.0
        self.activation = ACTIVATIONS[activation]
        # A list for speed; the modules are registered under the names of the plan.
        layers = zip(plan.convs, plan.norms, strict=True)
        self.steps = [(conv(conv_layer), conv_layer.pool, norm(norm_layer)) for conv_layer, norm_layer in layers]
        for number, (conv_module, _, norm_module) in enumerate(self.steps, 1):
            self.add_module(f"conv{number}", conv_module)
            self.add_module(f"norm{number}", norm_module)
        self.squeeze_excitation = (
            SqueezeExcitation(plan.squeeze_excitation, activation=activation) if plan.squeeze_excitation else None
        )
        self.has_shortcut = plan.shortcut != "none"
        self.shortcut = Shortcut(plan) if plan.shortcut not in ("identity", "none") else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        shortcut_input = maps
        *inner, (last_conv, _, last_norm) = self.steps
        if self.preact:
            for number, (conv_module, pool, norm_module) in enumerate(self.steps, 1):
                maps = norm_activate(norm_module, self.activation, maps)
                if number == 1 and self.shortcut is not None:
                    shortcut_input = maps
                maps = max_pool(conv_module(maps), pool)
        else:
            for conv_module, pool, norm_module in inner:
                maps = norm_activate(norm_module, self.activation, max_pool(conv_module(maps), pool))
            maps = last_conv(maps)
            if self.squeeze_excitation is None and not (self.training and self.drop_rate):
                return norm_activate(last_norm, self.activation, maps, lambda: self._residual(shortcut_input))
            maps = last_norm(maps)
        if self.squeeze_excitation is not None:
            maps = self.squeeze_excitation(maps)
        residual = self._residual(shortcut_input)
        if residual is not None:
            if self.training and self.drop_rate:
                maps = drop_images(maps, self.drop_rate)
            maps = maps + residual
        return maps if self.preact else self.activation(maps)

    def _residual(self, maps: Tensor) -> Tensor | None:
        """Return the shortcut's output; None without a shortcut."""
        if not self.has_shortcut:
            return None
        return maps if self.shortcut is None else cast(Tensor, self.shortcut(maps))


class Stem(nn.Module):
    """The first convolution, with batch norm and activation except before pre-activation blocks."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.whitening = conv(plan.whitening) if plan.whitening else None
        self.conv = conv(plan.stem_conv)
        self.norm = norm(plan.stem_norm) if plan.stem_norm else None
        self.activation = ACTIVATIONS[plan.activation]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to feature maps."""
        if self.whitening is not None:
            images = self.activation(self.whitening(images))
        maps: Tensor = self.conv(images)
        return maps if self.norm is None else norm_activate(self.norm, self.activation, maps)


class Head(nn.Module):
    """Global pooling, dropout and the linear classifier."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.norm = norm(plan.head_norm) if plan.head_norm else None
        self.activation = ACTIVATIONS[plan.activation]
        self.pooling = plan.pooling
        self.dropout = nn.Dropout(plan.dropout)
        self.linear = nn.Linear(plan.linear.in_channels, plan.linear.out_channels)
        self.scale = plan.scale

    def forward(self, maps: Tensor) -> Tensor:
        """Map feature maps (batch, channels, height, width) to logits (batch, num_classes)."""
        if self.norm is not None:
            maps = norm_activate(self.norm, self.activation, maps)
        pooled = maps.mean(dim=(2, 3)) if self.pooling == "average" else maps.amax(dim=(2, 3))
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits if self.scale == 1 else logits * self.scale
