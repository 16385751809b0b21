"""Sizes of a network's maps, in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from budgetnet.model.spec import ModelSpec

Size = tuple[int, int]
"""Height and width, in pixels."""


def feature_sizes(spec: ModelSpec, *, input_size: Size | None = None) -> list[Size]:
    """Return (height, width) of the maps after the stem and after each stage, in pixels.

    All kernels except the unpadded whitening convolution's are odd and padded by half their size, and partial windows
    of pooling count, so a stride of s reduces a side of n to ceil(n / s).

    Raises:
        InputError: a stride is larger than its input map, or the whitening kernel is larger than the image.
    """
    size = stem_size(spec, input_size=input_size)
    if spec.stem.pool_size is not None:
        size = _reduced(size, spec.stem.pool_stride, "stem.pool_stride")
    sizes = [size]
    for index, stage in enumerate(spec.stages):
        stride = stage.stride
        if stride > 1:
            size = _reduced(size, stride, "stages[{}].stride", index)
        sizes.append(size)
    return sizes


def stem_size(spec: ModelSpec, *, input_size: Size | None = None) -> Size:
    """Return (height, width) of the maps that the stem's convolutions compute, before its pooling, in pixels.

    Raises:
        InputError: as `feature_sizes`.
    """
    size = whitened_size(spec, input_size=input_size)
    return size if spec.stem.stride == 1 else _reduced(size, spec.stem.stride, "stem.stride")


def _reduced(size: Size, stride: int, path: str, index: int = 0) -> Size:
    height, width = size
    if stride > height or stride > width:
        # Called for every computed cost, so the path is formatted only for an error.
        raise InputError(path.format(index), stride, f"would shrink the {height}x{width} map below 1")
    return -(-height // stride), -(-width // stride)


def whitened_size(spec: ModelSpec, *, input_size: Size | None = None) -> Size:
    """Return (height, width) after the whitening convolution, in pixels; the image's without one.

    Raises:
        InputError: the whitening kernel is larger than the image.
    """
    height, width = input_size or spec.input_shape[1:]
    side = spec.stem.whitening
    if side is None:
        return height, width
    if side > min(height, width):
        raise InputError("stem.whitening", side, f"must be at most the side of the {height}x{width} image")
    return height - side + 1, width - side + 1


def pooled_positions(spec: ModelSpec, last: Size) -> int:
    """Return the number of windows that the head pools, whose features are flattened; 1 for global pooling.

    Args:
        spec: the network.
        last: size of the last map.

    Raises:
        InputError: the windows are larger than the map.
    """
    side = spec.head.pool_size
    if side is None:
        return 1
    height, width = last
    if side > min(height, width):
        raise InputError("head.pool_size", side, f"must be at most the side of the last map, {height}x{width}")
    return (height // side) * (width // side)
