"""Recipe options for training images: augmentation, progressive resizing and example filtering."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Flag, Positive, Real, whole_number
from budgetnet.common.errors import InputError


class Policy(Document):
    """Automatic augmentation: operations such as rotations and changes of contrast, sampled for each image."""

    kind: Literal["trivial-augment", "rand-augment"] = "trivial-augment"
    """``trivial-augment``: one operation of random strength (Müller and Hutter 2021); ``rand-augment``: several
    operations of a fixed strength (Cubuk et al. 2020)."""
    operations: Annotated[Positive, Field(le=16)] = 2
    """Operations per image in RandAugment; TrivialAugment always applies one."""
    magnitude: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=30)] = 9
    """Strength of each operation in RandAugment, 0 to 30; TrivialAugment samples it."""


class Mixing(Document):
    """Mixing of pairs of training images and of their labels."""

    kind: Literal["mixup", "cutmix"] = "mixup"
    """``mixup``: weighted sum of two images (Zhang et al. 2018); ``cutmix``: a rectangle of one image pasted into the
    other (Yun et al. 2019)."""
    alpha: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """The weight of the first image is sampled for each step from Beta(alpha, alpha)."""


Strength = Annotated[Real, Field(ge=0, le=10)]


class ColorJitter(Document):
    """Random changes of colour, sampled for each image and applied in the order of the fields.

    Factors are uniform from 1 - strength, at least 0, to 1 + strength, as in torchvision's ``ColorJitter``. Images of
    one channel have no saturation and no hue.
    """

    brightness: Strength = 0.0
    """Strength of the change of brightness; 0 for none."""
    contrast: Strength = 0.0
    """Strength of the change of contrast; 0 for none."""
    saturation: Strength = 0.0
    """Strength of the change of saturation; 0 for none."""
    hue: Annotated[Real, Field(ge=0, le=0.5)] = 0.0
    """Largest shift of the hue, as a fraction of the colour circle; 0 for none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(strength for _, strength in self):
            raise InputError("brightness", 0.0, "this or another strength must be above 0; null for no colour jitter")
        return self


class Augmentation(Document):
    """Augmentation of training images.

    In this order: crop, horizontal flip, colour jitter, policy, normalisation, cutout, mixing.
    """

    crop_padding: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=64)] = 4
    """Pixels padded on each side before a random crop to the original size; see `padding_mode` for their values."""
    flip: Flag = True
    """Whether images are flipped horizontally with probability 1/2."""
    alternating_flip: Flag = False
    """Whether flips are random in the first epoch only and then alternate: each image is flipped in every second epoch
    (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU")."""
    policy: Policy | None = None
    """Automatic augmentation policy; null for none."""
    cutout: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=1024)] = 0
    """Side in pixels of a square at a random position set to the mean colour (DeVries and Taylor 2017); 0 for none."""
    mixing: Mixing | None = None
    """Mixing of images and labels; null for none."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """Values of the pixels added by `crop_padding`: zeros, or the image reflected at its border (Jordan 2024, "94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU"). Reflection needs a `crop_padding` smaller than the image."""
    color_jitter: ColorJitter | None = None
    """Random changes of colour; null for none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.alternating_flip and not self.flip:
            raise InputError("alternating_flip", True, "needs flip: true")
        return self


class Resizing(Document):
    """Progressive resizing: the size of training images grows from epoch to epoch up to full size.

    The side grows linearly and is rounded to a multiple of 4 to limit the number of different sizes. Images are
    augmented at full size and then resized by antialiased bilinear interpolation. Validation always uses full size.
    Used in fast.ai's entries to DAWNBench (Coleman et al. 2017) and in Tan and Le 2021, "EfficientNetV2: Smaller Models
    and Faster Training".
    """

    start: Annotated[int, BeforeValidator(whole_number), Field(ge=8, le=1024)] = 16
    """Side of training images in the first epoch, in pixels, a multiple of 4."""
    until: Annotated[Real, Field(gt=0, le=1)] = 0.5
    """Fraction of the epochs after which training images have full size."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start % _SIDE_STEP:
            raise InputError("start", self.start, f"must be a multiple of {_SIDE_STEP}")
        return self

    def side(self, epoch: int, *, epochs: int, full: int) -> int:
        """Return the side of training images in an epoch, in pixels.

        Args:
            epoch: epoch, counted from 1.
            epochs: total number of epochs of the recipe.
            full: side of the images at full size, in pixels.
        """
        progress = (epoch - 1) / (self.until * epochs)
        # Tolerates rounding errors in the product above.
        if progress > 1 - 1e-9:
            return full
        exact = self.start + (full - self.start) * progress
        return min(_SIDE_STEP * math.floor(exact / _SIDE_STEP + 0.5), full)


_SIDE_STEP = 4
"""Sides of resized images are multiples of this many pixels."""


class ExampleFilter(Document):
    """Training on the hardest examples of each batch only, selected by a small proxy network.

    The proxy runs its forward pass on every batch and is itself trained on every `backward_every`-th batch. The main
    network is trained on the fraction `keep` of each batch with the highest proxy loss (Jordan 2024, "94% on CIFAR-10
    in 3.29 Seconds on a Single GPU"). The proxy is a residual network of three stages with one block each and 32, 64
    and 64 channels, trained with the same recipe, but without stochastic depth. The selection does not depend on the
    main network.
    """

    keep: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    """Fraction of each batch that the network is trained on, rounded to whole images, at least two."""
    backward_every: Annotated[Positive, Field(le=1_000_000)] = 4
    """Interval, in batches, at which the proxy is trained, from the first batch of each epoch on."""

    def kept(self, images: int) -> int:
        """Return the number of images selected from a batch of this many images."""
        return min(images, max(2, math.floor(self.keep * images + 0.5)))
