"""Parts of a recipe that say what training images are like: augmentation, their size, and which are trained on."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Positive, Real, whole_number
from budgetnet.common.errors import InputError


class Policy(Document):
    """Operations drawn from a list, such as rotations and changes of contrast, for each image on its own."""

    kind: Literal["trivial-augment", "rand-augment"] = "trivial-augment"
    """One operation at a random strength (Müller and Hutter 2021), or several at a fixed one (Cubuk et al. 2020)."""
    operations: Annotated[Positive, Field(le=16)] = 2
    """Operations for an image in RandAugment; TrivialAugment has one."""
    magnitude: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=30)] = 9
    """Strength of each in RandAugment, of 0 to 30; TrivialAugment draws it."""


class Mixing(Document):
    """Training images blended with one another, and their labels with them."""

    kind: Literal["mixup", "cutmix"] = "mixup"
    """Both images over each other (Zhang et al. 2018), or a rectangle of one in the other (Yun et al. 2019)."""
    alpha: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """The share of the first image is drawn for each step from Beta(alpha, alpha)."""


class Augmentation(Document):
    """What is done to training images: crop, mirror and policy on their bytes, then cutout and mixing."""

    crop_padding: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=64)] = 4
    """Pixels added on each side before a crop of the original size at a random place; `padding_mode` says which."""
    flip: bool = True
    """Whether every second image, at random, is mirrored left to right."""
    alternating_flip: bool = False
    """Whether chance decides only in the first epoch, and each image is mirrored in every second epoch from there on
    (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU")."""
    policy: Policy | None = None
    """Operations drawn for each image."""
    cutout: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=1024)] = 0
    """Side, in pixels, of a square set to the mean colour at a random place (DeVries and Taylor 2017); 0 for none."""
    mixing: Mixing | None = None
    """How images are blended with one another."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What the pixels added by `crop_padding` hold: zeros, or the image reflected at its border (as in Jordan 2024,
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), for which they must be fewer than the image has."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.alternating_flip and not self.flip:
            raise InputError("alternating_flip", True, "needs flip: true")
        return self


class Resizing(Document):
    """Progressive resizing: training images are small at first and grow epoch by epoch to their full size.

    The side grows linearly and is rounded to a multiple of 4, so that few sizes occur. Images are cropped, mirrored and
    augmented at full size and then resized by antialiased bilinear interpolation. Validation is always at full size.
    As in fast.ai's entries to DAWNBench (Coleman et al. 2017) and in Tan and Le 2021, "EfficientNetV2: Smaller Models
    and Faster Training".
    """

    start: Annotated[int, BeforeValidator(whole_number), Field(ge=8, le=1024)] = 16
    """Side of training images in the first epoch, in pixels: a multiple of 4."""
    until: Annotated[Real, Field(gt=0, le=1)] = 0.5
    """Share of the training's epochs after which training images have their full size."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start % _SIDE_STEP:
            raise InputError("start", self.start, f"must be a multiple of {_SIDE_STEP}")
        return self

    def side(self, epoch: int, *, epochs: int, full: int) -> int:
        """The side of training images in an epoch, in pixels.

        Args:
            epoch: counted from 1.
            epochs: of the whole training, by its recipe.
            full: side of the images at full size, in pixels.
        """
        share = (epoch - 1) / (self.until * epochs)
        # The product of a share and a whole number may be off in its last digit.
        if share > 1 - 1e-9:
            return full
        exact = self.start + (full - self.start) * share
        return min(_SIDE_STEP * math.floor(exact / _SIDE_STEP + 0.5), full)


_SIDE_STEP = 4
"""What sides of resized images are multiples of, in pixels."""


class ExampleFilter(Document):
    """Training on the hard examples of each batch alone, chosen by a small network that is trained beside.

    The small network, the proxy, sees every batch; on every `backward_every`-th it also learns. The main network trains
    on the share `keep` of each batch on which the proxy's loss is highest (Jordan 2024, "94% on CIFAR-10 in 3.29
    Seconds on a Single GPU", its fastest trainings). The proxy is a residual network of three stages of one block, of
    32, 64 and 64 channels, and is trained by the same recipe. The choice never depends on the main network.
    """

    keep: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    """Share of each batch that the network trains on, rounded to whole images, of at least two."""
    backward_every: Positive = 4
    """The proxy learns from the first batch of each epoch and from every batch this many further on."""

    def kept(self, images: int) -> int:
        """How many images of a batch the network trains on.

        Args:
            images: in the batch.
        """
        return min(images, max(2, math.floor(self.keep * images + 0.5)))
