"""Recipe options for optimisation: learning-rate schedule, early stopping, Lookahead and Muon."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Document, Positive, Real
from budgetnet.common.errors import InputError

UnitFraction = Annotated[Real, Field(ge=0, lt=1)]
"""A fraction of at least 0 and below 1, such as a momentum."""


CycleLength = Annotated[Positive, Field(le=1_000_000)]


class Schedule(Document):
    """Learning-rate schedule, updated at every step."""

    kind: Literal["cosine-restarts", "one-cycle", "linear", "constant"] = "cosine-restarts"
    """``cosine-restarts``: cosine annealing with warm restarts (Loshchilov and Hutter 2017). ``one-cycle``: one cycle
    of cosine warmup, from 1/25 of the learning rate, and cosine annealing (Smith and Topin 2018). ``linear``: one cycle
    of linear warmup, from `warmup_start`, and linear decay to `minimum` (Page 2018, "How to Train Your ResNet").
    ``constant``: no schedule."""
    first_cycle: CycleLength = 100
    """Epochs of the first cycle (T_0), or of the single cycle."""
    cycle_factor: Annotated[Positive, Field(le=1000)] = 1
    """Ratio of the lengths of successive cycles (T_mult); ignored by single-cycle schedules."""
    minimum: Annotated[Real, Field(ge=0, le=1000)] = 0.0
    """Learning rate at the end of a cycle."""
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.3
    """Fraction of a single cycle spent on warmup; ignored by the other schedules."""
    warmup_start: Annotated[Real, Field(ge=0, le=1)] = 0.2
    """Initial learning rate of a linear schedule, as a fraction of the peak."""
    cycles: Annotated[tuple[CycleLength, ...], Field(min_length=1, max_length=100_000)] | None = None
    """Epochs of each cycle of ``cosine-restarts``, instead of `first_cycle` and `cycle_factor`; together they must be
    the recipe's epochs. `stretched` sets them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cycles and self.kind != "cosine-restarts":
            raise InputError("cycles", list(self.cycles), f"must be omitted in a schedule of kind {self.kind}")
        return self

    @property
    def is_single_cycle(self) -> bool:
        """Whether one cycle spans the whole training."""
        return self.kind in ("one-cycle", "linear")

    def cycle_ends(self, epochs: int) -> list[int]:
        """Return the last epoch of each complete cycle, counted from 1, up to ``epochs``."""
        if self.is_single_cycle:
            return [self.first_cycle] if self.first_cycle <= epochs else []
        if self.kind == "constant":
            return []
        return list(itertools.takewhile(lambda end: end <= epochs, itertools.accumulate(self._lengths())))

    def _lengths(self) -> Iterator[int]:
        """Yield the epochs of one cycle after the other, without end."""
        if self.cycles:
            yield from itertools.chain(self.cycles, itertools.repeat(self.cycles[-1]))
        length = self.first_cycle
        while True:
            yield length
            length *= self.cycle_factor

    def stretched(self, epochs: int, *, own: int) -> Self:
        """Return the schedule for another number of epochs, stretched so that a cycle ends with the training.

        The ends of the cycles are scaled and rounded to whole epochs. Where no cycle ends with the original training,
        there are as many cycles as have nearly the new length together.

        Args:
            epochs: epochs of the new training, at least 1.
            own: epochs of the original training.
        """
        if self.kind == "constant":
            return self
        if self.is_single_cycle:
            return self._changed(first_cycle=epochs)
        ends = self.cycle_ends(own)
        if not ends or ends[-1] != own or len(ends) > epochs:
            ends = self._nearest_ends(epochs)
        scaled = [0]
        for later, end in zip(range(len(ends) - 1, -1, -1), ends, strict=True):
            # Each cycle keeps at least one epoch.
            scaled.append(min(max(scaled[-1] + 1, round(end * epochs / ends[-1])), epochs - later))
        regular = self._changed(first_cycle=scaled[1], cycles=None)
        if regular.cycle_ends(epochs) == scaled[1:]:
            return regular
        return self._changed(cycles=tuple(end - start for start, end in itertools.pairwise(scaled)))

    def _nearest_ends(self, epochs: int) -> list[int]:
        """Return the ends of the first cycles, of which the last has the least ratio to a number of epochs."""
        ends = self.cycle_ends(epochs)
        following = next(end for end in itertools.accumulate(self._lengths()) if end > epochs)
        return [*ends, following] if not ends or following * ends[-1] < epochs**2 else ends

    def _changed(self, **changes: Any) -> Self:
        return self.from_mapping({**self.model_dump(), **changes})

    def learning_rate(self, epochs: float, *, initial: float) -> float:
        """Return the learning rate at a point of training (restarts: Loshchilov and Hutter 2017, equation 5).

        Args:
            epochs: elapsed epochs, with the fraction of the current one.
            initial: peak learning rate, that of the recipe.
        """
        if self.kind == "constant":
            return initial
        if self.is_single_cycle:
            warmup, passed = self.warmup_fraction * self.first_cycle, min(epochs, self.first_cycle)
            linear = self.kind == "linear"
            interpolate = _linear if linear else _cosine
            if passed < warmup:
                start = initial * self.warmup_start if linear else initial / _WARMUP_DIVISOR
                return interpolate(start, initial, passed / warmup)
            return interpolate(initial, self.minimum, (passed - warmup) / (self.first_cycle - warmup))
        start = 0
        for length in self._lengths():
            if epochs - start < length:
                break
            start += length
        return _cosine(initial, self.minimum, (epochs - start) / length)


