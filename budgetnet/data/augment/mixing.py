"""mixup and CutMix: each image of a batch blended with another, or patched with a piece of it.

mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization") adds up two images in shares; CutMix (Yun et al.
2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features") puts a box of one into
the other. Both weigh the two labels by the shares of the two images: that is for the loss to do.

An image's partner is the one before it, as in torchvision: batches come in a random order already. One share, and one
box, hold for a whole batch. They are drawn for many steps at once, and the host never waits for what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

MixingKind = Literal["mixup", "cutmix"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MixingDraws:
    """What chance decided for a number of batches, apart from its being applied."""

    shares: Tensor
    """float32 (steps,): of each image itself in the result, and so of its own label; its partner has the rest."""

    boxes: Tensor
    """int64 (steps, 4): CutMix's first column, first row, column after the last, row after the last of the partner's
    piece; zeros for mixup."""


def draw_mixing(
    steps: int, *, kind: MixingKind, alpha: float, size: tuple[int, int], seed: int, device: torch.device | str
) -> MixingDraws:
    """Draws shares from Beta(alpha, alpha), and boxes that cover what is left, cut off at the image's border.

    A box's centre is uniform over all pixels. The share of an image whose box was cut off is what the box leaves of it.

    Args:
        steps: batches.
        kind: of mixing.
        alpha: above 0; at 1 all shares are equally likely, below it most are near 0 or 1.
        size: height and width of the images in pixels.
        seed: of all that is drawn.
        device: where the draws are to lie.
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
    return MixingDraws(
        shares=torch.from_numpy(shares.astype(np.float32)).to(device), boxes=torch.from_numpy(boxes).to(device)
    )


def mix(inputs: Tensor, *, kind: MixingKind, share: Tensor, box: Tensor) -> Tensor:
    """Mixes each image of a batch with the one before it, the first with the last.

    Args:
        inputs: floating point (n, channels, height, width).
        kind: of mixing.
        share: float32 (): for mixup, of each image itself.
        box: int64 (4,): for CutMix, see ``MixingDraws``.

    Returns:
        As ``inputs``, in its type and memory format, a new tensor.
    """
    partners = torch.cat([inputs[-1:], inputs[:-1]])
    if kind == "mixup":
        # In the share's type, if that is the wider one: in few digits the two shares would not add up to 1.
        return (partners * (1 - share[None]) + inputs * share[None]).to(inputs.dtype)
    height, width = inputs.shape[-2:]
    left, top, right, bottom = box.unbind()
    columns = torch.arange(width, device=inputs.device)
    rows = torch.arange(height, device=inputs.device)[:, None]
    patched = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    return torch.where(patched, partners, inputs)
