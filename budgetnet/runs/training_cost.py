"""Training cost: floating-point operations that a training run takes, in closed form.

Unit: one floating-point operation; shown in PFLOP, 1e15 of them. Convention: 6 operations for each multiply-accumulate
of the network, image and epoch: 2 for a multiplication and an addition, times 3 for the forward pass, the gradients of
inputs and those of weights (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", whose 6ND is the same count
for dense layers). MACs are those of `budgetnet.model.cost`: convolutions and linear layers, at the size that training
images have in the epoch. Where easy examples are filtered out, the proxy network counts as well, also where another run
of the same recipe has trained it already: 2 operations for each multiply-accumulate of every image, and 4 more for the
batches that it learns from.

A whitening convolution counts as any other, although its weights need no gradients. Not counted: validation,
augmentation, batch norm, activation functions, pooling, the optimiser's step, and an epoch that was interrupted and
trained again. It counts arithmetic, the same on any hardware; it is no time.
"""

from __future__ import annotations

from budgetnet.model.cost import cost_of
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

FLOPS_PER_MAC = 6
"""Operations of training for each multiply-accumulate of the forward pass."""
_FORWARD = 2
"""Operations of the forward pass alone."""


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
    full, filtering = spec.input_shape[1], recipe.example_filter
    sides = [recipe.side(epoch, full=full) if recipe.resizing else None for epoch in range(1, count + 1)]
    batches = _batches(images, recipe.batch_size)
    if filtering is None:
        by_side = {side: FLOPS_PER_MAC * cost_of(spec, input_size=side).macs * sum(batches) for side in set(sides)}
        return [by_side[side] for side in sides]
    trained = sum(filtering.kept(batch) for batch in batches)
    learned = sum(batches[:: filtering.backward_every])
    proxy = proxy_spec(input_shape=spec.input_shape, num_classes=spec.num_classes)
    by_side = {
        side: FLOPS_PER_MAC * cost_of(spec, input_size=side).macs * trained
        + cost_of(proxy, input_size=side).macs * (_FORWARD * sum(batches) + (FLOPS_PER_MAC - _FORWARD) * learned)
        for side in set(sides)
    }
    return [by_side[side] for side in sides]


def _batches(images: int, batch_size: int) -> list[int]:
    """Return the images in each batch of an epoch; a single image after whole batches is not trained on."""
    full, rest = divmod(images, batch_size)
    return [batch_size] * full + [rest] * (rest > (1 if full else 0))
