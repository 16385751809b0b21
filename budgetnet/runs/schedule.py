"""Recipe options for optimisation: learning-rate schedule, early stopping, Lookahead and Muon."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from budgetnet.common.documents import Document, Positive, Real

UnitFraction = Annotated[Real, Field(ge=0, lt=1)]
"""A fraction of at least 0 and below 1, such as a momentum."""


class Schedule(Document):
    """Learning-rate schedule, updated at every step."""

    kind: Literal["cosine-restarts", "one-cycle", "linear", "constant"] = "cosine-restarts"
    """``cosine-restarts``: cosine annealing with warm restarts (Loshchilov and Hutter 2017). ``one-cycle``: one cycle
    of cosine warmup, from 1/25 of the learning rate, and cosine annealing (Smith and Topin 2018). ``linear``: one cycle
    of linear warmup, from `warmup_start`, and linear decay to `minimum` (Page 2018, "How to Train Your ResNet").
    ``constant``: no schedule."""
    first_cycle: Annotated[Positive, Field(le=1_000_000)] = 100
    """Epochs of the first cycle (T_0), or of the single cycle."""
    cycle_factor: Annotated[Positive, Field(le=1000)] = 1
    """Ratio of the lengths of successive cycles (T_mult); ignored by single-cycle schedules."""
    minimum: Annotated[Real, Field(ge=0, le=1000)] = 0.0
    """Learning rate at the end of a cycle."""
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.3
    """Fraction of a single cycle spent on warmup; ignored by the other schedules."""
    warmup_start: Annotated[Real, Field(ge=0, le=1)] = 0.2
    """Initial learning rate of a linear schedule, as a fraction of the peak."""

    @property
    def is_single_cycle(self) -> bool:
        """Whether one cycle spans the whole training."""
        return self.kind in ("one-cycle", "linear")

    def cycle_ends(self, epochs: int) -> list[int]:
        """Return the last epoch of each complete cycle, counted from 1, up to ``epochs``."""
        if self.is_single_cycle:
            return [self.first_cycle] if self.first_cycle <= epochs else []
        ends, end, length = [], self.first_cycle, self.first_cycle
        while self.kind == "cosine-restarts" and end <= epochs:
            ends.append(end)
            length *= self.cycle_factor
            end += length
        return ends

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
        start, length = 0, self.first_cycle
        while epochs - start >= length:
            start += length
            length *= self.cycle_factor
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
    square root of the number of output channels. The linear layer, biases and batch norm are trained by SGD.
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
