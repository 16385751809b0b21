"""Training and validation images that are made anew for each epoch, in place of a split that is fixed.

That is how the published reference was trained: each epoch a new split of all images, both parts augmented. It leaks,
since what is held out in one epoch was trained on in others; it is here so that the leak can be measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgetnet.common.seeding import derive_seed
from budgetnet.data.augment.crops import crop, draw_crops
from budgetnet.data.on_device import ResidentImages
from budgetnet.runs.augmentation import Augmentation


class MovingSplit:
    """Both parts of a split, refilled in place for each epoch, so that whoever holds them needs no word of it."""

    def __init__(
        self,
        train: ResidentImages,
        validation: ResidentImages,
        augmentation: Augmentation,
        *,
        redrawn: bool,
        augmented: bool,
        seed: int,
    ) -> None:
        """Prepares the first epoch.

        Args:
            train: images that are learned from, left as they are.
            validation: images that are held out, likewise.
            augmentation: how images are cropped and mirrored.
            redrawn: whether both parts are drawn anew from all images, in the same numbers.
            augmented: whether validation images are cropped and mirrored as well.
            seed: of all that; each epoch has streams of its own, so that an epoch can be gone to without those before.
        """
        self._augmentation, self._redrawn, self._augmented, self._seed = augmentation, redrawn, augmented, seed
        self._images = torch.cat([train.images, validation.images])
        self._labels = torch.cat([train.labels, validation.labels])
        self.train = _copy(train)
        """What to learn from in this epoch."""
        self.validation = _copy(validation)
        """What to judge by in this epoch."""
        self.begin(1)

    def begin(self, epoch: int) -> None:
        """Makes both parts as an epoch has them.

        Args:
            epoch: counted from 1.
        """
        order = torch.arange(len(self._labels), device=self._labels.device)
        if self._redrawn:
            order = torch.randperm(len(order), device=order.device, generator=self._generator("split", epoch))
        learned = len(self.train)
        self._fill(self.train, order[:learned])
        self._fill(self.validation, order[learned:])
        if self._augmented:
            settings = self._augmentation
            crops = draw_crops(
                len(self.validation),
                crop_padding=settings.crop_padding,
                flip=settings.flip,
                device=order.device,
                generator=self._generator("validation", epoch),
            )
            shown = crop(
                self.validation.images, crops, crop_padding=settings.crop_padding, padding_mode=settings.padding_mode
            )
            self.validation.images.copy_(shown)

    def _fill(self, part: ResidentImages, rows: Tensor) -> None:
        torch.index_select(self._images, 0, rows, out=part.images)
        torch.index_select(self._labels, 0, rows, out=part.labels)

    def _generator(self, purpose: str, epoch: int) -> torch.Generator:
        return torch.Generator(self._labels.device).manual_seed(derive_seed(self._seed, purpose, epoch))


def _copy(part: ResidentImages) -> ResidentImages:
    return ResidentImages(images=part.images.clone(), labels=part.labels.clone(), mean=part.mean, std=part.std)
