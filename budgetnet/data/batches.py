"""Batch loader: shuffled, augmented and normalised batches on the device.

All random numbers of an epoch are sampled at once and stored on the device. A step depends only on its number, also on
the device, so it runs without host synchronisation and can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgetnet.common.seeding import derive_seed
from budgetnet.data.augment.color import jitter_color, sample_color_jitter
from budgetnet.data.augment.crops import Crops, crop, sample_crops
from budgetnet.data.augment.cutout import cut_out, sample_cutout
from budgetnet.data.augment.mixing import mix, sample_mixing
from budgetnet.data.augment.policies import SampledPolicy, apply_policy, sample_policy
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.runs.augmentation import Augmentation


class Batch(NamedTuple):
    """Batch of images and labels for one training step."""

    inputs: Tensor
    """float32 (n, channels, height, width), channels last in memory."""

    labels: Tensor
    """int64 (n,)."""

    mixed_labels: Tensor | None = None
    """int64 (n,): labels of the images mixed in by mixup or CutMix; None without mixing."""

    share: Tensor | None = None
    """float32 (): weight of ``labels``; the labels mixed in have the weight 1 - share. None without mixing."""

    def parts(self, count: int) -> list[Batch]:
        """Split the batch into micro-batches of nearly equal size.

        Args:
            count: maximum number of micro-batches; each has at least two images, as batch norm needs.
        """
        count = max(1, min(count, len(self.labels) // 2))
        if count == 1:
            return [self]
        mixed_labels = [None] * count if self.mixed_labels is None else self.mixed_labels.tensor_split(count)
        inputs, labels = self.inputs.tensor_split(count), self.labels.tensor_split(count)
        return [Batch(*tensors, self.share) for tensors in zip(inputs, labels, mixed_labels, strict=True)]


class BatchLoader:
    """Loader of the training batches of each epoch."""

    def __init__(
        self,
        data: OnDeviceImages,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        side: Callable[[int], int] | None = None,
    ) -> None:
        """Prepare the first epoch.

        Args:
            data: training images on the device.
            augmentation: augmentation of the images.
            batch_size: images per step.
            seed: seed of order and augmentation; every epoch has its own random streams, so any epoch can be started
                without the ones before it.
            side: function from the epoch to the image size in pixels; default: full size.
        """
        self._side_of = side
        self.side: int | None = None
        """Image size in this epoch, in pixels; None without resizing."""
        self.data, self.augmentation, self.batch_size, self.seed = data, augmentation, batch_size, seed
        self.device = data.images.device
        full, rest = divmod(len(data), batch_size)
        # A last batch of a single image is dropped: batch norm has no variance over a single value.
        self.sizes = [batch_size] * full + [rest] * (rest > (1 if full else 0))
        """Batch size of each step of an epoch."""
        self._positions = torch.arange(batch_size, device=self.device)
        self._sampled: dict[str, Tensor] = {}
        self.begin(1)

    @property
    def images(self) -> int:
        """Number of images per epoch."""
        return sum(self.sizes)

    def begin(self, epoch: int) -> None:
        """Start an epoch: sample its order and augmentation.

        Args:
            epoch: epoch, counted from 1.
        """
        self.side = self._side_of(epoch) if self._side_of else None
        count, settings = len(self.data), self.augmentation
        height, width = self.data.images.shape[2:]
        size = (height, width)
        generator = self._generator("images", epoch)
        self._store("order", torch.randperm(count, device=self.device, generator=generator))
        crops = sample_crops(
            count,
            crop_padding=settings.crop_padding,
            flip=settings.flip and not settings.alternating_flip,
            device=self.device,
            generator=generator,
        )
        if settings.alternating_flip:
            # Indexed by image, not by position in the order, so that each image alternates from epoch to epoch.
            sides = torch.randint(2, (count,), device=self.device, generator=self._generator("sides"))
            crops = crops._replace(flipped=((sides + epoch) % 2).bool()[self._sampled["order"]])
        for name, values in crops._asdict().items():
            self._store(name, values)
        if settings.color_jitter:
            generator = self._generator("color", epoch)
            self._store(
                "factors",
                sample_color_jitter(count, jitter=settings.color_jitter, device=self.device, generator=generator),
            )
        if settings.policy:
            policy = sample_policy(
                count,
                kind=settings.policy.kind,
                operations=settings.policy.operations,
                magnitude=settings.policy.magnitude,
                size=size,
                device=self.device,
                generator=self._generator("policy", epoch),
            )
            self._store("operations", policy.operations)
            self._store("magnitudes", policy.magnitudes)
        if settings.cutout:
            generator = self._generator("cutout", epoch)
            self._store("centres", sample_cutout(count, size=size, device=self.device, generator=generator))
        if settings.mixing:
            mixing = sample_mixing(
                len(self.sizes),
                kind=settings.mixing.kind,
                alpha=settings.mixing.alpha,
                size=size,
                seed=derive_seed(self.seed, "mixing", epoch),
                device=self.device,
            )
            self._store("shares", mixing.shares)
            self._store("boxes", mixing.boxes)

    def batch(self, step: Tensor, *, size: int) -> Batch:
        """Return the batch of one step, augmented at full size and then resized.

        Args:
            step: int64 () on the device: step of the epoch, counted from 0.
            size: batch size of the step, as in `sizes`.
        """
        return self._batch(step * self.batch_size + self._positions[:size], step)

    def _batch(self, rows: Tensor, step: Tensor) -> Batch:
        """Return the augmented images at these positions of the epoch's order."""
        settings = self.augmentation
        sampled = self._rows(rows)
        order = sampled("order")
        images, labels = self.data.images[order], self.data.labels[order]
        if settings.crop_padding or settings.flip:
            crops = Crops(sampled("top"), sampled("left"), sampled("flipped"))
            images = crop(images, crops, crop_padding=settings.crop_padding, padding_mode=settings.padding_mode)
        if settings.color_jitter:
            images = jitter_color(images, jitter=settings.color_jitter, factors=sampled("factors"))
        if settings.policy:
            policy = SampledPolicy(operations=sampled("operations"), magnitudes=sampled("magnitudes"))
            images = apply_policy(images, policy)
        inputs = normalise(images, self.data.mean, self.data.std)
        if settings.cutout:
            rows, columns = sampled("centres").unbind(dim=1)
            inputs = cut_out(inputs, rows=rows, columns=columns, length=settings.cutout)
        if not settings.mixing:
            return Batch(self._resized(inputs), labels)
        share, box = (self._sampled[name].index_select(0, step.view(1))[0] for name in ("shares", "boxes"))
        inputs = mix(inputs, kind=settings.mixing.kind, share=share, box=box)
        return Batch(self._resized(inputs), labels, labels.roll(1), share)

    def _resized(self, inputs: Tensor) -> Tensor:
        """Resize images to the size of this epoch."""
        if self.side in (None, inputs.shape[2]):
            return inputs
        size = [self.side, self.side]
        small = functional.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        return small.contiguous(memory_format=torch.channels_last)

    def _rows(self, rows: Tensor) -> Callable[[str], Tensor]:
        """Return a function from a name to the values sampled for these positions of the order."""
        return lambda name: self._sampled[name].index_select(0, rows)

    def _generator(self, *names: str | int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(derive_seed(self.seed, *names))

    def _store(self, name: str, values: Tensor) -> None:
        """Store sampled values in place, as captured CUDA graphs read from fixed addresses."""
        if name in self._sampled:
            self._sampled[name].copy_(values)
        else:
            self._sampled[name] = values.clone()
