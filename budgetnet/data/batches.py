"""What a training run is fed: an epoch's images in a random order, augmented and normalised a batch at a time.

Chance is drawn for a whole epoch at once and lies on the device. What is left for a step depends on nothing but the
step's number, which lies on the device as well: there is nothing to wait for, and a step can be recorded once and
replayed as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgetnet.common.seeding import derive_seed
from budgetnet.data.augment.crops import Crops, crop, draw_crops
from budgetnet.data.augment.cutout import cut_out, draw_cutout
from budgetnet.data.augment.mixing import draw_mixing, mix
from budgetnet.data.augment.policies import PolicyDraws, apply_policy, draw_policy
from budgetnet.data.on_device import ResidentImages, normalise
from budgetnet.runs.augmentation import Augmentation


class Batch(NamedTuple):
    """What a network learns from in one step."""

    inputs: Tensor
    """float32 (n, channels, height, width), channels last in memory."""

    labels: Tensor
    """int64 (n,)."""

    mixed_in: Tensor | None = None
    """int64 (n,): labels of the images mixed in, where images are mixed."""

    share: Tensor | None = None
    """float32, a single number: how much of each image, and so of its label, is its own."""

    def parts(self, count: int) -> list[Batch]:
        """The batch in parts of nearly the same size.

        Args:
            count: how many; fewer come of a small batch, as batch norm has no variance over a single value.
        """
        count = max(1, min(count, len(self.labels) // 2))
        if count == 1:
            return [self]
        mixed_in = [None] * count if self.mixed_in is None else self.mixed_in.tensor_split(count)
        inputs, labels = self.inputs.tensor_split(count), self.labels.tensor_split(count)
        return [Batch(*tensors, self.share) for tensors in zip(inputs, labels, mixed_in, strict=True)]


class Feed:
    """Training images, an epoch after the other."""

    def __init__(
        self,
        data: ResidentImages,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        side: Callable[[int], int] | None = None,
    ) -> None:
        """Prepares the first epoch.

        Args:
            data: the images, on the device to train on.
            augmentation: what is done to them.
            batch_size: images in a step.
            seed: of order and augmentation; each epoch has streams of its own, so that an epoch can be gone to without
                those before it.
            side: gives the side in pixels to which the images of an epoch are resized, from the epoch's number; images
                keep their size if omitted.
        """
        self._side_of = side
        self.side: int | None = None
        """Side of the images in this epoch, in pixels, where they are resized."""
        self.data, self.augmentation, self.batch_size, self.seed = data, augmentation, batch_size, seed
        self.device = data.images.device
        full, rest = divmod(len(data), batch_size)
        # A single image is left out where there are others: batch norm has no variance over a single value.
        self.sizes = [batch_size] * full + [rest] * (rest > (1 if full else 0))
        """Images in each step of an epoch."""
        self._positions = torch.arange(batch_size, device=self.device)
        self._draws: dict[str, Tensor] = {}
        self.begin(1)

    @property
    def images(self) -> int:
        """Images in an epoch."""
        return sum(self.sizes)

    def begin(self, epoch: int) -> None:
        """Draws an epoch's order and augmentation, in place of another's.

        Args:
            epoch: counted from 1.
        """
        self.side = self._side_of(epoch) if self._side_of else None
        count, settings = len(self.data), self.augmentation
        height, width = self.data.images.shape[2:]
        size = (height, width)
        generator = self._generator("images", epoch)
        self._put("order", torch.randperm(count, device=self.device, generator=generator))
        crops = draw_crops(
            count,
            crop_padding=settings.crop_padding,
            flip=settings.flip and not settings.alternating_flip,
            device=self.device,
            generator=generator,
        )
        if settings.alternating_flip:
            # By image, not by place in the order, so that each one changes sides every epoch.
            sides = torch.randint(2, (count,), device=self.device, generator=self._generator("sides"))
            crops = crops._replace(flipped=((sides + epoch) % 2).bool()[self._draws["order"]])
        for name, drawn in crops._asdict().items():
            self._put(name, drawn)
        if settings.policy:
            policy = draw_policy(
                count,
                kind=settings.policy.kind,
                operations=settings.policy.operations,
                magnitude=settings.policy.magnitude,
                size=size,
                device=self.device,
                generator=self._generator("policy", epoch),
            )
            self._put("operations", policy.operations)
            self._put("magnitudes", policy.magnitudes)
        if settings.cutout:
            generator = self._generator("cutout", epoch)
            self._put("centres", draw_cutout(count, size=size, device=self.device, generator=generator))
        if settings.mixing:
            mixing = draw_mixing(
                len(self.sizes),
                kind=settings.mixing.kind,
                alpha=settings.mixing.alpha,
                size=size,
                seed=derive_seed(self.seed, "mixing", epoch),
                device=self.device,
            )
            self._put("shares", mixing.shares)
            self._put("boxes", mixing.boxes)

    def batch(self, step: Tensor, *, size: int) -> Batch:
        """The images of one step, augmented at full size and then resized.

        Args:
            step: int64, a single number on the device: the step, counted from 0.
            size: images in it, as in `sizes`.
        """
        return self._batch(step * self.batch_size + self._positions[:size], step)

    def _batch(self, rows: Tensor, step: Tensor) -> Batch:
        """The images at these places in the epoch's order, as one batch of a step."""
        settings = self.augmentation
        drawn = self._rows(rows)
        chosen = drawn("order")
        images, labels = self.data.images[chosen], self.data.labels[chosen]
        if settings.crop_padding or settings.flip:
            crops = Crops(drawn("top"), drawn("left"), drawn("flipped"))
            images = crop(images, crops, crop_padding=settings.crop_padding, padding_mode=settings.padding_mode)
        if settings.policy:
            images = apply_policy(images, PolicyDraws(operations=drawn("operations"), magnitudes=drawn("magnitudes")))
        inputs = normalise(images, self.data.mean, self.data.std)
        if settings.cutout:
            rows, columns = drawn("centres").unbind(dim=1)
            inputs = cut_out(inputs, rows=rows, columns=columns, length=settings.cutout)
        if not settings.mixing:
            return Batch(self._resized(inputs), labels)
        share, box = (self._draws[name].index_select(0, step.view(1))[0] for name in ("shares", "boxes"))
        inputs = mix(inputs, kind=settings.mixing.kind, share=share, box=box)
        return Batch(self._resized(inputs), labels, labels.roll(1), share)

    def _resized(self, inputs: Tensor) -> Tensor:
        """The images in the size of this epoch."""
        if self.side in (None, inputs.shape[2]):
            return inputs
        size = [self.side, self.side]
        small = functional.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        return small.contiguous(memory_format=torch.channels_last)

    def _rows(self, rows: Tensor) -> Callable[[str], Tensor]:
        """What was drawn for these places in the order, by name."""
        return lambda name: self._draws[name].index_select(0, rows)

    def _generator(self, *names: str | int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(derive_seed(self.seed, *names))

    def _put(self, name: str, drawn: Tensor) -> None:
        """Keeps what was drawn where the last epoch's was, as a recorded step looks there for it."""
        if name in self._draws:
            self._draws[name].copy_(drawn)
        else:
            self._draws[name] = drawn.clone()
