"""How good a network is on images that it was not trained on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.common import cpu
from budgetnet.common.errors import InputError
from budgetnet.data.on_device import ResidentImages, normalise
from budgetnet.data.views import weighted_views
from budgetnet.runs.recipe import Views
from budgetnet.training.cuda_graph import Replay

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


class Evaluator:
    """Judges one network on one set of images, as often as asked."""

    def __init__(
        self,
        network: nn.Module,
        data: ResidentImages,
        *,
        precision: torch.dtype = torch.float32,
        views: Views = "none",
        record: bool = False,
    ) -> None:
        """Nothing is judged yet.

        Args:
            network: takes images (batch, channels, height, width), gives logits (batch, num_classes).
            data: the images, on the network's device.
            precision: of convolutions and matrix products.
            views: by which views of each image it is judged; their probabilities are averaged.
            record: whether batches are recorded as a CUDA graph and replayed, on a device that can; it pays from the
                second evaluation on.

        Raises:
            InputError: the images are too small to be shifted.
        """
        if views == "flip-and-shifts" and min(data.images.shape[2:]) < 2:
            size = "x".join(map(str, data.images.shape[2:]))
            raise InputError("views", views, f"needs images of at least 2x2 pixels, not {size}")
        cpu.prepare()
        self.network, self.data, self.precision, self.views = network, data, precision, views
        self.device = data.images.device
        self.batch_size = max(1, min(1000, EVALUATION_PIXELS // math.prod(data.images.shape[2:])))
        self._start = torch.zeros((), dtype=torch.int64, device=self.device)
        self._positions = torch.arange(self.batch_size, device=self.device)
        self._loss = loss_accumulator(self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._full_batch = Replay(lambda: self._judge(self.batch_size), device=self.device, record=record)

    @torch.no_grad()
    def __call__(self) -> Evaluation:
        """Loss and accuracy of the network as it is now, in evaluation mode; it is left in the mode it was in."""
        training = self.network.training
        self.network.eval()
        for counter in (self._start, self._loss, self._correct):
            counter.zero_()
        full, rest = divmod(len(self.data), self.batch_size)
        for _ in range(full):
            self._full_batch()
        if rest:
            self._judge(rest)
        self.network.train(training)
        return Evaluation(self._loss.item() / len(self.data), int(self._correct.item()), len(self.data))

    def release(self) -> None:
        """Lets go of its memory: nothing can be judged any more."""
        self._full_batch.release()

    @torch.no_grad()
    def log_probabilities(self) -> Tensor:
        """What the network, as it is now and in evaluation mode, says of each image.

        Returns:
            float32 (n, num_classes): natural logarithms of its probabilities, on the device.
        """
        training = self.network.training
        self.network.eval()
        rows = torch.arange(len(self.data), device=self.device)
        scores = torch.cat([self._scores(some) for some in torch.split(rows, self.batch_size)])
        self.network.train(training)
        return scores

    def _judge(self, size: int) -> None:
        rows = self._start + self._positions[:size]
        scores, labels = self._scores(rows), self.data.labels.index_select(0, rows)
        self._loss += functional.nll_loss(scores, labels, reduction="sum")
        self._correct += (scores.argmax(dim=1) == labels).sum()
        self._start += size

    def _scores(self, rows: Tensor) -> Tensor:
        inputs = normalise(self.data.images.index_select(0, rows), self.data.mean, self.data.std)
        unit, scores = 1.0, torch.empty(0)
        for number, (weight, view) in enumerate(weighted_views(inputs, self.views)):
            with autocast(self.device, self.precision):
                logits = self.network(view)
            said = functional.log_softmax(logits.float(), dim=1)
            if number == 0:
                unit, scores = weight, said
            else:
                # Weights are in units of the first, so that equal ones are not rounded.
                scores = torch.logaddexp(scores, said + math.log(weight / unit))
        return scores + math.log(unit)


def loss_accumulator(device: torch.device) -> Tensor:
    """A zero to add losses to, on the device, in the widest type it has: Apple's has no float64."""
    return torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Convolutions and matrix products in that precision, everything else in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)
