"""Parts of a recipe that say how weights move: schedule, early stopping, and options of the optimiser, as data."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from budgetnet.common.documents import Document, Positive, Real

Share = Annotated[Real, Field(ge=0, lt=1)]
"""A share below one, such as a momentum."""


class Schedule(Document):
    """How the learning rate moves, at every step."""

    kind: Literal["cosine-restarts", "one-cycle", "linear", "constant"] = "cosine-restarts"
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017); a single cycle that warms up from a 25th of the
    learning rate to it and anneals, both along a cosine (Smith and Topin 2018); a single cycle of two straight lines,
    up from `warmup_start` and down to `minimum` (Page 2018, "How to Train Your ResNet"); or a constant rate."""
    first_cycle: Positive = 100
    """Epochs of the first cycle, T_0, or of the only one."""
    cycle_factor: Positive = 1
    """Each cycle is this many times as long as the one before: T_mult. A single cycle has none behind it."""
    minimum: Annotated[Real, Field(ge=0)] = 0.0
    """Learning rate at the end of a cycle."""
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.3
    """Share of a single cycle in which the rate rises; the others do not look at it."""
    warmup_start: Annotated[Real, Field(ge=0, le=1)] = 0.2
    """Share of the learning rate at which a linear schedule starts."""

    @property
    def is_single_cycle(self) -> bool:
        """Whether the schedule is one cycle that spans the whole training."""
        return self.kind in ("one-cycle", "linear")

    def cycle_ends(self, epochs: int) -> list[int]:
        """The epochs, counted from 1 and up to ``epochs``, behind which a cycle is complete."""
        if self.is_single_cycle:
            return [self.first_cycle] if self.first_cycle <= epochs else []
        ends, end, length = [], self.first_cycle, self.first_cycle
        while self.kind == "cosine-restarts" and end <= epochs:
            ends.append(end)
            length *= self.cycle_factor
            end += length
        return ends

    def learning_rate(self, epochs: float, *, initial: float) -> float:
        """The learning rate at a moment of training (for restarts: Loshchilov and Hutter 2017, equation 5).

        Args:
            epochs: epochs that have passed, with the share of the one under way.
            initial: the recipe's learning rate, the highest of a cycle.
        """
        if self.kind == "constant":
            return initial
        if self.is_single_cycle:
            warmup, passed = self.warmup_fraction * self.first_cycle, min(epochs, self.first_cycle)
            linear = self.kind == "linear"
            between = _line if linear else _cosine
            if passed < warmup:
                start = initial * self.warmup_start if linear else initial / _WARMUP_DIVISOR
                return between(start, initial, passed / warmup)
            return between(initial, self.minimum, (passed - warmup) / (self.first_cycle - warmup))
        start, length = 0, self.first_cycle
        while epochs - start >= length:
            start += length
            length *= self.cycle_factor
        return _cosine(initial, self.minimum, (epochs - start) / length)


_WARMUP_DIVISOR = 25
"""How much lower than its peak a single cycle starts (Smith and Topin's choice as torch's OneCycleLR has it)."""


def _cosine(start: float, end: float, share: float) -> float:
    """Where a half cosine from one value to another stands when that share of it has passed."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line(start: float, end: float, share: float) -> float:
    """Interpolate linearly from one value to another."""
    return start + (end - start) * share


class Lookahead(Document):
    """Weights that are pulled towards their own slow average (Zhang et al. 2019), the pull growing over the training.

    Every `every` steps the average moves towards the weights by 1 - ``decay**every * progress**power``, where progress
    is the share of the training that has passed, and the weights are set to the average. The last step sets them to the
    average as it is (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), so up to `every` - 1 steps before
    it have no effect. A training that ends early, by early stopping or a pruner, keeps the weights of its last step.
    """

    every: Positive = 5
    """Steps between two meetings of weights and average."""
    decay: Share = 0.95
    """Decay of the average for each step, at the end of the training."""
    power: Annotated[Real, Field(ge=0, le=100)] = 3.0
    """How late the decay grows: it is multiplied by the share of training that has passed, to this power."""


class Muon(Document):
    """Optimiser of convolution weights by orthogonalised momentum (Jordan et al. 2024, "Muon").

    Each weight, as a matrix (output channels, everything else), is moved along its Nesterov momentum with all singular
    values brought near 1 by a Newton-Schulz iteration, and is kept at a Frobenius norm of the square root of its output
    channels. The head's linear layer, biases and batch norm stay with stochastic gradient descent.
    """

    learning_rate: Annotated[Real, Field(gt=0, le=1000)] = 0.24
    """Size of a step at the schedule's peak: about what each singular value of the step is. It moves as the recipe's
    learning rate does."""
    momentum: Share = 0.6
    """Momentum, in Nesterov's form."""
    iterations: Annotated[Positive, Field(le=20)] = 3
    """Newton-Schulz iterations for each step, in bfloat16."""


class EarlyStopping(Document):
    """When to give up: a loss has not fallen by ``min_delta`` for ``patience`` epochs."""

    patience: Positive = 10
    """Epochs without improvement that are tolerated."""
    min_delta: Annotated[Real, Field(ge=0)] = 1e-4
    """Smallest fall of the loss, in nats, that counts as improvement."""
    monitor: Literal["validation-loss", "training-loss"] = "validation-loss"
    """Which loss; that on training images keeps falling long behind the point where a network stops getting better."""
