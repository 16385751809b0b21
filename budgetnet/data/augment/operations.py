"""The fourteen operations of TrivialAugment and RandAugment, on batches with a different operation for each image.

Grouping images by operation would need host synchronisation. Instead every image passes through every step, with
parameters that are the identity for the operations that were not sampled for it: an identity transform, an identity
lookup table, a blend of weight 0. Shapes do not depend on values, so a batch can be captured as a CUDA graph.

The arithmetic, including rounding, is that of torchvision's functions on uint8 tensors.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor
from torch.nn import functional


class Operation(enum.IntEnum):
    """Augmentation operations, numbered in torchvision's order."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13


SIGNED = (
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
    Operation.BRIGHTNESS,
    Operation.COLOR,
    Operation.CONTRAST,
    Operation.SHARPNESS,
)
"""Operations with signed magnitudes, negated with probability 1/2."""

LEVELS = 256
"""Number of levels of a uint8 pixel."""


def apply_operation(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Apply one operation to each image.

    Args:
        pixels: float32 (n, channels, height, width), integers from 0 to 255; 1 or 3 channels.
        operations: int64 (n,), values of `Operation`.
        magnitudes: float32 (n,), signed. Shear: pixels per pixel. Translation: pixels, truncated to integers. Rotation:
            degrees, counter-clockwise. Brightness, colour, contrast, sharpness: factor minus 1. Posterize: number of
            bits. Solarize: threshold from which levels are inverted.

    Returns:
        New tensor of the shape and type of ``pixels``.
    """
    moved = _move(pixels, operations, magnitudes)
    return _blend(_map_levels(moved, operations, magnitudes), operations, magnitudes)


def _only(operation: Operation, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Return the magnitudes (n,) of one operation, 0 for images with other operations."""
    return magnitudes * (operations == operation)


def _inverse_matrices(operations: Tensor, magnitudes: Tensor, *, height: int, width: int) -> Tensor:
    """Return the affine matrices from output to input positions, relative to the image's centre.

    Returns:
        float32 (n, 2, 3): maps pixels to the normalised coordinates of `torch.nn.functional.grid_sample`.
    """
    # In float64, as torchvision computes them for a single image; MPS devices do not support it.
    exact = magnitudes if magnitudes.device.type == "mps" else magnitudes.double()
    angle = torch.deg2rad(_only(Operation.ROTATE, operations, exact))
    shear_x = _only(Operation.SHEAR_X, operations, exact)
    shear_y = _only(Operation.SHEAR_Y, operations, exact)
    # The fixed point of shears is the top left corner, half the size from the centre.
    shift_x = (width * 0.5 + shear_x * (height * 0.5)) - width * 0.5
    shift_y = (shear_y * (width * 0.5) + height * 0.5) - height * 0.5
    shift_x = shift_x - _only(Operation.TRANSLATE_X, operations, exact).trunc()
    shift_y = shift_y - _only(Operation.TRANSLATE_Y, operations, exact).trunc()
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack((cosine, shear_x - sine, shift_x), dim=1).float() / (width * 0.5)
    down = torch.stack((shear_y + sine, cosine, shift_y), dim=1).float() / (height * 0.5)
    return torch.stack((across, down), dim=1)


def _move(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Shear, translate or rotate with nearest-neighbour interpolation and black fill."""
    height, width = pixels.shape[-2:]
    matrices = _inverse_matrices(operations, magnitudes, height=height, width=width)
    # Pixel centres, relative to the image's centre.
    columns = torch.arange(width, device=pixels.device) - (width - 1) * 0.5
    rows = (torch.arange(height, device=pixels.device) - (height - 1) * 0.5)[:, None]
    # Not a matrix product, which could run in TensorFloat-32 or autocast precision and select wrong pixels.
    by_column, by_row, shift = matrices[..., None, None].unbind(2)
    grid = (by_column * columns + by_row * rows + shift).permute(0, 2, 3, 1)
    return functional.grid_sample(pixels, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _map_levels(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Apply posterize, solarize, auto-contrast or equalize, which map levels to levels."""
    count, channels = pixels.shape[:2]
    lowest, highest = pixels.amin(dim=(2, 3))[..., None], pixels.amax(dim=(2, 3))[..., None]
    levels = torch.arange(LEVELS, device=pixels.device)

    dropped_bits = (8 - magnitudes.to(torch.int64)) * (operations == Operation.POSTERIZE)
    posterised = levels >> dropped_bits[:, None] << dropped_bits[:, None]

    # The threshold of images that are not solarized is above all levels.
    threshold = magnitudes.masked_fill(operations != Operation.SOLARIZE, LEVELS)[:, None]
    solarised = torch.where(posterised >= threshold, (LEVELS - 1) - posterised, posterised)

    unchanged = (operations != Operation.AUTO_CONTRAST)[:, None, None] | (lowest == highest)
    scale = (LEVELS - 1) / (highest - lowest).masked_fill_(unchanged, LEVELS - 1)
    offset = lowest.masked_fill(unchanged, 0)
    stretched = ((solarised[:, None] - offset) * scale).clamp_(0, LEVELS - 1).floor_()

    # The lookup tables of all channels are concatenated. 32-bit indices, as memory traffic dominates on a CPU.
    starts = torch.arange(0, count * channels * LEVELS, LEVELS, dtype=torch.int32, device=pixels.device)
    positions = (pixels.to(torch.int32) + starts.view(count, channels, 1, 1)).flatten()
    histogram = torch.zeros(count * channels * LEVELS, device=pixels.device)
    histogram.index_add_(0, positions, torch.ones(1, device=pixels.device).expand_as(positions))
    equalised = _equalised(histogram.view(count, channels, LEVELS), highest.to(torch.int64))
    table = torch.where((operations == Operation.EQUALIZE)[:, None, None], equalised, stretched)
    return table.flatten().index_select(0, positions).view(pixels.shape)


def _equalised(histogram: Tensor, highest: Tensor) -> Tensor:
    """Return the lookup tables of histogram equalisation.

    Args:
        histogram: float32 (n, channels, 256), pixels of each level; exact up to 2**24 pixels.
        highest: int64 (n, channels, 1), highest level of any pixel.

    Returns:
        float32 (n, channels, 256).
    """
    cumulative = histogram.cumsum(dim=2)
    step = ((cumulative[..., -1:] - histogram.gather(2, highest)) / (LEVELS - 1)).floor_()
    table = (cumulative - histogram + (step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=LEVELS - 1)
    return torch.where(step == 0, torch.arange(LEVELS, device=histogram.device), table)


def _blend(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Change brightness, colour, contrast or sharpness by blending with a black, grey, constant or blurred image.

    Overwrites ``pixels`` to save memory.
    """
    channels, height, width = pixels.shape[1:]
    grey = grey_of(pixels)
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    color, contrast, sharpness, brightness = (
        _only(operation, operations, magnitudes)[:, None, None, None]
        for operation in (Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS, Operation.BRIGHTNESS)
    )
    # Colour does not apply to one channel, nor sharpness to images without inner pixels.
    if channels == 1:
        color = torch.zeros_like(color)
    if min(height, width) <= 2:
        sharpness = torch.zeros_like(sharpness)
    # At most one of the four is not 0, so the others leave the integers unchanged.
    blended = grey * color + mean * contrast
    blurred = _blurred(pixels).mul_(sharpness)
    pixels.mul_(1 + (color + contrast + sharpness + brightness)).sub_(blended).sub_(blurred)
    return pixels.clamp_(0, LEVELS - 1).floor_()


def grey_of(pixels: Tensor) -> Tensor:
    """Return the grey levels of pixels (n, channels, height, width), rounded down; pixels of one channel are grey."""
    if pixels.shape[1] != 3:
        return pixels
    return (0.2989 * pixels[:, :1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:]).floor_()


def _blurred(pixels: Tensor) -> Tensor:
    """Blur with a 3x3 kernel of ones and 5 in the centre; border pixels are unchanged."""
    lines = (pixels[..., :-2, :] + pixels[..., 1:-1, :]).add_(pixels[..., 2:, :])
    sums = (lines[..., :-2] + lines[..., 1:-1]).add_(lines[..., 2:]).add_(pixels[..., 1:-1, 1:-1], alpha=4)
    blurred = pixels.clone()
    # Multiples of 1/13 are never halfway between integers, so rounding does not depend on the precision.
    blurred[..., 1:-1, 1:-1] = sums.div_(13).round_()
    return blurred
