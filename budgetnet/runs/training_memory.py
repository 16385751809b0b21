"""Memory of a training step, in closed form.

Counted are the weights with the running statistics of batch norm, copies of both (moving average, Lookahead), the state
of the optimiser, the gradients, what autograd keeps of the forward pass (`budgetnet.model.kept_maps`), and the images
of a batch. Their sum is near the peak: while the last gradients are computed, what autograd keeps has been freed, which
leaves room for the maps that single operations need.

Not counted: workspaces of cuDNN and oneDNN, fragmentation and caching of the allocator, the CUDA context, the images of
the data set, the augmentation, validation, and the proxy network of example filtering.
"""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.model.cost import layer_cost
from budgetnet.model.kept_maps import Precision, kept_maps
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

_FLOAT32 = 4
_COUNTER = 8
"""Bytes of batch norm's count of batches."""
_STATISTICS = 2
"""Running statistics of a channel of batch norm: mean and variance."""


class TrainingMemory(NamedTuple):
    """Bytes that a training step needs, by what they are of."""

    weights: int
    """Parameters and running statistics."""
    copies: int
    """Copies of both: moving average of the weights, Lookahead."""
    optimizer: int
    """State of the optimiser."""
    gradients: int
    kept: int
    """What autograd keeps for the backward pass."""
    images: int
    """Images of the batch."""

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self)

    def __str__(self) -> str:
        return f"{short_bytes(self.total)}, {short_bytes(self.kept)} of it for the backward pass"


class _Sizes(NamedTuple):
    """Numbers of parameters and of channels of a network."""

    params: int
    frozen: int
    """Parameters without gradients."""
    convs: int
    """Weights of convolutions with gradients."""
    norms: int
    """Batch norms."""
    channels: int
    """Channels of all batch norms."""
    trained: int
    """Tensors with gradients that are not weights of convolutions."""


def training_memory(
    spec: ModelSpec, recipe: Recipe, *, precision: Precision, on_gpu: bool = False, parts: int = 1
) -> TrainingMemory:
    """Return the memory of a training step on a full batch, at full image size.

    Args:
        spec: the network, with the image shape and number of classes of the data.
        recipe: training recipe.
        precision: precision of convolutions and matrix products: ``float32`` or ``bfloat16``.
        on_gpu: whether the network is trained on a GPU.
        parts: number of parts that the batch is split into, whose gradients are added.
    """
    sizes = _sizes(spec, recipe)
    tensors = _FLOAT32 * (sizes.params + _STATISTICS * sizes.channels)
    counters = _COUNTER * sizes.norms
    filtering = recipe.example_filter
    images = filtering.kept(recipe.batch_size) if filtering else recipe.batch_size
    kept = kept_maps(
        spec,
        precision=precision,
        on_gpu=on_gpu,
        losses=2 if recipe.augmentation.mixing else 1,
        drops_images=recipe.stochastic_depth > 0,
    )
    return TrainingMemory(
        weights=tensors + counters,
        copies=(recipe.weight_average is not None) * (tensors + counters) + (recipe.lookahead is not None) * tensors,
        optimizer=_optimizer_state(sizes, recipe),
        gradients=_FLOAT32 * (sizes.params - sizes.frozen),
        # Each part has at least two images, as batch norm needs.
        kept=kept.of(min(images, max(2, ceil(images / parts)))),
        images=_FLOAT32 * images * prod(spec.input_shape),
    )


def _sizes(spec: ModelSpec, recipe: Recipe) -> _Sizes:
    params = frozen = convs = norms = channels = tensors = 0
    for layer in lower(spec).layers():
        if layer.kind == "block":
            continue
        count = layer_cost(layer).params
        bias = layer.out_channels if layer.bias else 0
        params += count
        if layer.kind == "norm":
            norms, channels = norms + 1, channels + layer.out_channels
            frozen += layer.out_channels if recipe.freeze_norm_scales else 0
            tensors += 1 if recipe.freeze_norm_scales else 2
        else:
            frozen += count - bias if layer.kind == "whitening" else 0
            convs += count - bias if layer.kind == "conv" else 0
            tensors += layer.bias + (layer.kind == "linear")
    return _Sizes(params, frozen, convs, norms, channels, tensors)


def _optimizer_state(sizes: _Sizes, recipe: Recipe) -> int:
    """Return the bytes of momenta and averages of squares, as `budgetnet.training.optimizers` keeps them."""
    trained = sizes.params - sizes.frozen
    by_muon = sizes.convs if recipe.muon else 0
    if recipe.optimizer.kind == "sgd":
        return _FLOAT32 * (trained if recipe.momentum else by_muon)
    # Averages of squares, and a count of steps for each tensor; Muon needs the momentum alone.
    return _FLOAT32 * (2 * trained - by_muon)
