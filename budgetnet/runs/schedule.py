"""Recipe options for optimisation: learning-rate schedule, early stopping, Lookahead and Muon."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Positive, Real, whole_number
from budgetnet.common.errors import InputError

UnitFraction = Annotated[Real, Field(ge=0, lt=1)]
"""A fraction of at least 0 and below 1, such as a momentum."""


CycleLength = Annotated[Positive, Field(le=1_000_000)]


class Schedule(Document):
    """Learning-rate schedule, updated at every step."""

    kind: Literal["cosine-restarts", "one-cycle", "linear", "steps", "plateau", "constant"] = "cosine-restarts"
    """``cosine-restarts``: cosine annealing with warm restarts (Loshchilov and Hutter 2017). ``one-cycle``: one cycle
    of cosine warmup, from 1/25 of the learning rate, and cosine annealing (Smith and Topin 2018). ``linear``: one cycle
    of linear warmup, from `warmup_start`, and linear decay to `minimum` (Page 2018, "How to Train Your ResNet").
    ``steps``: multiplied by `factor` at each of `milestones` (He et al. 2016). ``plateau``: multiplied by `factor` when
    `monitor` has not improved for more than `patience` epochs. ``constant``: no schedule."""
    first_cycle: CycleLength = 100
    """Epochs of the first cycle (T_0), or of the single cycle."""
    cycle_factor: Annotated[Positive, Field(le=1000)] = 1
    """Ratio of the lengths of successive cycles (T_mult); ignored by single-cycle schedules."""
    minimum: Annotated[Real, Field(ge=0, le=1000)] = 0.0
    """Learning rate at the end of a cycle; the lowest of ``steps`` and ``plateau``."""
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.3
    """Fraction of a single cycle spent on warmup; ignored by the other schedules."""
    warmup_start: Annotated[Real, Field(ge=0, le=1)] = 0.2
    """Initial learning rate of a linear schedule, as a fraction of the peak."""
    cycles: Annotated[tuple[CycleLength, ...], Field(min_length=1, max_length=100_000)] | None = None
    """Epochs of each cycle of ``cosine-restarts``, instead of `first_cycle` and `cycle_factor`; together they must be
    the recipe's epochs. `stretched` sets them."""
    milestones: Annotated[tuple[CycleLength, ...], Field(min_length=0, max_length=1000)] | None = None
    """Epochs after which ``steps`` multiplies the learning rate by `factor`, in ascending order, such as [75, 112]."""
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    """Factor on the learning rate in ``steps`` and ``plateau``; ignored by the other schedules, as the fields below."""
    patience: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=1_000_000)] = 10
    """Epochs without improvement that ``plateau`` tolerates: the next one lowers the learning rate, as in
    `torch.optim.lr_scheduler.ReduceLROnPlateau`."""
    monitor: Literal["validation-loss", "validation-accuracy"] = "validation-loss"
    """What has to improve in ``plateau``."""
    threshold: Annotated[Real, Field(ge=0, lt=1)] = 1e-4
    """Smallest change, relative to the best value so far, that counts as improvement in ``plateau``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cycles and self.kind != "cosine-restarts":
            raise InputError("cycles", list(self.cycles), f"must be omitted in a schedule of kind {self.kind}")
        if self.kind == "steps":
            self._check_milestones()
        elif self.milestones is not None:
            raise InputError("milestones", list(self.milestones), f"must be omitted in a schedule of kind {self.kind}")
        return self

    def _check_milestones(self) -> None:
        if self.milestones is None:
            raise InputError("milestones", None, "must be given in a schedule of kind steps")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.milestones)):
            raise InputError("milestones", list(self.milestones), "must be in ascending order, each once")

    @property
    def is_single_cycle(self) -> bool:
        """Whether one cycle spans the whole training."""
        return self.kind in ("one-cycle", "linear")

    @property
    def ends_anywhere(self) -> bool:
        """Whether no epoch is a wrong one to end at, as the learning rate does not fall from epoch to epoch."""
        return self.kind in ("steps", "plateau", "constant")

    def cycle_ends(self, epochs: int) -> list[int]:
        """Return the last epoch of each complete cycle, counted from 1, up to ``epochs``.

        At these epochs, candidates of a search are compared. Those of ``steps`` are its milestones; ``plateau`` and
        ``constant`` have none.
        """
        if self.is_single_cycle:
            return [self.first_cycle] if self.first_cycle <= epochs else []
        if self.ends_anywhere:
            return [milestone for milestone in self.milestones or () if milestone <= epochs]
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
        there are as many cycles as have nearly the new length together. Milestones are scaled likewise; of more than
        fit, the last are left out. The patience of ``plateau`` stays the same.

        Args:
            epochs: epochs of the new training, at least 1.
            own: epochs of the original training.
        """
        if self.kind in ("constant", "plateau"):
            return self
        if self.is_single_cycle:
            return self._changed(first_cycle=epochs)
        if self.milestones is not None:
            return self._changed(milestones=_scaled([*self.milestones[: epochs - 1], own], epochs)[:-1])
        ends = self.cycle_ends(own)
        if not ends or ends[-1] != own or len(ends) > epochs:
            ends = self._nearest_ends(epochs)
        scaled = _scaled(ends, epochs)
        regular = self._changed(first_cycle=scaled[0], cycles=None)
        if regular.cycle_ends(epochs) == scaled:
            return regular
        return self._changed(cycles=tuple(end - start for start, end in itertools.pairwise([0, *scaled])))

    def _nearest_ends(self, epochs: int) -> list[int]:
        """Return the ends of the first cycles, of which the last has the least ratio to a number of epochs."""
        ends = self.cycle_ends(epochs)
        following = next(end for end in itertools.accumulate(self._lengths()) if end > epochs)
        return [*ends, following] if not ends or following * ends[-1] < epochs**2 else ends

    def _changed(self, **changes: Any) -> Self:
        return self.from_mapping({**self.model_dump(), **changes})

    def learning_rate(self, epochs: float, *, initial: float, plateaus: int = 0) -> float:
        """Return the learning rate at a point of training (restarts: Loshchilov and Hutter 2017, equation 5).

        Args:
            epochs: elapsed epochs, with the fraction of the current one.
            initial: peak learning rate, that of the recipe.
            plateaus: how often ``plateau`` has lowered the learning rate, see `plateaus`.
        """
        if self.ends_anywhere:
            times = plateaus if self.milestones is None else bisect.bisect_right(self.milestones, epochs)
            return max(initial * self.factor**times, min(initial, self.minimum))
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

    def plateaus(self, values: Iterable[float]) -> int:
        """Return how often ``plateau`` lowers the learning rate until after some epochs; 0 in other schedules.

        The result follows from the values alone, so a resumed run needs no other state.

        Args:
            values: the monitored value after each epoch.
        """
        if self.kind != "plateau":
            return 0
        sign = 1 if self.monitor == "validation-loss" else -1
        best, stale, lowered = sign * math.inf, 0, 0
        for value in values:
            if sign * value < sign * best * (1 - sign * self.threshold):
                best, stale = value, 0
            else:
                stale += 1
            if stale > self.patience:
                stale, lowered = 0, lowered + 1
        return lowered


_WARMUP_DIVISOR = 25
"""Ratio of peak to initial learning rate in a one-cycle schedule, as in `torch.optim.lr_scheduler.OneCycleLR`."""


def _scaled(ends: Sequence[int], epochs: int) -> list[int]:
    """Scale the ends of cycles to whole epochs, so that the last is ``epochs``; each cycle keeps at least one."""
    scaled = [0]
    for later, end in zip(range(len(ends) - 1, -1, -1), ends, strict=True):
        scaled.append(min(max(scaled[-1] + 1, round(end * epochs / ends[-1])), epochs - later))
    return scaled[1:]


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
    singular values brought near 1 by Newton-Schulz iterations. Before it is subtracted, the weight is normalised to a
    Frobenius norm of the square root of the number of output channels. The recipe's `optimizer` trains linear layer,
    biases and batch norm.
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