_WARMUP_DIVISOR = 25
"""Ratio of peak to initial learning rate in a one-cycle schedule, as in `torch.optim.lr_scheduler.OneCycleLR`."""


def _cosine(start: float, end: float, fraction: float) -> float:
    """Interpolate along a half cosine from one value to another."""
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def _linear(start: float, end: float, fraction: float) -> float:
    """Interpolate linearly from one value to another."""
    return start + (end - start) * fraction


class Lookahead(Document):
    """Lookahead optimiser (Zhang et al. 2019) with a decay that grows during training.

    Every `every` steps, the slow weights move towards the fast weights by 1 - ``decay**every * progress**power``, where
    progress is the completed fraction of the training, and the fast weights are set to the slow weights. The last step
    only sets the fast weights to the slow weights (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), so
    up to `every` - 1 steps before it have no effect. If early stopping or a pruner ends the training, the weights of
    the last step are used.
    """

    every: Annotated[Positive, Field(le=1_000_000)] = 5
    """Steps between two synchronisations of fast and slow weights."""
    decay: UnitFraction = 0.95
    """Decay of the slow weights per step, at the end of the training."""
    power: Annotated[Real, Field(ge=0, le=100)] = 3.0
    """Exponent of the growth of the decay, which is multiplied by ``progress**power``."""


class Muon(Document):
    """Muon optimiser of convolution weights by orthogonalised momentum (Jordan et al. 2024, "Muon").

    The update of each weight, a matrix (output channels, all other dimensions), is its Nesterov momentum with all
    singular values brought near 1 by Newton-Schulz iterations. The weight is then normalised to a Frobenius norm of the
    square root of the number of output channels. The recipe's `optimizer` trains linear layer, biases and batch norm.
    """

    learning_rate: Annotated[Real, Field(gt=0, le=1000)] = 0.24
    """Peak learning rate, about the size of each singular value of an update; follows the recipe's schedule."""
    momentum: UnitFraction = 0.6
    """Nesterov momentum."""
    iterations: Annotated[Positive, Field(le=20)] = 3
    """Newton-Schulz iterations per step, in bfloat16."""


class EarlyStopping(Document):
    """Early stopping when a loss has not improved by ``min_delta`` for ``patience`` epochs."""

    patience: Annotated[Positive, Field(le=1_000_000)] = 10
    """Epochs without improvement before training stops."""
    min_delta: Annotated[Real, Field(ge=0, le=1000)] = 1e-4
    """Smallest decrease of the loss, in nats, that counts as improvement."""
    monitor: Literal["validation-loss", "training-loss"] = "validation-loss"
    """Monitored loss; the training loss usually keeps falling after the network has stopped improving."""
