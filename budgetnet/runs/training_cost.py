"""Training cost: floating-point operations of a training run, in closed form.

Unit: one floating-point operation, displayed in PFLOP (1e15 operations). Convention: 6 operations per
multiply-accumulate (MAC) of the network, per image and epoch: 2 for a multiplication and an addition, times 3 for the
forward pass, the gradients of inputs and those of weights (Kaplan et al. 2020, "Scaling Laws for Neural Language
Models", whose 6ND is the same count for dense layers). MACs are those of `budgetnet.model.cost`: convolutions and
linear layers, at the size of the training images in the epoch. With example filtering, the proxy network is counted
too, even if its selection is reused from another run of the same recipe: 2 operations per MAC for every image, and 4
more for the batches that it is trained on.

A whitening convolution is counted like any other, although its weights need no gradients. Not counted: validation,
augmentation, batch norm, activation functions, pooling, the optimiser's update, and epochs repeated after an
interruption. The count does not depend on the hardware.
"""

from __future__ import annotations

from fractions import Fraction

from budgetnet.model.cost import cost_of
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

FLOPS_PER_MAC = 6
"""Training operations per multiply-accumulate of the forward pass."""
_FORWARD = 2
"""Operations per multiply-accumulate of the forward pass alone."""


def operations(petaflops: float) -> int:
    """Return a number of PFLOP, read as it is written in decimals, as whole operations."""
    return int(Fraction(str(petaflops)) * 10**15)


def training_flops(spec: ModelSpec, recipe: Recipe, *, images: int, epochs: int | None = None) -> int:
    """Return the operations of a training run.

    Args:
        spec: model spec, with the image shape and number of classes of the data.
        recipe: training recipe.
        images: number of training images.
        epochs: number of epochs trained, if fewer than the recipe's; default: all epochs, an upper bound.
    """
    return sum(flops_by_epoch(spec, recipe, images=images, epochs=epochs))


def flops_by_epoch(spec: ModelSpec, recipe: Recipe, *, images: int, epochs: int | None = None) -> list[int]:
    """Return the operations of each epoch of a training run; arguments as in `training_flops`."""
    count = recipe.epochs if epochs is None else epochs
    full, filtering = spec.input_shape[1], recipe.example_filter
    sides = [recipe.side(epoch, full=full) if recipe.resizing else None for epoch in range(1, count + 1)]
    batches = _batches(images, recipe.batch_size)
    if filtering is None:
        by_side = {side: FLOPS_PER_MAC * cost_of(spec, input_size=side).macs * sum(batches) for side in set(sides)}
        return [by_side[side] for side in sides]
    selected = sum(filtering.kept(batch) for batch in batches)
    trained_by_proxy = sum(batches[:: filtering.backward_every])
    proxy = proxy_spec(input_shape=spec.input_shape, num_classes=spec.num_classes)
    by_side = {
        side: FLOPS_PER_MAC * cost_of(spec, input_size=side).macs * selected
        + cost_of(proxy, input_size=side).macs
        * (_FORWARD * sum(batches) + (FLOPS_PER_MAC - _FORWARD) * trained_by_proxy)
        for side in set(sides)
    }
    return [by_side[side] for side in sides]


def _batches(images: int, batch_size: int) -> list[int]:
    """Return the size of each batch of an epoch; a last batch of a single image is dropped."""
    full, rest = divmod(images, batch_size)
    return [batch_size] * full + [rest] * (rest > (1 if full else 0))
