"""Training cost: floating-point operations that a training run takes, in closed form.

Unit: one floating-point operation; shown in PFLOP, 1e15 of them. Convention: 6 operations for each multiply-accumulate
of the network, image and epoch: 2 for a multiplication and an addition, times 3 for the forward pass, the gradients of
inputs and those of weights (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", whose 6ND is the same count
for dense layers). MACs are those of `budgetnet.cost`: convolutions and linear layers.

Not counted: validation, augmentation, batch norm, activation functions, pooling, the optimiser's step, and an epoch
that was interrupted and trained again. It counts arithmetic, the same on any hardware; it is no time.
"""

from __future__ import annotations

from budgetnet.cost import cost_of
from budgetnet.recipe import Recipe
from budgetnet.spec import ModelSpec

FLOPS_PER_MAC = 6
"""Operations of training for each multiply-accumulate of the forward pass."""


def training_flops(spec: ModelSpec, recipe: Recipe, *, images: int, epochs: int | None = None) -> int:
    """Count the operations of a training run.

    Args:
        spec: the network, with the image shape and classes of its data.
        recipe: how it is trained.
        images: training images in an epoch.
        epochs: epochs trained, which early stopping or a pruner may have cut short; default: all of the recipe's, the
            most that the run may cost.
    """
    return sum(flops_by_epoch(spec, recipe, images=images, epochs=epochs))


def flops_by_epoch(spec: ModelSpec, recipe: Recipe, *, images: int, epochs: int | None = None) -> list[int]:
    """Count the operations of each epoch of a training run; arguments as in `training_flops`."""
    count = recipe.epochs if epochs is None else epochs
    return [FLOPS_PER_MAC * cost_of(spec).macs * images] * count
