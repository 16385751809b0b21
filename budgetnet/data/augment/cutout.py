"""Cutout: a square of each image blanked out.

DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_cutout(
    count: int, *, size: tuple[int, int], device: torch.device | str, generator: torch.Generator | None
) -> Tensor:
    """Draws the centre of each image's square, uniform over all pixels.

    Args:
        count: images.
        size: height and width of the images in pixels.
        device: where the draws are to lie.
        generator: source of chance, on that device; None for the global one.

    Returns:
        int64 (count, 2): row and column.
    """
    height, width = size
    rows = torch.randint(height, (count,), device=device, generator=generator)
    columns = torch.randint(width, (count,), device=device, generator=generator)
    return torch.stack([rows, columns], dim=1)


def cut_out(inputs: Tensor, *, rows: Tensor, columns: Tensor, length: int) -> Tensor:
    """Sets a square of each image to 0, which is the mean colour once images are normalised.

    Squares are cut off at the border. One of odd length lies evenly about its centre; one of even length reaches one
    pixel further up and left than down and right, as the authors' own.

    Args:
        inputs: normalised, floating point (n, channels, height, width).
        rows: int64 (n,), of the squares' centres.
        columns: int64 (n,), of the squares' centres.
        length: side of the square in pixels.

    Returns:
        As ``inputs``, in its memory format, a new tensor.
    """
    height, width = inputs.shape[-2:]
    down = torch.arange(height, device=inputs.device) - (rows - length // 2)[:, None]
    across = torch.arange(width, device=inputs.device) - (columns - length // 2)[:, None]
    inside_rows = (down >= 0) & (down < length)
    inside_columns = (across >= 0) & (across < length)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    # Filled in a copy: a copy keeps the memory format, which masked_fill on its own does not.
    return inputs.clone().masked_fill_(inside[:, None], 0)
