"""Proxy network that selects training examples; see `budgetnet.training.example_filter`."""

from __future__ import annotations

from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec


def proxy_spec(*, input_shape: tuple[int, int, int], num_classes: int) -> ModelSpec:
    """Return the proxy network: three stages of one basic block each, with 32, 64 and 64 channels and stride 2.

    Args:
        input_shape: image as (channels, height, width), in pixels.
        num_classes: number of classes.

    Raises:
        InputError: the images are smaller than 5x5 pixels.
    """
    try:
        return ModelSpec.resnet(
            channels=[32, 64, 64], strides=2, input_shape=input_shape, num_classes=num_classes, name="proxy"
        )
    except InputError:
        size = "x".join(map(str, input_shape[1:]))
        raise InputError("example_filter", "on", f"needs images of at least 5x5 pixels, not {size}") from None
