"""A network with built-in normalisation of its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A network that takes images with values from 0 to 1 and normalises them first.

    Args:
        network: takes normalised images (batch, channels, height, width), returns logits (batch, num_classes).
        mean: mean of each channel, subtracted from the pixels.
        std: standard deviation of each channel, by which the result is divided.
    """

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.network = network
        # Not persistent, so that the state dict holds the network's weights only.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, num_classes) of images (batch, channels, height, width), float32 from 0 to 1."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits
