"""Torch modules of a network: stem, residual blocks, shortcuts and head, built from the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.model import batch_norm
from budgetnet.model.plan import BlockPlan, HeadPlan, Layer, StemPlan

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
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

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        settings = plan.settings
        self.preact, self.linear = settings.preact, settings.linear
        self.drop_rate = 0.0
        self.activation = ACTIVATIONS[settings.activation]
        # A list for speed; the modules are registered under the names of the plan.
        layers = zip(plan.convs, plan.norms, strict=True)
        self.steps = [(conv(conv_layer), conv_layer.pool, norm(norm_layer)) for conv_layer, norm_layer in layers]
        for number, (conv_module, _, norm_module) in enumerate(self.steps, 1):
            self.add_module(f"conv{number}", conv_module)
            self.add_module(f"norm{number}", norm_module)
        self.dropout = nn.Dropout(settings.dropout) if settings.dropout else None
        self.squeeze_excitation = (
            SqueezeExcitation(plan.squeeze_excitation, activation=settings.activation)
            if plan.squeeze_excitation
            else None
        )
        self.inner_attention = plan.inner_attention
        self.has_shortcut = plan.shortcut != "none"
        self.shortcut = Shortcut(plan) if plan.shortcut not in ("identity", "none") else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        shortcut_input = maps
        *inner, (last_conv, _, last_norm) = self.steps
        if self.preact:
            for number, (conv_module, pool, norm_module) in enumerate(inner, 1):
                maps = norm_activate(norm_module, self.activation, maps)
                if number == 1 and self.shortcut is not None:
                    shortcut_input = maps
                maps = max_pool(conv_module(maps), pool)
            maps = last_conv(self._before_last(norm_activate(last_norm, self.activation, maps)))
        else:
            for conv_module, pool, norm_module in inner:
                maps = norm_activate(norm_module, self.activation, max_pool(conv_module(maps), pool))
            maps = last_conv(self._before_last(maps))
            dropping = self.training and self.drop_rate
            attends = self.squeeze_excitation is not None and not self.inner_attention
            if not (attends or dropping or self.linear):
                return norm_activate(last_norm, self.activation, maps, lambda: self._residual(shortcut_input))
            maps = last_norm(maps)
        if self.squeeze_excitation is not None and not self.inner_attention:
            maps = self.squeeze_excitation(maps)
        residual = self._residual(shortcut_input)
        if residual is not None:
            if self.training and self.drop_rate:
                maps = drop_images(maps, self.drop_rate)
            maps = maps + residual
        return maps if self.linear else self.activation(maps)

    def _before_last(self, maps: Tensor) -> Tensor:
        """Apply what comes before the last convolution: squeeze-and-excitation, if its place is there, and dropout."""
        if self.squeeze_excitation is not None and self.inner_attention:
            maps = self.squeeze_excitation(maps)
        return maps if self.dropout is None else self.dropout(maps)

    def _residual(self, maps: Tensor) -> Tensor | None:
        """Return the shortcut's output; None without a shortcut."""
        if not self.has_shortcut:
            return None
        return maps if self.shortcut is None else cast(Tensor, self.shortcut(maps))


class ConvNorm(nn.Module):
    """A convolution with batch norm and activation."""

    def __init__(self, conv_layer: Layer, norm_layer: Layer, *, activation: str) -> None:
        super().__init__()
        self.conv, self.norm = conv(conv_layer), norm(norm_layer)
        self.activation = ACTIVATIONS[activation]

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        return norm_activate(self.norm, self.activation, self.conv(maps))


class Stem(nn.Module):
    """The first convolutions, with batch norm and activation except before pre-activation blocks; then max pooling."""

    def __init__(self, plan: StemPlan, *, activation: str) -> None:
        super().__init__()
        self.whitening = conv(plan.whitening) if plan.whitening else None
        pairs = zip(plan.convs[:-1], plan.inner_norms, strict=True)
        self.inner = nn.Sequential(*(ConvNorm(*pair, activation=activation) for pair in pairs))
        self.conv = conv(plan.conv)
        self.norm = norm(plan.norm) if plan.norm else None
        self.activation = ACTIVATIONS[activation]
        attention = plan.squeeze_excitation
        self.squeeze_excitation = SqueezeExcitation(attention, activation=activation) if attention else None
        self.pool_size, self.pool_stride = plan.pool_size, plan.pool_stride

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to feature maps."""
        if self.whitening is not None:
            images = self.activation(self.whitening(images))
        maps: Tensor = self.conv(self.inner(images))
        if self.norm is not None:
            maps = norm_activate(self.norm, self.activation, maps)
        if self.squeeze_excitation is not None:
            maps = self.squeeze_excitation(maps)
        if self.pool_size is None:
            return maps
        if self.pool_size % 2 == 0:
            return max_pool(maps, self.pool_size)
        return functional.max_pool2d(maps, self.pool_size, self.pool_stride, padding=self.pool_size // 2)


class Head(nn.Module):
    """Pooling, dropout and the linear classifier."""

    def __init__(self, plan: HeadPlan, *, activation: str) -> None:
        super().__init__()
        self.norm = norm(plan.norm) if plan.norm else None
        self.conv = conv(plan.conv) if plan.conv else None
        self.conv_norm = norm(plan.conv_norm) if plan.conv_norm else None
        self.activation = ACTIVATIONS[activation]
        self.pooling, self.pool_size = plan.pooling, plan.pool_size
        self.dropout = nn.Dropout(plan.dropout)
        self.linear = nn.Linear(plan.linear.in_channels, plan.linear.out_channels)
        self.scale = plan.scale

    def forward(self, maps: Tensor) -> Tensor:
        """Map feature maps (batch, channels, height, width) to logits (batch, num_classes)."""
        if self.norm is not None:
            maps = norm_activate(self.norm, self.activation, maps)
        if self.conv is not None and self.conv_norm is not None:
            maps = norm_activate(self.conv_norm, self.activation, self.conv(maps))
        logits: Tensor = self.linear(self.dropout(self._pooled(maps)))
        return logits if self.scale == 1 else logits * self.scale

    def _pooled(self, maps: Tensor) -> Tensor:
        """Pool maps (batch, channels, height, width) to features (batch, channels x windows)."""
        average = self.pooling == "average"
        if self.pool_size is None:
            return maps.mean(dim=(2, 3)) if average else maps.amax(dim=(2, 3))
        pool = functional.avg_pool2d if average else functional.max_pool2d
        return pool(maps, self.pool_size).flatten(1)
