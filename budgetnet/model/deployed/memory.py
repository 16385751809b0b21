"""Peak memory of a network's maps, as ONNX Runtime plans it in float32.

The runtime plans once where each map lies: an activation function or a fused sum may overwrite its input, a map may
take over the buffer of a map of the same shape that is no longer needed, and all else goes into the tightest gap. What
is counted is the size of the memory that holds all this at once, as the runtime allocates it. Not in it, as they are
the caller's or are needed without a network too: the images and logits, the weights, and the temporary memory of single
operations, most of all of convolutions that cannot run in the blocked layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from budgetnet.model.deployed.operations import IMAGES, Operation, operations
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

_FLOAT = 4
"""Bytes of an element."""

_ALIGNMENT = 256
"""Buffers are multiples of so many bytes."""

_IN_PLACE = frozenset(("relu", "leaky_relu", "relu6", "sigmoid"))
"""Activation functions that may overwrite their input."""

_FLAT = frozenset(("global-average", "global-max", "linear", "scale"))
"""Operations whose output has no height and width, so that it differs in shape from a map of one pixel."""


def peak_memory(spec: ModelSpec, *, block_size: int = 16) -> int:
    """Return the peak memory of a network's maps for one image, in bytes.

    Args:
        spec: the network.
        block_size: channels in a block of the CPU's layout, see `budgetnet.model.deployed.operations.operations`.
    """
    return planned_memory(operations(lower(spec), block_size=block_size))


def planned_memory(executed: Sequence[Operation], *, images: int = 1) -> int:
    """Return the size of the memory that the runtime plans for the outputs of all operations but the last, in bytes.

    Args:
        executed: operations of a network.
        images: images in a batch.
    """
    made, released = _buffers(executed, images * _FLOAT)
    placed: list[tuple[int, int, int]] = []
    """Beginning, end and number of each buffer in use, in the order of their places."""
    peak = 0
    for step in range(len(executed)):
        if size := made[step]:
            at, place = _place(placed, size, peak)
            placed.insert(at, (place, place + size, step))
            peak = max(peak, place + size)
        if gone := released[step]:
            placed = [each for each in placed if each[2] not in gone]
    return peak


def _place(placed: list[tuple[int, int, int]], size: int, peak: int) -> tuple[int, int]:
    """Return the position and the place of a new buffer: the tightest gap, else behind all others."""
    end, tightest, found = 0, -1, (len(placed), placed[-1][1] if placed else 0)
    for at, (first, after, _) in enumerate(placed):
        gap = first - end
        if gap >= size and not 0 <= tightest <= gap:
            tightest, found = gap, (at, end)
        end = after
    # What was in use before is a gap too.
    if peak - end >= size and not 0 <= tightest <= peak - end:
        found = len(placed), end
    return found


def _buffers(executed: Sequence[Operation], bytes_each: int) -> tuple[list[int], list[set[int]]]:
    """Assign the outputs of operations to buffers, each named by the step that makes it.

    Args:
        executed: operations of a network.
        bytes_each: bytes of an element of one image, times the images.

    Returns:
        For each step, the bytes of the buffer that it makes, 0 for none; and the buffers released after it.
    """
    uses: defaultdict[int, int] = defaultdict(int)
    for operation in executed:
        for tensor in operation.inputs:
            uses[tensor] += 1
    steps = len(executed)
    made, last = [0] * steps, [-1] * steps
    buffer_of: dict[int, int] = {}
    left = [0] * steps
    """Reads of each buffer to come."""
    shapes: list[tuple[int, int, int, bool]] = []
    free: defaultdict[tuple[int, int, int, bool], list[int]] = defaultdict(list)
    """Buffers that nothing reads any more, by shape, the latest last."""
    for step, operation in enumerate(executed):
        height, width, size = operation.height, operation.width, operation.size
        shape = (size // (height * width), height, width, operation.kind in _FLAT)
        shapes.append(shape)
        if step < steps - 1:
            buffer = step
            overwritten = buffer_of.get(operation.inputs[-1], -1)
            if _overwrites(operation) and overwritten >= 0 and left[overwritten] == 1:
                buffer = overwritten
            elif free[shape]:
                buffer = free[shape].pop()
            else:
                made[step] = -(-size * bytes_each // _ALIGNMENT) * _ALIGNMENT
            buffer_of[operation.output] = buffer
            left[buffer] += uses[operation.output]
        for tensor in operation.inputs:
            if tensor == IMAGES:
                continue
            buffer = buffer_of[tensor]
            left[buffer] -= 1
            if not left[buffer]:
                free[shapes[buffer]].append(buffer)
                last[buffer] = step
    released: list[set[int]] = [set() for _ in executed]
    for buffer, step in enumerate(last):
        if step >= 0:
            released[step].add(buffer)
    return made, released


def _overwrites(operation: Operation) -> bool:
    """Return whether an operation may write its output over its last input."""
    return operation.sum or (operation.kind == "activation" and operation.activation in _IN_PLACE)
