"""A network together with the normalisation of its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Takes images with values from 0 to 1, normalises them and asks a network."""

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Nothing is copied.

        Args:
            network: takes normalised images (batch, channels, height, width), gives logits (batch, num_classes).
            mean: what is subtracted from each channel's pixels.
            std: what each channel's pixels are then divided by.
        """
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.network = network
        # No weights: they stay out of the state dict, which is the network's own.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width), float32 from 0 to 1, to logits (batch, num_classes)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits
