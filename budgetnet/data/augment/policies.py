"""TrivialAugment and RandAugment of batches on the device.

TrivialAugment (Müller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", wide
space) samples one operation and its magnitude for each image. RandAugment (Cubuk et al. 2020, "RandAugment: Practical
automated data augmentation with a reduced search space") samples several operations, all of the same magnitude.

Operations, magnitudes and arithmetic are those of torchvision's ``TrivialAugmentWide`` and ``RandAugment`` with 31
magnitudes, nearest-neighbour interpolation and black fill. Random numbers are sampled in advance, so applying a policy
needs no host synchronisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from budgetnet.common.errors import InputError
from budgetnet.data.augment.operations import SIGNED, Operation, apply_operation

BINS = 31
"""Number of magnitudes of an operation, in ascending order of strength."""

PolicyKind = Literal["trivial-augment", "rand-augment"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledPolicy:
    """Sampled operations and magnitudes for n images."""

    operations: Tensor
    """int64 (n, operations): values of `Operation`, in order of application."""

    magnitudes: Tensor
    """float32 (n, operations): signed magnitudes, in the units of `apply_operation`."""


def magnitude_space(kind: PolicyKind, *, size: tuple[int, int]) -> Tensor:
    """Return the unsigned magnitudes of each operation.

    Args:
        kind: kind of policy.
        size: height and width in pixels, to which RandAugment's translations are proportional.

    Returns:
        float32 (14, 31), 0 for operations without magnitude.
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


def sample_policy(
    count: int,
    *,
    kind: PolicyKind,
    operations: int,
    magnitude: int,
    size: tuple[int, int],
    device: torch.device | str,
    generator: torch.Generator | None,
) -> SampledPolicy:
    """Sample operations, uniformly, and their magnitudes.

    Args:
        count: number of images.
        kind: kind of policy.
        operations: operations per image: 1 in TrivialAugment, usually 2 in RandAugment.
        magnitude: magnitude of RandAugment, 0 to 30; ignored by TrivialAugment, which samples it.
        size: height and width of the images in pixels.
        device: device of the samples.
        generator: random generator on that device; None for the global one.

    Raises:
        InputError: the magnitude is out of range.
    """
    if not 0 <= magnitude < BINS:
        raise InputError("magnitude", magnitude, f"must be from 0 to {BINS - 1}")
    shape = (count, operations)
    sampled = torch.randint(len(Operation), shape, device=device, generator=generator)
    if kind == "trivial-augment":
        bins = torch.randint(BINS, shape, device=device, generator=generator)
    else:
        bins = torch.full(shape, magnitude, device=device)
    negative = torch.randint(2, shape, device=device, generator=generator)
    # Computed on the CPU, as linspace may differ in the last digit on other devices.
    space = magnitude_space(kind, size=size).to(device)
    signed = torch.zeros(len(Operation), dtype=torch.int64)
    signed[list(SIGNED)] = 1
    signs = 1 - 2 * negative * signed.to(device)[sampled]
    return SampledPolicy(operations=sampled, magnitudes=space[sampled, bins] * signs)


def apply_policy(batch: Tensor, policy: SampledPolicy) -> Tensor:
    """Apply the sampled operations to each image.

    Args:
        batch: uint8 (n, channels, height, width) with 1 or 3 channels.
        policy: samples for n images of this size.

    Returns:
        New tensor of the shape and type of ``batch``.
    """
    pixels = batch.float()
    for operations, magnitudes in zip(policy.operations.unbind(1), policy.magnitudes.unbind(1), strict=True):
        pixels = apply_operation(pixels, operations, magnitudes)
    return pixels.to(torch.uint8)
