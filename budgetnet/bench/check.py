"""Benchmark of counting a network's cost: closed form, thop and torch's counter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from budgetnet.bench.measure import Goal, Measurement, Task, measure, ratios
from budgetnet.common.errors import BudgetnetError
from budgetnet.model.cost import Cost, cost_of, plan_cost
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.study.space import SearchSpace

NAMED = ("reference", "resnet20", "resnext-29-32x4d")
"""Named networks that are counted; few, to be quick on slow machines."""
CANDIDATES = "new candidates"
"""Row name of networks sampled from the default search space."""
CLOSED_FORM, VECTORISED, THOP = "closed form", "vectorised", "thop"
THOP_THREADED = "thop, threaded"
"""thop on torch's default number of threads; all others use one, which other load disturbs least."""
THOP_BUILDING, COUNTER, BUILDING = "build and thop", "torch's counter", "build alone"
_VECTORISED_CANDIDATES = 100_000
"""Candidates per sample of the vectorised count."""
_CLOSED_FORM_CANDIDATES = 200
"""Candidates per sample of the closed form; as many are compared before anything is timed."""
_BUILT_CANDIDATES = 2
"""Candidates that are also built and counted by every tool before anything is timed."""
_IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}


class Counted(NamedTuple):
    """Cost of one network, on which several methods agree."""

    network: str
    cost: Cost
    agreed: tuple[str, ...]
    """The methods."""


class CheckBenchmark(NamedTuple):
    """Counts, and times of each method."""

    environment: dict[str, Any]
    counts: list[Counted]
    measurements: dict[str, dict[str, Measurement]]
    """Times by network, then by method."""

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """For each network and method, its median time divided by that of the closed form."""
        return {network: ratios(methods, to=CLOSED_FORM) for network, methods in self.measurements.items()}

    @property
    def goals(self) -> list[Goal]:
        """Goals, and whether this machine meets them."""
        reference = self.measurements["reference"]
        # The fastest sample, threaded or not, so that load on this machine cannot improve the ratio.
        thop = min(reference[method].minimum for method in (THOP, THOP_THREADED) if method in reference)
        speedup = thop / reference[CLOSED_FORM].median
        slowest = max(methods[CLOSED_FORM].median for methods in self.measurements.values())
        vectorised = self.measurements[CANDIDATES][VECTORISED].median
        return [
            Goal.at_least("times as fast as thop's best on the reference", "times", speedup, 2000),
            Goal.at_most("closed form of one network, at most", "seconds", slowest, 100e-6),
            Goal.at_most("vectorised, per candidate, at most", "seconds", vectorised, 1e-6),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
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


def run(*, seconds: float, progress: Callable[[str], None]) -> CheckBenchmark:
    """Count named networks and sampled candidates by every method, and time the methods.

    Args:
        seconds: approximate duration; every method is timed at least three times.
        progress: called with a description of each step.

    Raises:
        BudgetnetError: two methods count differently, which is a bug in budgetnet.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    environment = describe_environment(torch.device("cpu"))
    environment["packages"]["thop"] = version("thop")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    parts = (*NAMED, CANDIDATES)
    candidates = _CandidateSampler()
    counts: list[Counted] = []
    measurements = {}
    try:
        for number, name in enumerate(parts, 1):
            progress(f"{number}/{len(parts)}: counting and timing {name}")
            if name == CANDIDATES:
                counts += _count_candidates(candidates)
                tasks = _candidate_tasks(candidates)
            else:
                counts.append(_count(name, get(name)))
                # Threaded thop takes seconds on a busy machine, so it is measured on one network only.
                tasks = _network_tasks(get(name), threads=threads if name == "reference" else 1)
            measurements[name] = measure(tasks, seconds=seconds / len(parts))
    finally:
        torch.set_num_threads(threads)
    return CheckBenchmark(environment, counts, measurements)


class _CandidateSampler:
    """Random samples from the default search space; each call returns new ones."""

    def __init__(self) -> None:
        self.space = SearchSpace()
        self._generator = np.random.default_rng(0)

    def columns(self, count: int) -> dict[str, Any]:
        return self.space.sample(count=count, generator=self._generator)

    def specs(self, count: int) -> list[ModelSpec]:
        return self.specs_of(self.columns(count), count)

    def specs_of(self, columns: dict[str, Any], count: int) -> list[ModelSpec]:
        return [self.space.spec(self.space.params_at(columns, row), **_IMAGE) for row in range(count)]


def _count(name: str, spec: ModelSpec) -> Counted:
    """Count a network by every method.

    Raises:
        BudgetnetError: two counts differ.
    """
    from budgetnet.model.verify import count_built

    cost = cost_of(spec)
    expected = {"built_params": cost.params, "thop_params": cost.params, "torch_macs": cost.macs}
    _require_equal(spec, plan_cost(lower(spec)), cost)
    _require_equal(spec, count_built(spec), expected)
    return Counted(name, cost, (CLOSED_FORM, "plan", "built parameters", THOP, COUNTER))


def _count_candidates(candidates: _CandidateSampler) -> list[Counted]:
    """Count many candidates without building them, and a few of them by every method."""
    columns = candidates.columns(_CLOSED_FORM_CANDIDATES)
    vectorised = zip(*(column.tolist() for column in candidates.space.costs(columns, **_IMAGE)), strict=True)
    specs = candidates.specs_of(columns, _CLOSED_FORM_CANDIDATES)
    for spec, cost in zip(specs, vectorised, strict=True):
        _require_equal(spec, cost_of(spec), cost)
        _require_equal(spec, plan_cost(lower(spec)), cost)
    counted = [_count(spec.label, spec) for spec in specs[:_BUILT_CANDIDATES]]
    return [each._replace(agreed=(*each.agreed, VECTORISED)) for each in counted]


def _require_equal(spec: ModelSpec, counted: object, expected: object) -> None:
    if counted != expected:
        raise BudgetnetError(f"the counts of {spec.label} differ: {counted} and {expected}")


def _network_tasks(spec: ModelSpec, *, threads: int) -> dict[str, Task]:
    """Return a task per method for one network; thop and torch's counter get it already built."""
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


def _candidate_tasks(candidates: _CandidateSampler) -> dict[str, Task]:
    """Return a task per method for candidates; each call gets new ones, whose sampling is not timed."""
    import torch

    from budgetnet.model.network import build
    from budgetnet.model.verify import thop_params, torch_macs

    image = torch.zeros(1, *_IMAGE["input_shape"])
    many, some = _VECTORISED_CANDIDATES, _CLOSED_FORM_CANDIDATES

    def one() -> ModelSpec:
        return candidates.specs(1)[0]

    def built() -> torch.nn.Module:
        return build(one()).eval()

    return {
        VECTORISED: Task(
            lambda columns: candidates.space.costs(columns, **_IMAGE), partial(candidates.columns, many), many
        ),
        CLOSED_FORM: Task(lambda specs: [cost_of(spec) for spec in specs], partial(candidates.specs, some), some),
        THOP: Task(lambda network: thop_params(network, image), built),
        THOP_BUILDING: Task(lambda spec: thop_params(build(spec).eval(), image), one),
        COUNTER: Task(lambda network: torch_macs(network, image), built),
        BUILDING: Task(build, one),
    }
