"""The plain training loop that the paper's notebook ran, written as one would at first: what ours is measured against.

Pillow transforms for one image at a time, a ``DataLoader`` with two workers, float32, and the loss fetched from the
device after every step. Nothing is tuned, and nothing is left out of a step.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from budgetnet.data.dataset import CIFAR10_MEAN, CIFAR10_STD, pixel_statistics
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec

WORKERS = 2
"""Processes that the notebook's ``DataLoader`` had."""


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images as Pillow images, one at a time, as torchvision's own data sets hand them out."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        """Args as in ``PlainLoop``; ``transform`` makes the network's input of a Pillow image."""
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self._images = rows[..., 0] if rows.shape[3] == 1 else rows
        self._labels = labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


class PlainLoop:
    """Trains a network as the notebook did, one step after another, epoch after epoch without an end.

    A call of ``step`` is over when the loss has arrived, but the weights may still be on their way: whoever takes the
    time of steps on a CUDA device synchronises it.

    Attributes:
        network: what is trained.
        images_seen: how many images all steps so far have taken; the last batch of an epoch may be a smaller one.
        loss: cross-entropy of the last step, averaged over its batch; not a number before the first.
    """

    def __init__(
        self,
        spec: ModelSpec,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        batch_size: int,
        device: torch.device | str,
        seed: int,
        crop_padding: int | None = None,
        workers: int = WORKERS,
    ) -> None:
        """Builds the network on the device; the workers start with the first step.

        Args:
            spec: the network, for images of this shape and at least as many classes as there are labels.
            images: training images, uint8 (n, channels, height, width), 1 or 3 channels.
            labels: class number of each image (n,).
            learning_rate: of stochastic gradient descent, the same in every step.
            momentum: of stochastic gradient descent.
            weight_decay: L2 penalty added to the gradient.
            batch_size: images in a step; an epoch's last step takes those that are left.
            device: where the network is trained.
            seed: fixes the initial weights, the order of the images and, with workers, their augmentation.
            crop_padding: zero pixels added on each side before a random crop; None for an eighth of the height, which
                are the notebook's 4 for images of 32x32.
            workers: processes that prepare batches; with 0 of them each step prepares its own.
        """
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = build(spec).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )
        self.criterion = nn.CrossEntropyLoss()
        crop_padding = images.shape[2] // 8 if crop_padding is None else crop_padding
        self._loader = DataLoader(
            PlainImages(images, labels, notebook_transform(images, crop_padding=crop_padding)),
            batch_size=batch_size,
            shuffle=True,
            num_workers=workers,
            generator=torch.Generator().manual_seed(seed),
            # As Python did there in the notebook's day: a copy of this process, which need not import torch again.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        self._batches: Iterator[tuple[Tensor, Tensor]] | None = None
        self.images_seen = 0
        self.loss = float("nan")

    def step(self) -> None:
        """Fetches a batch and learns from it; at the end of an epoch the next one begins.

        Raises:
            RuntimeError: a worker was killed.
        """
        images, labels = self._next_batch()
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        loss = self.criterion(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()
        self.images_seen += len(labels)

    def close(self) -> None:
        """Ends the workers and waits until they are gone; a further step would start new ones."""
        # The loader has no other way to say so: its workers live as long as the iterator.
        self._batches = None

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """Images float32 (batch, channels, height, width), normalised, and labels int64 (batch,), on the CPU."""
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is None:
            self.close()
            with _plain_start():
                self._batches = iter(self._loader)
            batch = next(self._batches)
        images, labels = batch
        return images, labels


def notebook_transform(images: npt.NDArray[np.uint8], *, crop_padding: int) -> Callable[[Image.Image], Tensor]:
    """The notebook's transforms for training images, for images of another size or without colour too.

    Args:
        images: all training images, uint8 (n, channels, height, width). In colour they are normalised by the notebook's
            constants, in grey by their own mean and deviation.
        crop_padding: zero pixels added on each side before the random crop.

    Returns:
        From a Pillow image to float32 (channels, height, width).
    """
    _, channels, height, width = images.shape
    mean, std = (CIFAR10_MEAN, CIFAR10_STD) if channels == 3 else pixel_statistics(images)
    steps = [
        transforms.RandomCrop((height, width), padding=crop_padding),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


@contextmanager
def _plain_start() -> Iterator[None]:
    """Keeps remarks on the notebook's way of starting workers, which is what is measured, off whoever measures it."""
    with warnings.catch_warnings():
        # Python 3.12 and newer, of copies of a process that has threads.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        # torch, where the machine has fewer cores.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield
