"""Test-time augmentation: flipped and shifted views of an image.

The six views and their weights are those of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from budgetnet.runs.recipe import Views


def weighted_views(inputs: Tensor, views: Views) -> Iterator[tuple[float, Tensor]]:
    """Yield the views of a batch with their weights, which sum to 1.

    ``flip`` gives the image and its horizontal flip, with weight 1/2 each. ``flip-and-shifts`` gives these with weight
    1/4 each, and both shifted by one pixel down and right, and up and left, with weight 1/8 each; borders are filled by
    reflection.

    Args:
        inputs: floating point (n, channels, height, width); at least 2x2 pixels for shifts.
        views: kind of test-time augmentation.

    Yields:
        Weight, and a tensor like ``inputs``.
    """
    if views == "none":
        yield 1.0, inputs
        return
    weight = 0.5 if views == "flip" else 0.25
    yield weight, inputs
    yield weight, inputs.flip(3)
    if views == "flip-and-shifts":
        height, width = inputs.shape[2:]
        padded = functional.pad(inputs, [1] * 4, mode="reflect")
        for offset in (0, 2):
            shifted = padded[:, :, offset : offset + height, offset : offset + width]
            yield weight / 2, shifted
            yield weight / 2, shifted.flip(3)
