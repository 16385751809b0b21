"""Views of an image by which a trained network is judged: the image itself, its mirror image, and shifted ones.

The six views of mirror images and shifts, and their weights, are those of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds
on a Single GPU".
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from budgetnet.runs.recipe import Views


def weighted_views(inputs: Tensor, views: Views) -> Iterator[tuple[float, Tensor]]:
    """Yields the views of a batch one by one, each with its weight; the weights sum to 1.

    With ``flip`` these are the image and its mirror image, with ``flip-and-shifts`` also the image shifted by one pixel
    down and right, and up and left, both with their mirror images. A shift fills the border by reflection. Image and
    mirror image then weigh 1/4 each, the four shifted views 1/8 each.

    Args:
        inputs: floating point (n, channels, height, width); of at least 2x2 pixels for shifts.
        views: which ones.

    Yields:
        The weight, and a tensor like ``inputs``.
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
