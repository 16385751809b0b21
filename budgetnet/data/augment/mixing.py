"""mixup and CutMix of the images of a batch.

mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization") is a weighted sum of two images; CutMix (Yun et
al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features") pastes a box of one
image into the other. The loss weights the two labels accordingly.

Each image is mixed with the previous one of its batch, as in torchvision, since batches are shuffled already. All
images of a batch share one weight and one box. These are sampled for many steps at once, and mixing needs no host
synchronisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

MixingKind = Literal["mixup", "cutmix"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledMixing:
    """Sampled weights and boxes for a number of batches."""

    shares: Tensor
    """float32 (steps,): weight of each image and of its label; the image mixed in has the weight 1 - share."""

    boxes: Tensor
    """int64 (steps, 4): box pasted by CutMix, as (left, top, right, bottom), right and bottom excluded; zeros for
    mixup."""


def sample_mixing(
    steps: int, *, kind: MixingKind, alpha: float, size: tuple[int, int], seed: int, device: torch.device | str
) -> SampledMixing:
    """Sample weights from Beta(alpha, alpha) and, for CutMix, boxes of the corresponding area.

    The centre of a box is uniform over all pixels. Boxes are clipped at the border, and their weights adjusted to the
    clipped area.

    Args:
        steps: number of batches.
        kind: mixup or CutMix.
        alpha: parameter of the Beta distribution, above 0; uniform at 1, mostly near 0 or 1 below it.
        size: height and width of the images in pixels.
        seed: random seed.
        device: device of the samples.
    """
    generator = np.random.default_rng(seed)
    height, width = size
    shares = generator.beta(alpha, alpha, steps)
    boxes = np.zeros((steps, 4), dtype=np.int64)
    if kind == "cutmix":
        column, row = generator.integers(width, size=steps), generator.integers(height, size=steps)
        half = 0.5 * np.sqrt(1 - shares)
        half_width, half_height = (half * width).astype(np.int64), (half * height).astype(np.int64)
        left, right = (column - half_width).clip(min=0), (column + half_width).clip(max=width)
        top, bottom = (row - half_height).clip(min=0), (row + half_height).clip(max=height)
        boxes = np.stack([left, top, right, bottom], axis=1)
        shares = 1 - (right - left) * (bottom - top) / (width * height)
    return SampledMixing(
        shares=torch.from_numpy(shares.astype(np.float32)).to(device), boxes=torch.from_numpy(boxes).to(device)
    )


def mix(inputs: Tensor, *, kind: MixingKind, share: Tensor, box: Tensor) -> Tensor:
    """Mix each image of a batch with the previous one, the first with the last.

    Args:
        inputs: floating point (n, channels, height, width).
        kind: mixup or CutMix.
        share: float32 (): weight of each image, for mixup.
        box: int64 (4,): box for CutMix, see `SampledMixing`.

    Returns:
        New tensor of the shape, type and memory format of ``inputs``.
    """
    partners = torch.cat([inputs[-1:], inputs[:-1]])
    if kind == "mixup":
        # Computed in the wider of both types: in half precision the two weights would not sum to 1.
        return (partners * (1 - share[None]) + inputs * share[None]).to(inputs.dtype)
    height, width = inputs.shape[-2:]
    left, top, right, bottom = box.unbind()
    columns = torch.arange(width, device=inputs.device)
    rows = torch.arange(height, device=inputs.device)[:, None]
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    return torch.where(inside, partners, inputs)
