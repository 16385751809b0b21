"""How good a network is on images that it was not trained on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.data.device import ResidentImages, batches

EVALUATION_PIXELS = 1000 * 32 * 32
"""Pixels in a batch without gradients: a thousand small images, fewer of larger ones, so that maps fit into memory."""


class Evaluation(NamedTuple):
    """What a network did on a set of images."""

    loss: float
    """Mean cross-entropy, in nats."""
    correct: int
    """Images classified rightly."""
    images: int

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly."""
        return self.correct / self.images


@torch.no_grad()
def evaluate(network: nn.Module, data: ResidentImages) -> Evaluation:
    """Loss and accuracy of a network, in evaluation mode, without augmentation.

    Args:
        network: takes images (batch, channels, height, width), gives logits (batch, num_classes); left in training mode
            if it was in it.
        data: the images, on the network's device.
    """
    device = data.images.device
    training = network.training
    network.eval()
    batch_size = max(1, min(1000, EVALUATION_PIXELS // math.prod(data.images.shape[2:])))
    loss = loss_accumulator(device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for inputs, labels in batches(data, batch_size=batch_size):
        with autocast(device):
            logits = network(inputs)
        loss += functional.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (logits.argmax(dim=1) == labels).sum()
    network.train(training)
    return Evaluation(loss.item() / len(data), int(correct.item()), len(data))


def loss_accumulator(device: torch.device) -> Tensor:
    """A zero to add losses to, on the device, in the widest type it has: Apple's has no float64."""
    return torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision in bfloat16 on a CUDA device, plain float32 elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
