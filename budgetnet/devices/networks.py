"""Whole networks: which a space has, how long they take, and how their time follows from that of their operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import kendalltau

from budgetnet.devices.estimates import estimate
from budgetnet.devices.runtimes import Runtime
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.device_file import Calibration, Validation
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.feasibility import require_feasible
from budgetnet.study.space.fitting import fit

_RUNS = 10
"""Executions of a network in a round, at least."""
_SECONDS = 0.05
"""Time of a network in a round, if that is more."""
_WARM_UP = 3
LEAST_SHARE = 0.02
"""Smallest budget of networks that are timed whole, as a share of the largest; the time of the very smallest is that of
the runtime and not of their operations."""
_LEAST_CALIBRATED = 12
"""Networks from which on more than a factor is fitted."""
_LEAST_SLOPE = 0.1
_LEAST_FACTOR = 1.5
"""Smallest budget of a sampled network, as a multiple of what the smallest network of the space needs."""


class Region(NamedTuple):
    """Networks whose operations are measured."""

    space: SearchSpace
    input_shape: tuple[int, int, int]
    num_classes: int
    max_params: int
    max_macs: int

    def require_feasible(self) -> None:
        """Require that the space has a network within the limits.

        Raises:
            OverBudgetError: not even its smallest is.
        """
        budget = Budget(max_params=self.max_params, max_macs=self.max_macs)
        require_feasible(self.space, budget, input_shape=self.input_shape, num_classes=self.num_classes, fitted=True)

    def networks(self, *, seed: int, least: float = 0.0) -> Iterator[ModelSpec]:
        """Yield random networks of the space, fitted to random budgets up to the largest.

        Args:
            seed: of the samples.
            least: smallest budget as a share of the largest; not below what the smallest networks need.
        """
        image = {"input_shape": self.input_shape, "num_classes": self.num_classes}
        generator = np.random.default_rng(seed)
        smallest = [
            self.space.narrowest.smallest(**image, measure="params").params,  # type: ignore[arg-type]
            self.space.narrowest.smallest(**image, measure="macs").macs,  # type: ignore[arg-type]
        ]
        while True:
            columns = self.space.sample(count=64, generator=generator)
            for row in range(64):
                limits = [
                    int(high * (min(1.0, max(least, _LEAST_FACTOR * low / high)) ** generator.random()))
                    for low, high in zip(smallest, (self.max_params, self.max_macs), strict=True)
                ]
                yield fit(
                    self.space,
                    self.space.params_at(columns, row),
                    budget=Budget(max_params=limits[0], max_macs=limits[1]),
                    sizing="fit",
                    input_shape=self.input_shape,
                    num_classes=self.num_classes,
                )


def time_networks(
    runtime: Runtime,
    specs: Sequence[ModelSpec],
    *,
    rounds: int,
    progress: Callable[[int], None] = lambda _done: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Time whole networks, one after the other in several rounds, and return the seconds that each takes.

    Args:
        runtime: what executes them.
        specs: the networks.
        rounds: number of rounds.
        progress: is told how many of all measurements are done.
        clock: a monotonic clock, in seconds.
    """
    times: list[list[float]] = [[] for _ in specs]
    for number in range(rounds):
        for place, spec in enumerate(specs):
            run = runtime.network(spec)
            for _ in range(_WARM_UP):
                run()
            start = clock()
            own: list[float] = []
            while len(own) < _RUNS or clock() - start < _SECONDS:
                before = clock()
                run()
                own.append(clock() - before)
            times[place] += own
            progress(number * len(specs) + place + 1)
    return [estimate(each).seconds for each in times]


def calibrated(sums: Sequence[float], calls: Sequence[int], seconds: Sequence[float]) -> Calibration:
    """Fit the time of networks to the sum of the times of their operations and to their number, by relative errors.

    Args:
        sums: seconds of all operations of each network.
        calls: number of operations of each.
        seconds: measured times.
    """
    ratios = np.asarray(seconds) / np.asarray(sums)
    if len(sums) < _LEAST_CALIBRATED:
        return Calibration(constant=0.0, factor=float(np.median(ratios)), per_operation=0.0)
    # In units in which all three are near 1.
    columns = np.stack([np.full(len(sums), 1e-4), np.asarray(sums), 1e-6 * np.asarray(calls)], axis=1)
    relative = columns / np.asarray(seconds)[:, None]
    fitted = least_squares(
        lambda factors: relative @ factors - 1,
        (0.0, float(np.median(ratios)), 0.0),
        bounds=([-np.inf, _LEAST_SLOPE, -np.inf], np.inf),
        # Few networks that other load has slowed down decide nothing.
        loss="soft_l1",
        f_scale=0.02,
    )
    constant, factor, each = map(float, fitted.x)
    return Calibration(constant=100 * constant, factor=factor, per_operation=each)


def validated(predicted: Sequence[float], seconds: Sequence[float], macs: Sequence[int]) -> Validation:
    """Compare predictions with measured times.

    Args:
        predicted: predicted seconds of networks that the calibration has not seen.
        seconds: measured times.
        macs: MACs of the networks.
    """
    errors = np.abs(np.asarray(predicted) / np.asarray(seconds) - 1)
    return Validation(
        networks=len(errors),
        median_error=float(np.median(errors)),
        p95_error=float(np.quantile(errors, 0.95, method="higher")),
        worst_error=float(errors.max()),
        within_5_percent=float((errors <= 0.05).mean()),
        within_10_percent=float((errors <= 0.10).mean()),
        kendall_tau=float(kendalltau(predicted, seconds).statistic),
        kendall_tau_macs=float(kendalltau(macs, seconds).statistic),
    )
