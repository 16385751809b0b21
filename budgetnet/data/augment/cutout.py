"""Cutout: masks a random square of each image.

DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample_cutout(
    count: int, *, size: tuple[int, int], device: torch.device | str, generator: torch.Generator | None
) -> Tensor:
    """Sample the centre of the square of each image, uniformly over all pixels.

    Args:
        count: number of images.
        size: height and width of the images in pixels.
        device: device of the samples.
        generator: random generator on that device; None for the global one.

    Returns:
        int64 (count, 2): row and column.
    """
    height, width = size
    rows = torch.randint(height, (count,), device=device, generator=generator)
    columns = torch.randint(width, (count,), device=device, generator=generator)
    return torch.stack([rows, columns], dim=1)


def cut_out(inputs: Tensor, *, rows: Tensor, columns: Tensor, length: int) -> Tensor:
    """Set a square of each image to 0, the mean colour of normalised images.

    Squares are clipped at the border. A square of even length extends one pixel further up and left than down and
    right, as in the authors' implementation.

    Args:
        inputs: normalised images, floating point (n, channels, height, width).
        rows: int64 (n,), row of the centre of each square.
        columns: int64 (n,), column of the centre of each square.
        length: side of the squares in pixels.

    Returns:
        New tensor of the shape, type and memory format of ``inputs``.
    """
    height, width = inputs.shape[-2:]
    down = torch.arange(height, device=inputs.device) - (rows - length // 2)[:, None]
    across = torch.arange(width, device=inputs.device) - (columns - length // 2)[:, None]
    inside_rows = (down >= 0) & (down < length)
    inside_columns = (across >= 0) & (across < length)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    # clone keeps the memory format; masked_fill does not.
    return inputs.clone().masked_fill_(inside[:, None], 0)
