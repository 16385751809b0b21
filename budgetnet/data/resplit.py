"""Train/validation split that is resampled in each epoch, as in the training of the published reference.

This is data leakage, as the validation images of one epoch are trained on in others; it allows measuring the effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgetnet.common.seeding import derive_seed
from budgetnet.data.augment.crops import crop, sample_crops
from budgetnet.data.on_device import OnDeviceImages
from budgetnet.runs.augmentation import Augmentation


class ResplitImages:
    """Training and validation images of a split, overwritten in place at the start of each epoch."""

    def __init__(
        self,
        train: OnDeviceImages,
        validation: OnDeviceImages,
        augmentation: Augmentation,
        *,
        resplit_each_epoch: bool,
        augmented: bool,
        seed: int,
    ) -> None:
        """Prepare the first epoch.

        Args:
            train: training images; not modified.
            validation: validation images; not modified.
            augmentation: crops and flips of validation images.
            resplit_each_epoch: whether the split is resampled in each epoch, with the same sizes.
            augmented: whether validation images are randomly cropped and flipped.
            seed: seed of split and augmentation; every epoch has its own random streams, so any epoch can be started
                without the ones before it.
        """
        self._augmentation, self._resplit, self._augmented, self._seed = (
            augmentation,
            resplit_each_epoch,
            augmented,
            seed,
        )
        self._images = torch.cat([train.images, validation.images])
        self._labels = torch.cat([train.labels, validation.labels])
        self.train = _copy(train)
        """Training images of this epoch."""
        self.validation = _copy(validation)
        """Validation images of this epoch."""
        self.begin(1)

    def begin(self, epoch: int) -> None:
        """Start an epoch: resample and augment both parts.

        Args:
            epoch: epoch, counted from 1.
        """
        order = torch.arange(len(self._labels), device=self._labels.device)
        if self._resplit:
            order = torch.randperm(len(order), device=order.device, generator=self._generator("split", epoch))
        num_train = len(self.train)
        self._fill(self.train, order[:num_train])
        self._fill(self.validation, order[num_train:])
        if self._augmented:
            settings = self._augmentation
            crops = sample_crops(
                len(self.validation),
                crop_padding=settings.crop_padding,
                flip=settings.flip,
                device=order.device,
                generator=self._generator("validation", epoch),
            )
            cropped = crop(
                self.validation.images, crops, crop_padding=settings.crop_padding, padding_mode=settings.padding_mode
            )
            self.validation.images.copy_(cropped)

    def _fill(self, part: OnDeviceImages, rows: Tensor) -> None:
        torch.index_select(self._images, 0, rows, out=part.images)
        torch.index_select(self._labels, 0, rows, out=part.labels)

    def _generator(self, purpose: str, epoch: int) -> torch.Generator:
        return torch.Generator(self._labels.device).manual_seed(derive_seed(self._seed, purpose, epoch))


def _copy(part: OnDeviceImages) -> OnDeviceImages:
    return OnDeviceImages(images=part.images.clone(), labels=part.labels.clone(), mean=part.mean, std=part.std)
