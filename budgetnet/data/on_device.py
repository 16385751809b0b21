"""Data sets in device memory, stored as uint8 and normalised batch by batch.

Small images fit into device memory as a whole, so training needs no loader processes and no copies from the host.
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
class OnDeviceImages:
    """Images, labels and normalisation statistics on one device."""

    images: Tensor
    """uint8 (n, channels, height, width)."""

    labels: Tensor
    """int64 (n,)."""

    mean: Tensor
    """float32 (channels,): mean of pixels in [0, 1]."""

    std: Tensor
    """float32 (channels,): standard deviation of pixels in [0, 1]."""

    def __len__(self) -> int:
        return len(self.labels)


def to_device(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    indices: npt.NDArray[Any] | None = None,
    *,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
) -> OnDeviceImages:
    """Copy images and labels to a device.

    Args:
        images: uint8 (n, channels, height, width).
        labels: class numbers (n,).
        indices: indices of the images to copy, in this order; default: all.
        device: target device.
        mean: mean per channel of pixels in [0, 1].
        std: standard deviation per channel of pixels in [0, 1].
    """
    selected_images = images.copy() if indices is None else images[indices]
    selected_labels = labels.astype(np.int64) if indices is None else labels[indices].astype(np.int64)
    return OnDeviceImages(
        images=torch.from_numpy(selected_images).to(device),
        labels=torch.from_numpy(selected_labels).to(device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
    )


def normalise(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise images: (value / 255 - mean) / std.

    Args:
        batch: uint8 (n, channels, height, width).
        mean: mean per channel (channels,) of pixels in [0, 1].
        std: standard deviation per channel (channels,) of pixels in [0, 1].

    Returns:
        float32 (n, channels, height, width) in channels-last memory format, in which convolutions are often faster.
    """
    scaled = batch.to(torch.float32, copy=True).div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])
    # Converted last: the arithmetic above is several times faster in contiguous format.
    return scaled.contiguous(memory_format=torch.channels_last)
