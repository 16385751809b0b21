"""TrivialAugment and RandAugment for whole batches on the device: each image its own operations, no loop over images.

TrivialAugment (Müller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", its wide
space) draws one operation for each image, and its magnitude. RandAugment (Cubuk et al. 2020, "RandAugment: Practical
automated data augmentation with a reduced search space") draws several, one after the other, all of the same magnitude.

The operations, their magnitudes and their arithmetic are those of torchvision's ``TrivialAugmentWide`` and
``RandAugment`` with 31 magnitudes, the nearest pixel, and black where an image has none. Chance is drawn beforehand;
what is left is arithmetic of fixed shapes, for which the host never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from budgetnet.common.errors import InputError
from budgetnet.data.augment.operations import SIGNED, Operation, apply_operation

BINS = 31
"""Magnitudes of an operation, from the weakest, which is number 0."""

PolicyKind = Literal["trivial-augment", "rand-augment"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyDraws:
    """What chance decided for n images, apart from its being applied."""

    operations: Tensor
    """int64 (n, operations): numbers of ``Operation``, in the order in which they are applied."""

    magnitudes: Tensor
    """float32 (n, operations): signed, in each operation's own unit; see ``apply_operation``."""


def magnitude_space(kind: PolicyKind, *, size: tuple[int, int]) -> Tensor:
    """The magnitudes of each operation before their sign is drawn.

    Args:
        kind: of policy.
        size: height and width in pixels; RandAugment translates by a share of them.

    Returns:
        float32 (14, 31), 0 for the operations that have none.
    """
    height, width = size
    wide = kind == "trivial-augment"
    strongest = {
        Operation.SHEAR_X: 0.99 if wide else 0.3,
        Operation.SHEAR_Y: 0.99 if wide else 0.3,
        Operation.TRANSLATE_X: 32.0 if wide else 150.0 / 331.0 * width,
        Operation.TRANSLATE_Y: 32.0 if wide else 150.0 / 331.0 * height,
        Operation.ROTATE: 135.0 if wide else 30.0,
        Operation.BRIGHTNESS: 0.99 if wide else 0.9,
        Operation.COLOR: 0.99 if wide else 0.9,
        Operation.CONTRAST: 0.99 if wide else 0.9,
        Operation.SHARPNESS: 0.99 if wide else 0.9,
    }
    space = torch.zeros(len(Operation), BINS)
    for operation, magnitude in strongest.items():
        space[operation] = torch.linspace(0.0, magnitude, BINS)
    dropped_bits = 6 if wide else 4
    space[Operation.POSTERIZE] = 8 - (torch.arange(BINS) / ((BINS - 1) / dropped_bits)).round()
    space[Operation.SOLARIZE] = torch.linspace(255.0, 0.0, BINS)
    return space


def draw_policy(
    count: int,
    *,
    kind: PolicyKind,
    operations: int,
    magnitude: int,
    size: tuple[int, int],
    device: torch.device | str,
    generator: torch.Generator | None,
) -> PolicyDraws:
    """Draws operations, each equally often, and their magnitudes.

    Args:
        count: images.
        kind: of policy.
        operations: of an image; TrivialAugment's one, RandAugment's usual two.
        magnitude: RandAugment's, 0 to 30; TrivialAugment draws it for each operation, and this is not looked at.
        size: height and width of the images in pixels.
        device: where the draws are to lie.
        generator: source of chance, on that device; None for the global one.
    """
    if not 0 <= magnitude < BINS:
        raise InputError("magnitude", magnitude, f"must be from 0 to {BINS - 1}")
    shape = (count, operations)
    chosen = torch.randint(len(Operation), shape, device=device, generator=generator)
    if kind == "trivial-augment":
        bins = torch.randint(BINS, shape, device=device, generator=generator)
    else:
        bins = torch.full(shape, magnitude, device=device)
    negative = torch.randint(2, shape, device=device, generator=generator)
    # Built on the host, whatever the device: evenly spaced numbers may differ in their last digit elsewhere.
    space = magnitude_space(kind, size=size).to(device)
    signed = torch.zeros(len(Operation), dtype=torch.int64)
    signed[list(SIGNED)] = 1
    signs = 1 - 2 * negative * signed.to(device)[chosen]
    return PolicyDraws(operations=chosen, magnitudes=space[chosen, bins] * signs)


def apply_policy(batch: Tensor, draws: PolicyDraws) -> Tensor:
    """Applies to each image its operations, one after the other.

    Args:
        batch: uint8 (n, channels, height, width), of 1 or 3 channels.
        draws: for n images of this size.

    Returns:
        As ``batch``, a new tensor.
    """
    pixels = batch.float()
    for operations, magnitudes in zip(draws.operations.unbind(1), draws.magnitudes.unbind(1), strict=True):
        pixels = apply_operation(pixels, operations, magnitudes)
    return pixels.to(torch.uint8)
