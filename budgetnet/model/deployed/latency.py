"""Time that a network takes on a device, predicted from the times of its operations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import short_seconds
from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.deployed.calls import Call, RuntimeName, call_of, calls_of
from budgetnet.model.deployed.operations import Operation, block_of, head_of, start_of
from budgetnet.model.deployed.times import KernelTimes
from budgetnet.model.lowering import lower
from budgetnet.model.sizes import feature_sizes
from budgetnet.model.spec import ModelSpec

_MOST_KNOWN = 100_000
"""Parts whose time is remembered; where there are more, all are forgotten."""


class Predicted(NamedTuple):
    """A predicted time."""

    seconds: float
    error: float
    """Share of the time that 95 % of the predictions stay within."""

    @property
    def at_most(self) -> float:
        """The time with the error added, in seconds."""
        return self.seconds * (1 + self.error)

    def __str__(self) -> str:
        return f"{short_seconds(self.seconds)} ± {short_seconds(self.seconds * self.error)}"


class _Time(NamedTuple):
    """Time of a part of a network."""

    seconds: float
    """Infinity if that of an operation is unknown."""
    calls: int
    in_blocks: bool
    """Whether its output is in the runtime's blocked layout."""


class Latency:
    """Prediction of the time of networks on a device, from the times of their operations and their number."""

    def __init__(
        self,
        times: KernelTimes,
        *,
        runtime: RuntimeName,
        block: int,
        constant: float,
        factor: float,
        per_call: float,
        error: float,
        images: str,
    ) -> None:
        """Prepare to predict.

        Args:
            times: of the operations.
            runtime: what executes them.
            block: channels in a block of its layout.
            constant: seconds of any network.
            factor: of the sum of the operations' times.
            per_call: seconds of any operation, besides.
            error: relative error that 95 % of the predictions stay within.
            images: images and classes that were measured, for messages.
        """
        self._times = times
        self._runtime, self._block = runtime, block
        self._constant, self._factor, self._per_call = constant, factor, per_call
        self.error = error
        self._images = images
        self._parts: dict[tuple[Any, ...], _Time | None] = {}
        self._settings: dict[BlockSettings, int] = {}
        self._numbers: dict[int, tuple[BlockSettings, int]] = {}
        """Numbers of settings by identity; they are kept, so that no other gets the identity of one."""

    def calls(self, spec: ModelSpec) -> list[Call]:
        """Return the operations of a network as the runtime executes them."""
        return calls_of(lower(spec), runtime=self._runtime, block=self._block)

    def predict(self, spec: ModelSpec) -> Predicted:
        """Predict the time of a batch.

        Raises:
            InputError: the file lacks an operation of the network, or its number of channels.
        """
        seconds = self.seconds(spec)
        if seconds is None:
            call = next(call for call in self.calls(spec) if self._times.seconds(call) is None)
            rule = f"has no time of {call}, which {spec.label} needs; it was made for images of {self._images}"
            raise InputError("device_file", "this file", rule)
        return Predicted(seconds, self.error)

    def seconds(self, spec: ModelSpec) -> float | None:
        """Return the predicted time of a batch, in seconds; None where the file lacks an operation of the network."""
        by_parts = self._sum_of_parts(spec) if self._runtime == "onnxruntime" else None
        total, count = self._sum(self.calls(spec)) if by_parts is None else by_parts
        if total == math.inf:
            return None
        return max(0.0, self._constant + self._factor * total + self._per_call * count)

    def _sum(self, calls: Iterable[Call]) -> tuple[float, int]:
        """Return the time of calls and their number; infinity if the time of one is unknown."""
        total, count = 0.0, 0
        for call in calls:
            seconds = self._times.seconds(call)
            total += math.inf if seconds is None else seconds
            count += 1
        return total, count

    def _sum_of_parts(self, spec: ModelSpec) -> tuple[float, int] | None:
        """Return the sum over stem, blocks and head, each looked at once; None if one cannot be looked at alone."""
        if len(self._parts) > _MOST_KNOWN or len(self._numbers) > _MOST_KNOWN:
            self._parts.clear()
            self._numbers.clear()
        parts, stem, sizes, plan = self._parts, spec.stem, feature_sizes(spec), None
        total, count, in_blocks = 0.0, 0, False
        normed = spec.head_norm or any(settings.preact for settings in spec.block_settings)
        width, first = stem.channels, True
        for index, (stage, settings) in enumerate(zip(spec.stages, spec.block_settings, strict=True)):
            number = self._number(settings)
            for position in range(stage.blocks):
                before, stride = (sizes[index], stage.stride) if position == 0 else (sizes[index + 1], 1)
                own = (number, normed, width, stage.channels, stage.kernel_sizes, stride, before, sizes[index + 1])
                key = (*own, *_stem_key(spec)) if first else (*own, spec.downsampling, in_blocks)
                if key not in parts:
                    plan = plan or lower(spec)
                    if first:
                        part = start_of(plan, normed=normed, block_size=self._block)
                    else:
                        part = block_of(
                            plan.stages[index][position],
                            before,
                            in_blocks=in_blocks,
                            normed=normed,
                            block_size=self._block,
                        )
                    parts[key] = None if part is None else self._time(part.operations, in_blocks=part.in_blocks)
                found = parts[key]
                if found is None:
                    return None
                total, count, in_blocks = total + found.seconds, count + found.calls, found.in_blocks
                width, first = stage.channels, False
        key = (*_head_key(spec), width, sizes[-1], in_blocks)
        if key not in parts:
            operations = head_of(plan or lower(spec), in_blocks=in_blocks, block_size=self._block)
            parts[key] = self._time(operations, in_blocks=False)
        found = parts[key]
        return None if found is None else (total + found.seconds, count + found.calls)

    def _number(self, settings: BlockSettings) -> int:
        """Return a number that equal settings share: hashing them takes as long as all else."""
        known = self._numbers.get(id(settings))
        if known is None:
            known = settings, self._settings.setdefault(settings, len(self._settings))
            self._numbers[id(settings)] = known
        return known[1]

    def _time(self, operations: Iterable[Operation], *, in_blocks: bool) -> _Time:
        return _Time(*self._sum(call_of(operation, self._block) for operation in operations), in_blocks)


def _stem_key(spec: ModelSpec) -> tuple[Any, ...]:
    """Return what decides the operations of a stem, besides its blocks and the sizes of maps."""
    stem = spec.stem
    return (
        *("stem", spec.input_shape, spec.stem_norm, spec.activation, spec.downsampling),
        *(stem.kernel_size, stem.stride, stem.whitening, stem.inner_channels, stem.bias),
        *(stem.squeeze_excitation_ratio, stem.pool_size, stem.pool_stride),
    )


def _head_key(spec: ModelSpec) -> tuple[Any, ...]:
    """Return what decides the operations of a head, besides the map it reads."""
    head = spec.head
    return (
        *("head", spec.num_classes, spec.head_norm, spec.activation),
        *(head.pooling, head.pool_size, head.channels, head.scale == 1),
    )
