"""What counting a network costs: the closed form beside tools that need the network built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from budgetnet.bench.measure import Goal, Measurement, Task, measure, ratios
from budgetnet.common.errors import BudgetnetError
from budgetnet.model.cost import Cost, cost_of, plan_cost
from budgetnet.model.plan import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.study.space import SearchSpace

NAMED = ("reference", "resnet20", "resnext-29-32x4d")
"""Named networks that are counted; few, so that a slow machine is done soon."""
CANDIDATES = "new candidates"
"""What the random draws of the default space are called among the networks."""
CLOSED_FORM, VECTORISED, THOP = "closed form", "vectorised", "thop"
THOP_THREADED = "thop, threaded"
"""On as many threads as torch takes by itself; everything else runs on one, where a busy machine disturbs least."""
THOP_BUILDING, COUNTER, BUILDING = "build and thop", "torch's counter", "build alone"
_MANY = 100_000
_SOME = 200
"""Candidates whose closed forms make one sample."""
_FEW = 2
"""Candidates that are built and counted by every tool before anything is timed."""
_IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}


class Counted(NamedTuple):
    """Counts on which every method agreed before it was timed."""

    network: str
    cost: Cost
    agreed: tuple[str, ...]
    """Who counted."""


class CheckBenchmark(NamedTuple):
    """What was counted and measured."""

    environment: dict[str, Any]
    counts: list[Counted]
    measurements: dict[str, dict[str, Measurement]]
    """For each network, each method's times."""

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """For each network, how many times the closed form's median each other method's is."""
        return {network: ratios(methods, to=CLOSED_FORM) for network, methods in self.measurements.items()}

    @property
    def goals(self) -> list[Goal]:
        """The goals, and whether they were met on this machine."""
        reference = self.measurements["reference"]
        # Its fastest sample on whichever threads: a machine that is busy with other things shall not flatter the ratio.
        thop = min(reference[method].minimum for method in (THOP, THOP_THREADED) if method in reference)
        advantage = thop / reference[CLOSED_FORM].median
        slowest = max(methods[CLOSED_FORM].median for methods in self.measurements.values())
        many = self.measurements[CANDIDATES][VECTORISED].median
        return [
            Goal("times as fast as thop's best on the reference", "times", advantage, 2000, advantage >= 2000),
            Goal("closed form of a specification, at most", "seconds", slowest, 100e-6, slowest <= 100e-6),
            Goal("vectorised, for each candidate, at most", "seconds", many, 1e-6, many <= 1e-6),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds."""
        return {
            "benchmark": "check",
            "environment": self.environment,
            "counts": [{"network": c.network, **c.cost._asdict(), "agreed": list(c.agreed)} for c in self.counts],
            "rows": [
                {"network": network, "method": method, **measurement._asdict()}
                for network, methods in self.measurements.items()
                for method, measurement in methods.items()
            ],
            "ratios": self.ratios,
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(*, seconds: float, progress: Callable[[str, int, int], None]) -> CheckBenchmark:
    """Counts named networks and new candidates of the default space by every method, then times the methods.

    Args:
        seconds: about how long to measure in all; every method is timed three times however long that takes.
        progress: told what is being done, how many parts are done, and of how many.

    Raises:
        BudgetnetError: two methods count differently, which would be a fault of budgetnet.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    environment = describe_environment(torch.device("cpu"))
    environment["packages"]["thop"] = version("thop")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        counts, measurements = _count_and_measure(seconds, threads, progress)
    finally:
        torch.set_num_threads(threads)
    return CheckBenchmark(environment, counts, measurements)


def _count_and_measure(
    seconds: float, threads: int, progress: Callable[[str, int, int], None]
) -> tuple[list[Counted], dict[str, dict[str, Measurement]]]:
    parts = [*NAMED, CANDIDATES]
    steps = 2 * len(parts)
    candidates = _Candidates()
    counts: list[Counted] = []
    for number, name in enumerate(parts):
        progress(f"counting {name}", number, steps)
        counts += _agreed_candidates(candidates) if name == CANDIDATES else [_agreed(name, get(name))]
    measurements = {}
    for number, name in enumerate(parts, len(parts)):
        progress(f"timing {name}", number, steps)
        if name == CANDIDATES:
            tasks = _candidate_tasks(candidates)
        else:
            # Threads that wait for each other take seconds on a busy machine, so one network must do.
            tasks = _network_tasks(get(name), threads=threads if name == "reference" else 1)
        measurements[name] = measure(tasks, seconds=seconds / len(parts))
    progress("done", steps, steps)
    return counts, measurements


class _Candidates:
    """Draws of the default space; none is ever given out twice."""

    def __init__(self) -> None:
        self.space = SearchSpace()
        self._generator = np.random.default_rng(0)

    def columns(self, count: int) -> dict[str, Any]:
        return self.space.draw(count=count, generator=self._generator)

    def specs(self, count: int) -> list[ModelSpec]:
        columns = self.columns(count)
        return [self.space.spec(self.space.params_at(columns, row), **_IMAGE) for row in range(count)]


def _agreed(name: str, spec: ModelSpec) -> Counted:
    """Counts a network by every method.

    Raises:
        BudgetnetError: they differ.
    """
    from budgetnet.model.verify import count_built

    cost = cost_of(spec)
    expected = {"built_params": cost.params, "thop_params": cost.params, "torch_macs": cost.macs}
    _require_equal(spec, plan_cost(lower(spec)), cost)
    _require_equal(spec, count_built(spec), expected)
    return Counted(name, cost, (CLOSED_FORM, "plan", "built parameters", THOP, COUNTER))


def _agreed_candidates(candidates: _Candidates) -> list[Counted]:
    """Counts many candidates without building them, and a few of them by every method."""
    columns = candidates.columns(_SOME)
    many = candidates.space.costs(columns, **_IMAGE)
    counted = []
    for row, cost in enumerate(zip(*(column.tolist() for column in many), strict=True)):
        spec = candidates.space.spec(candidates.space.params_at(columns, row), **_IMAGE)
        _require_equal(spec, cost_of(spec), cost)
        _require_equal(spec, plan_cost(lower(spec)), cost)
        if row < _FEW:
            agreed = _agreed(spec.label, spec)
            counted.append(agreed._replace(agreed=(*agreed.agreed, VECTORISED)))
    return counted


def _require_equal(spec: ModelSpec, counted: object, expected: object) -> None:
    if counted != expected:
        raise BudgetnetError(f"the counts of {spec.label} differ: {counted} and {expected}")


def _network_tasks(spec: ModelSpec, *, threads: int) -> dict[str, Task]:
    """Every method for one network, which thop and torch's counter find built."""
    import torch

    from budgetnet.model.network import build
    from budgetnet.model.verify import thop_params, torch_macs

    network, image = build(spec).eval(), torch.zeros(1, *spec.input_shape)

    def threaded() -> None:
        torch.set_num_threads(threads)
        try:
            thop_params(network, image)
        finally:
            torch.set_num_threads(1)

    return {
        CLOSED_FORM: Task(partial(cost_of, spec)),
        THOP: Task(partial(thop_params, network, image)),
        **({THOP_THREADED: Task(threaded)} if threads > 1 else {}),
        THOP_BUILDING: Task(lambda: thop_params(build(spec).eval(), image)),
        COUNTER: Task(partial(torch_macs, network, image)),
        BUILDING: Task(partial(build, spec)),
    }


def _candidate_tasks(candidates: _Candidates) -> dict[str, Task]:
    """Every method for candidates that are new at each call; making the specifications is not timed."""
    import torch

    from budgetnet.model.network import build
    from budgetnet.model.verify import thop_params, torch_macs

    image = torch.zeros(1, *_IMAGE["input_shape"])

    def one() -> ModelSpec:
        return candidates.specs(1)[0]

    def built() -> torch.nn.Module:
        return build(one()).eval()

    return {
        VECTORISED: Task(
            lambda columns: candidates.space.costs(columns, **_IMAGE), partial(candidates.columns, _MANY), _MANY
        ),
        CLOSED_FORM: Task(lambda specs: [cost_of(spec) for spec in specs], partial(candidates.specs, _SOME), _SOME),
        THOP: Task(lambda network: thop_params(network, image), built),
        THOP_BUILDING: Task(lambda spec: thop_params(build(spec).eval(), image), one),
        COUNTER: Task(lambda network: torch_macs(network, image), built),
        BUILDING: Task(build, one),
    }
