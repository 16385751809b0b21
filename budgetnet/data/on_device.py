"""Images that live on the device, as bytes, and are normalised there a batch at a time.

Small images fit whole into a device's memory. What is left for each step is arithmetic over a batch: no workers, no
copies from the host, no loop over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentImages:
    """Images, their labels, and what to normalise them by, all on one device."""

    images: Tensor
    """uint8 (n, channels, height, width)."""

    labels: Tensor
    """int64 (n,)."""

    mean: Tensor
    """float32 (channels,), of pixels in [0, 1]."""

    std: Tensor
    """float32 (channels,), of pixels in [0, 1]."""

    def __len__(self) -> int:
        return len(self.labels)


def resident(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    indices: npt.NDArray[Any] | None = None,
    *,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
) -> ResidentImages:
    """Copies images to a device.

    Args:
        images: uint8 (n, channels, height, width).
        labels: class numbers (n,).
        indices: which of them to copy, in this order; None for all.
        device: where to.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
    """
    chosen_images = images.copy() if indices is None else images[indices]
    chosen_labels = labels.astype(np.int64) if indices is None else labels[indices].astype(np.int64)
    return ResidentImages(
        images=torch.from_numpy(chosen_images).to(device),
        labels=torch.from_numpy(chosen_labels).to(device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
    )


def normalise(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes to what a network takes: (value / 255 - mean) / std.

    Args:
        batch: uint8 (n, channels, height, width).
        mean: (channels,), of pixels in [0, 1].
        std: (channels,), of pixels in [0, 1].

    Returns:
        float32 (n, channels, height, width), with the channels of a pixel side by side in memory, as convolutions on
        many devices like it.
    """
    scaled = batch.to(torch.float32, copy=True).div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])
    # Laid out last: the arithmetic is several times faster while a channel's pixels are side by side.
    return scaled.contiguous(memory_format=torch.channels_last)
