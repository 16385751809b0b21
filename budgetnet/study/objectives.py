"""Objectives of a search: accuracy, and what is minimised beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from budgetnet.common.errors import InputError

CostName = Literal["params", "macs", "activations"]
"""Costs that a search can minimise: the names of fields of `Trial` and of attributes of Optuna's trials."""
ObjectiveName = Literal["accuracy", CostName]

Direction = Literal["maximize", "minimize"]

ACCURACY: Final = "accuracy"
METRIC = "validation accuracy"
"""Name of the accuracy, in the dashboard and in Optuna's plots."""


class CostWords(NamedTuple):
    """How a cost is named."""

    heading: str
    """In tables."""
    words: str
    """In sentences and figures, and in Optuna's plots."""


COSTS: dict[CostName, CostWords] = {
    "params": CostWords("params", "parameters"),
    "macs": CostWords("MACs", "MACs"),
    "activations": CostWords("activations", "activations"),
}
"""All costs. To add one: a line here and in `CostName`, and the field of `Trial` with the attribute that it is read
from."""

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
    return [accuracy, *(float(facts[name]) for name in costs)]


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
