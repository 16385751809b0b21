"""The plain training loop of the paper's notebook: the baseline that budgetnet's training step is compared with.

Pillow transforms of one image at a time, a ``DataLoader`` with two workers, float32, and ``loss.item()`` after every
step, without any tuning.
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
"""Workers of the notebook's ``DataLoader``."""


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Data set of Pillow images, as in torchvision.

    Args:
        images: uint8 (n, channels, height, width), 1 or 3 channels.
        labels: class number of each image (n,).
        transform: converts a Pillow image to the network's input.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self._images = rows[..., 0] if rows.shape[3] == 1 else rows
        self._labels = labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


class PlainLoop:
    """The notebook's training loop, one step at a time, for any number of epochs.

    ``step`` returns when the loss is available, but updates of the weights may still be queued: synchronise a CUDA
    device before reading a clock.

    Attributes:
        network: the network.
        images_seen: number of images over all steps; the last batch of an epoch may be smaller.
        loss: mean cross-entropy of the last batch; NaN before the first step.

    Args:
        spec: the network, for images of this shape and at least as many classes as there are labels.
        images: training images, uint8 (n, channels, height, width), 1 or 3 channels.
        labels: class number of each image (n,).
        learning_rate: constant learning rate of SGD.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        batch_size: images per step; the last step of an epoch takes the remaining ones.
        device: where the network is trained.
        seed: seed of the initial weights, the order of the images and, with workers, their augmentation.
        crop_padding: zero pixels on each side before a random crop; default: an eighth of the height, which is the
            notebook's 4 for 32x32 images.
        workers: number of ``DataLoader`` workers; they start with the first step.
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
            # The default of Python versions at the notebook's time: workers need not import torch again.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        self._batches: Iterator[tuple[Tensor, Tensor]] | None = None
        self.images_seen = 0
        self.loss = float("nan")

    def step(self) -> None:
        """Run one training step; start a new epoch after the last batch.

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
        """Stop the workers and wait for them; another step starts new ones."""
        # The workers of a DataLoader live as long as its iterator.
        self._batches = None

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """Return normalised images float32 (batch, channels, height, width) and labels int64 (batch,), on the CPU."""
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is None:
            self.close()
            with _worker_warnings_ignored():
                self._batches = iter(self._loader)
            batch = next(self._batches)
        images, labels = batch
        return images, labels


def notebook_transform(images: npt.NDArray[np.uint8], *, crop_padding: int) -> Callable[[Image.Image], Tensor]:
    """Return the notebook's training transforms, for images of any size.

    Args:
        images: all training images, uint8 (n, channels, height, width). Colour images are normalised by the notebook's
            constants, grey ones by their own mean and standard deviation.
        crop_padding: zero pixels on each side before the random crop.

    Returns:
        A function from a Pillow image to float32 (channels, height, width).
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
def _worker_warnings_ignored() -> Iterator[None]:
    """Ignore warnings about the number and the start of workers, which are part of the baseline."""
    with warnings.catch_warnings():
        # Python 3.12 and newer: fork in a process with threads.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        # torch: more workers than cores.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield
