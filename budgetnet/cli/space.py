"""The ``budgetnet space`` command: parameters of a search space, its size, and the share within a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from budgetnet.cli.options import (
    Classes,
    DeviceFileOption,
    ImagesOf,
    InputShape,
    Json,
    MaxActivations,
    MaxLatency,
    MaxMacs,
    MaxParams,
    MaxPeakMemory,
    MaxWeights,
    Seed,
    SpaceArgument,
    WeightPrecision,
    print_json,
)
from budgetnet.cli.parsing import image_of, read_budget, read_image, read_space
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from budgetnet.model.budget import Budget
    from budgetnet.study.space import SearchSpace
    from budgetnet.study.space.feasibility import ShareWithin


def space(
    space: SpaceArgument = "resnet",
    max_params: MaxParams = None,
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    max_weights: MaxWeights = None,
    weight_precision: WeightPrecision = "float32",
    max_peak_memory: MaxPeakMemory = None,
    max_latency_ms: MaxLatency = None,
    device_file: DeviceFileOption = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    data: ImagesOf = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Print a search space, its size, and the share that fits a budget; exit code 3 if nothing fits."""
    candidates = read_space(space)
    budget = read_budget(
        max_params=max_params,
        max_macs=max_macs,
        max_activations=max_activations,
        max_weights=max_weights,
        weight_precision=weight_precision,
        max_peak_memory=max_peak_memory,
        max_latency_ms=max_latency_ms,
        device_file=device_file,
    )
    if data is not None and (input_shape or classes):
        given = "--input-shape" if input_shape else "--classes"
        raise InputError(given, input_shape or classes, "must not be given with --data, which has its own")
    image = read_image(input_shape, classes) if data is None else image_of(data)
    from budgetnet.study.space.feasibility import require_feasible, share_within, smallest_networks

    # A search fits widths to the budget by default, also below those of the space.
    require_feasible(candidates, budget, fitted=bool(budget.allowed), **image)
    least = smallest_networks(candidates, budget, **image)
    share = share_within(candidates, budget, **image, seed=seed) if budget.allowed else None
    if as_json:
        print_json(
            {
                "space": candidates.to_mapping(),
                **image,
                "parameters": _parameters(candidates),
                "size": candidates.size,
                "smallest": {
                    measure: {"architecture": spec.label, **spec.cost._asdict(), **budget.needs(spec)}
                    for measure, spec in least.items()
                },
                "budget": budget.to_mapping(),
                "within": None if share is None else {**share._asdict(), "share": share.share},
            }
        )
        return
    from rich.table import Table

    from budgetnet.cli.tables import console, image_line
    from budgetnet.model.deployed.limits import limit_text, limit_words
    from budgetnet.study.space.named import describe_space

    table = Table(title=f"search space {describe_space(candidates)}", title_justify="left")
    for heading in ("parameter", "values", "choices", "sampled for"):
        table.add_column(heading, justify="right" if heading == "choices" else "left", overflow="fold")
    for row in _rows(_parameters(candidates)):
        table.add_row(*row)
    output = console()
    output.print(table)
    suffix = ", recipe values not counted" if candidates.recipe else ""
    output.print(f"{candidates.size:,} combinations of the network's parameters{suffix}")
    if data is not None:
        output.print(image_line(data, **image))
    for measure, spec in least.items():
        used = (spec.cost._asdict() | budget.needs(spec))[measure]
        least_or_fewest = "least" if measure in budget.deployed else "fewest"
        output.print(f"{least_or_fewest} {limit_words(measure)}: {limit_text(measure, used)}, by {spec.label}")
    if share is not None:
        output.print(_share_line(share, budget))
        if not all(budget.only(measure).admits(spec) for measure, spec in least.items()):
            output.print("none has widths of the space: only networks with fitted widths fit (--sizing fit or scale)")


def _parameters(space: SearchSpace) -> list[dict[str, Any]]:
    """Return every parameter as plain data, with the sizings that sample it."""
    from budgetnet.study.space import Sizing

    proposed = {sizing: space.proposed(sizing) for sizing in get_args(Sizing)}
    everything: dict[str, BaseDistribution] = {}
    for distributions in proposed.values():
        everything |= distributions
    # In the order of the space, then the parameters that only `scale` samples.
    ordered = [*space.distributions, *(name for name in everything if name not in space.distributions)]
    return [
        {
            "name": name,
            **_described(everything[name]),
            "sizings": [sizing for sizing, distributions in proposed.items() if name in distributions],
        }
        for name in ordered
    ]


def _described(where: BaseDistribution) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(where, CategoricalDistribution):
        return {"choices": list(where.choices), "count": len(where.choices)}
    assert isinstance(where, (IntDistribution, FloatDistribution))  # noqa: S101 - tells the type
    described = {"low": where.low, "high": where.high, "step": where.step, "log": where.log}
    count = None if isinstance(where, FloatDistribution) else (where.high - where.low) // where.step + 1
    return {**described, "count": count}


def _rows(parameters: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return a row for each parameter; parameters that differ only in the stage number share a row."""
    numbers: dict[tuple[str, str, str, str], list[str]] = {}
    for parameter in parameters:
        stem, _, number = parameter["name"].rpartition("_")
        count, sizings = parameter["count"], parameter["sizings"]
        choices = "continuous" if count is None else f"{count:,}"
        sampled_for = "all" if len(sizings) == 3 else ", ".join(sizings)
        name = stem if number.isdigit() else parameter["name"]
        row = (name, _values(parameter), choices, sampled_for)
        numbers.setdefault(row, []).extend([number] if number.isdigit() else [])
    return [
        (f"{name}_{stages[0]} to {stages[-1]}", values, f"{choices} each", sampled_for)
        if len(stages) > 1
        else ("_".join([name, *stages]), values, choices, sampled_for)
        for (name, values, choices, sampled_for), stages in numbers.items()
    ]


def _values(parameter: dict[str, Any]) -> str:
    if "choices" in parameter:
        return ", ".join(_choice_text(choice) for choice in parameter["choices"])
    low, high, step = parameter["low"], parameter["high"], parameter["step"]
    by = f" by {step}" if step not in (None, 1) else ""
    return f"{low:g} to {high:g}{by}{', log' if parameter['log'] else ''}"


def _choice_text(choice: Any) -> str:
    return {True: "yes", False: "no"}[choice] if isinstance(choice, bool) else "none" if choice is None else str(choice)


def _share_line(share: ShareWithin, budget: Budget) -> str:
    from budgetnet.common.formatting import percent
    from budgetnet.statistics.intervals import format_with_interval

    if share.interval is None:
        shown, counted = percent(share.share), f"{share.within:,} of all combinations, enumerated"
    else:
        shown, counted = (
            format_with_interval(share.share, share.interval),
            f"{share.samples:,} samples, 95 % interval",
        )
    return f"at most {budget.in_words()}: {shown} % of combinations\n({counted}; widths sampled, as with sizing reject)"
