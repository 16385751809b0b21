"""Validation: loss, accuracy and class probabilities of a network on a set of images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.common import cpu
from budgetnet.common.errors import InputError
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.data.views import weighted_views
from budgetnet.runs.recipe import Views
from budgetnet.training.cuda_graph import GraphedCallable

EVALUATION_PIXELS = 1000 * 32 * 32
"""Pixels of a batch without gradients: 1,000 images of 32x32, fewer larger ones, to limit memory."""


class Evaluation(NamedTuple):
    """Loss and accuracy of a network on a set of images."""

    loss: float
    """Mean cross-entropy, in nats."""
    correct: int
    """Number of correctly classified images."""
    images: int

    @property
    def accuracy(self) -> float:
        """Share of correctly classified images."""
        return self.correct / self.images


class Evaluator:
    """Repeated evaluation of one network on one set of images."""

    def __init__(
        self,
        network: nn.Module,
        data: OnDeviceImages,
        *,
        precision: torch.dtype = torch.float32,
        views: Views = "none",
        record: bool = False,
    ) -> None:
        """Prepare the evaluation.

        Args:
            network: maps images (batch, channels, height, width) to logits (batch, num_classes).
            data: images and labels, on the network's device.
            precision: precision of convolutions and matrix products.
            views: test-time augmentation; probabilities are averaged over the views of each image.
            record: whether to capture batches as a CUDA graph, on CUDA devices; faster from the second evaluation on.

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
        self._predictions = torch.zeros(len(data), dtype=torch.int64, device=self.device)
        self._full_batch = GraphedCallable(
            lambda: self._evaluate_batch(self.batch_size), device=self.device, record=record
        )

    @torch.no_grad()
    def __call__(self) -> Evaluation:
        """Return loss and accuracy with the current weights, in evaluation mode; the previous mode is restored."""
        training = self.network.training
        self.network.eval()
        self._start.zero_()
        self._loss.zero_()
        full, rest = divmod(len(self.data), self.batch_size)
        for _ in range(full):
            self._full_batch()
        if rest:
            self._evaluate_batch(rest)
        self.network.train(training)
        correct = int((self._predictions == self.data.labels).sum().item())
        return Evaluation(self._loss.item() / len(self.data), correct, len(self.data))

    def confusion(self, num_classes: int) -> list[list[int]]:
        """Return the confusion matrix of the last call: a row for each true class, a column for each predicted one."""
        pairs = self.data.labels * num_classes + self._predictions
        counts = torch.bincount(pairs.cpu(), minlength=num_classes**2)
        matrix: list[list[int]] = counts.reshape(num_classes, num_classes).tolist()
        return matrix

    def release(self) -> None:
        """Free the memory of CUDA graphs; the object cannot be called afterwards."""
        self._full_batch.release()

    @torch.no_grad()
    def log_probabilities(self) -> Tensor:
        """Return log-probabilities of each image with the current weights, in evaluation mode.

        Returns:
            float32 (n, num_classes): natural logarithms, on the device.
        """
        training = self.network.training
        self.network.eval()
        rows = torch.arange(len(self.data), device=self.device)
        scores = torch.cat([self._scores(batch) for batch in torch.split(rows, self.batch_size)])
        self.network.train(training)
        return scores

    def _evaluate_batch(self, size: int) -> None:
        rows = self._start + self._positions[:size]
        scores, labels = self._scores(rows), self.data.labels.index_select(0, rows)
        self._loss += functional.nll_loss(scores, labels, reduction="sum")
        self._predictions.index_copy_(0, rows, scores.argmax(dim=1))
        self._start += size

    def _scores(self, rows: Tensor) -> Tensor:
        inputs = normalise(self.data.images.index_select(0, rows), self.data.mean, self.data.std)
        unit, scores = 1.0, torch.empty(0)
        for number, (weight, view) in enumerate(weighted_views(inputs, self.views)):
            with autocast(self.device, self.precision):
                logits = self.network(view)
            log_probabilities = functional.log_softmax(logits.float(), dim=1)
            if number == 0:
                unit, scores = weight, log_probabilities
            else:
                # Weights relative to the first: for equal weights the logarithm is exactly 0.
                scores = torch.logaddexp(scores, log_probabilities + math.log(weight / unit))
        return scores + math.log(unit)


def loss_accumulator(device: torch.device) -> Tensor:
    """Return a scalar zero on the device, float64 where supported (not on mps)."""
    return torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return a context manager that computes convolutions and matrix products in the precision, the rest in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)
