"""Objectives of a search: accuracy, and what is minimised beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import short_count
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.limits import DEPLOYED, limit_text
from budgetnet.model.spec import ModelSpec

CostName = Literal["params", "macs", "activations", "weights", "peak_memory", "latency"]
"""Costs that a search can minimise."""
ObjectiveName = Literal["accuracy", CostName]

Direction = Literal["maximize", "minimize"]

ACCURACY: Final = "accuracy"
METRIC = "validation accuracy"
"""Name of the accuracy, in the dashboard and in Optuna's plots."""


class CostKind(NamedTuple):
    """A cost: where it is stored, and how it is named."""

    attribute: str
    """Attribute of Optuna's trials; ``max_`` and this name is the field of its limit."""
    heading: str
    """In tables."""
    words: str
    """In sentences and figures, and in Optuna's plots."""

    @property
    def unit(self) -> str:
        """Unit of columns and axes of numbers; empty for counts."""
        return DEPLOYED[self.attribute].unit if self.attribute in DEPLOYED else ""

    @property
    def scale(self) -> float:
        """Size of the unit."""
        return DEPLOYED[self.attribute].scale if self.attribute in DEPLOYED else 1

    def text(self, amount: float, *, short: bool = False) -> str:
        """Format an amount, counts with suffixes if it must be short: ``79,344`` or ``79.3K``; ``536.0 KiB``."""
        return limit_text(self.attribute, amount) if self.unit or not short else short_count(int(amount))

    def limit(self, budget: Budget | None) -> float | None:
        """Return a budget's limit of it; None without one."""
        return None if budget is None else budget.allowed.get(self.attribute)

    def need(self, spec: ModelSpec, budget: Budget) -> float:
        """Return what a network costs; a latency is that on the budget's device."""
        if self.attribute in DEPLOYED:
            return DEPLOYED[self.attribute].need(spec, budget)
        count: int = getattr(spec.cost, self.attribute)
        return count


COSTS: dict[CostName, CostKind] = {
    "params": CostKind("params", "params", "parameters"),
    "macs": CostKind("macs", "MACs", "MACs"),
    "activations": CostKind("activations", "activations", "activations"),
    "weights": CostKind("weights", "weights", "weights"),
    "peak_memory": CostKind("peak_memory", "peak memory", "peak memory"),
    "latency": CostKind("latency_ms", "latency", "latency"),
}
"""All costs. To add one: a line here and in `CostName`, for a field of `Cost` or a limit of the deployed network."""

WAYS_WITH_COSTS = {"sizing": "scale", "sampler": "tpe", "pruner": "none"}
"""Defaults of a search with several objectives, by field of its config."""


def read_objectives(value: object) -> tuple[str, ...]:
    """Return objectives with accuracy first, from a list of them or a text such as ``accuracy,macs``.

    Raises:
        ValueError: one is unknown or given twice, or accuracy is missing.
    """
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(each, str) for each in entries):
        raise ValueError("must be a list of names")
    names = [name.strip() for each in entries for name in each.split(",")]
    if unknown := [name for name in names if name not in get_args(ObjectiveName)]:
        raise ValueError(f"must be of {', '.join(get_args(ObjectiveName))}, which {unknown[0]} is not")
    if len(set(names)) < len(names):
        raise ValueError("must name each objective once")
    if ACCURACY not in names:
        raise ValueError("must contain accuracy: add it, such as accuracy,macs")
    return ACCURACY, *(name for name in names if name != ACCURACY)


def with_ways(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a search's config that were given, with the defaults for its objectives."""
    try:
        several = len(read_objectives(given.get("objectives", ACCURACY))) > 1
    except ValueError:  # Reported for the field.
        several = False
    return {**WAYS_WITH_COSTS, **given} if several else given


def require_device(costs: Sequence[CostName], *, max_latency_ms: float | None) -> None:
    """Check that a latency to minimise can be predicted.

    Raises:
        InputError: it has no limit, to which the device's file belongs.
    """
    if "latency" in costs and max_latency_ms is None:
        # A limit also rejects networks with operations that the file has no times of.
        raise InputError("objectives", ",".join((ACCURACY, *costs)), "latency needs max_latency_ms and device_file")


def require_ways_with_costs(*, sampler: str, pruner: str) -> None:
    """Check how a search with several objectives proposes and prunes.

    Raises:
        InputError: the sampler or the pruner considers accuracy alone.
    """
    if sampler == "surrogate":
        rule = "models accuracy alone: with several objectives choose tpe, nsga2, gp or random"
        raise InputError("sampler", sampler, rule)
    if pruner != "none":
        # The networks of low cost on a front are less accurate than many others.
        rule = "compares accuracy alone and would stop candidates of low cost: with several objectives must be none"
        raise InputError("pruner", pruner, rule)


def shown_costs(costs: Sequence[CostName]) -> tuple[CostName, ...]:
    """Return the costs that tables and figures show: those that a search minimises, then parameters and MACs."""
    always: tuple[CostName, ...] = ("params", "macs")
    return (*costs, *(name for name in always if name not in costs))


def metric_names(costs: Sequence[CostName]) -> list[str]:
    """Return the names of Optuna's values of a trial: of its accuracy, and of each cost."""
    return [METRIC, *(COSTS[name].words for name in costs)]


def directions(costs: Sequence[CostName]) -> list[Direction]:
    """Return Optuna's directions: the accuracy is maximised, each cost is minimised."""
    each: Direction = "minimize"
    return ["maximize", *(each for _ in costs)]


def values_of(accuracy: float, facts: Mapping[str, Any], costs: Sequence[CostName]) -> list[float]:
    """Return Optuna's values of a trial: its accuracy, and each cost as read from its attributes."""
    return [accuracy, *(float(facts[COSTS[name].attribute]) for name in costs)]


def unlimited_needs(costs: Sequence[CostName], spec: ModelSpec, budget: Budget) -> dict[str, float]:
    """Return the attributes of costs of the deployed network that have no limit, and so are not among its needs."""
    kinds = (COSTS[name] for name in costs)
    return {
        kind.attribute: kind.need(spec, budget)
        for kind in kinds
        if kind.attribute in DEPLOYED and kind.limit(budget) is None
    }


def unbeaten(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the places of the points that are on the Pareto front, every coordinate minimised, in ascending order.

    A point is on it if no other is at most as large in every coordinate; of equal points the first is.
    """
    found: list[int] = []
    # In this order no point is beaten by a later one.
    for place in sorted(range(len(points)), key=lambda place: (tuple(points[place]), place)):
        if not any(_reaches(points[other], points[place]) for other in found):
            found.append(place)
    return sorted(found)


def _reaches(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(here <= there for here, there in zip(one, other, strict=True))
