"""Text and number formatting of reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from budgetnet.common.formatting import count_of, duration, percent, short_p_value, short_petaflops
from budgetnet.experiments.ablation.winner import conclusion
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.records import DataRecord
from budgetnet.statistics.intervals import Interval, points
from budgetnet.study.finalists import FinalGap
from budgetnet.study.leaderboard import noise_word
from budgetnet.study.objectives import COSTS, CostName, shown_costs
from budgetnet.study.space.named import describe_space
from budgetnet.study.trials import Trial
from budgetnet.visualization.published import stated_accuracy
from budgetnet.visualization.report.content import Environment, Report

LIMIT_NAMES = {"params": "parameters", "macs": "MACs", "activations": "activations"}
_MINUS = "\N{MINUS SIGN}"


def signed(difference: float) -> str:
    """Format a difference in points with a typographic minus sign."""
    return points(difference).replace("-", _MINUS)


def percent_interval(interval: Interval, *, images: int | None = None) -> str:
    """Format an interval in per cent, with the decimals of `percent`."""
    return f"[{percent(interval.low, images=images)}, {percent(interval.high, images=images)}]"


def points_interval(interval: Interval) -> str:
    """Format an interval of differences in points."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]"


def whole(number: int) -> str:
    """Format a whole number with thousands separators."""
    return f"{number:,}"


def limit_heading(limit: str) -> str:
    """Return the heading of a column of what a limit of the deployed network is on: ``peak memory, KiB``."""
    return f"{DEPLOYED[limit].words}, {DEPLOYED[limit].unit}"


def limit_number(limit: str, number: float) -> str:
    """Format a number of such a column."""
    return f"{number / DEPLOYED[limit].scale:,.1f}"


def anchor(name: str) -> str:
    """Return the id of a candidate's table row, to which its points in figures are links."""
    return f"candidate-{name.removeprefix('#')}"


FILTERS: dict[str, Callable[..., str]] = {
    "anchor": anchor,
    "percent": percent,
    "points": signed,
    "percent_interval": percent_interval,
    "points_interval": points_interval,
    "whole": whole,
    "petaflops": short_petaflops,
    "recipe": describe_recipe,
    "space": describe_space,
    "counted": count_of,
    "p_value": short_p_value,
    "duration": duration,
    "limit_heading": limit_heading,
    "limit_number": limit_number,
    "conclusion": conclusion,
    "stated_accuracy": stated_accuracy,
    "noise": lambda row: noise_word(row.exceeds_noise),
}
"""Filters of the templates."""


class VerdictText(NamedTuple):
    """Verdict on a difference of test accuracies."""

    word: str
    """``beyond noise`` or ``within noise``; empty if there is nothing to compare."""
    sentence: str


def budget_text(budget: Budget) -> str:
    """Return the limits of a budget as text."""
    return f"at most {budget.in_words(LIMIT_NAMES)}" if budget.allowed else "no limit"


def data_text(data: DataRecord) -> str:
    """Return name, origin and numbers of images of a data set as text."""
    images = f"{data.train_images:,} training and {data.validation_images:,} validation images"
    return f"{data.name}: {data.provenance}; {images}"


def objectives_text(costs: Sequence[CostName]) -> str:
    """Return the objectives of a search as text; empty if accuracy is the only one."""
    return " and ".join(["accuracy", *(COSTS[name].words for name in costs)]) if costs else ""


class FrontRowText(NamedTuple):
    """A candidate on the front of all objectives."""

    name: str
    architecture: str
    accuracy: float
    interval: Interval
    images: int
    costs: list[str]
    """Numbers in the units of the headings."""


class FrontText(NamedTuple):
    """The front of a search's objectives as a table."""

    headings: list[str]
    """Heading of each cost."""
    rows: list[FrontRowText]


def front_text(report: Report) -> FrontText:
    """Return the front of all objectives, without rows if accuracy is the only one."""
    costs = report.settings.config.costs
    shown = shown_costs(costs)
    on_front = {standing.row.name: standing.row for standing in report.standings if standing.row.on_front}
    found = sorted(
        (trial for trial in report.trials if trial.name in on_front),
        key=lambda trial: tuple(trial.amount(name) or 0.0 for name in costs),
    )
    rows = [
        FrontRowText(
            name=trial.name,
            architecture=trial.architecture,
            accuracy=on_front[trial.name].accuracy,
            interval=on_front[trial.name].interval,
            images=on_front[trial.name].images,
            costs=[_cost_text(trial, name) for name in shown],
        )
        for trial in found
    ]
    headings = (COSTS[name].heading + (f", {COSTS[name].unit}" if COSTS[name].unit else "") for name in shown)
    return FrontText(list(headings), rows)


def _cost_text(trial: Trial, name: CostName) -> str:
    amount, kind = trial.amount(name) or 0, COSTS[name]
    return limit_number(kind.attribute, amount) if kind.unit else whole(int(amount))


def verdict_text(report: Report) -> VerdictText | None:
    """Compare the recommended network with the published result; None on other data than original CIFAR-10.

    Only test accuracies are compared in a verdict: a validation accuracy selected the network.
    """
    best, published = report.best, report.published
    if published is None:
        return None
    reference = f"the published {percent(published.accuracy)}\N{NO-BREAK SPACE}%"
    if best is None:
        return VerdictText("", f"No candidate is fully trained yet, so there is nothing to compare with {reference}.")
    gap = report.final_gaps[0] if best.finalist else None
    if gap is not None:
        side = "above" if gap.difference > 0 else "below"
        difference = f"{signed(gap.difference)} points {points_interval(gap.interval)}"
        return VerdictText(
            noise_verdict(gap), f"Test accuracy {difference}: {side} {reference}, at the 95 % level over all finalists."
        )
    distance = best.accuracy - published.accuracy
    side = "above" if distance > 0 else "below"
    return VerdictText(
        "",
        f"Its validation accuracy is {100 * abs(distance):.2f} points {side} {reference}, which is a test accuracy; "
        "finalists are evaluated on the test set.",
    )


def noise_verdict(gap: FinalGap) -> str:
    """Return whether a gap is beyond or within noise."""
    return "beyond noise" if gap.exceeds_noise else "within noise"


def final_verdict(gap: FinalGap | None, *, tested: bool) -> VerdictText:
    """Return a finalist's gap as text.

    Args:
        gap: the gap; None for the finalist that others are compared with.
        tested: whether the finalist was evaluated on the test set.
    """
    if gap is None:
        return VerdictText("", "the others are compared with it" if tested else "not evaluated yet")
    return VerdictText(noise_verdict(gap), f"{signed(gap.difference)} {points_interval(gap.interval)}")


class EnvironmentText(NamedTuple):
    """An environment as a row of text."""

    runs: int
    hardware: str
    system: str
    packages: str
    others: str
    """Other facts."""


def environment_text(environment: Environment) -> EnvironmentText:
    """Return hardware, system and versions of an environment as text."""
    facts = dict(environment.facts)
    processor, cores, threads = (facts.pop(key, "unknown") for key in ("processor", "cores", "threads"))
    hardware = [f"{processor}, cores: {cores}, threads: {threads}"]
    gpu, device = facts.pop("gpu", None), facts.pop("device", "unknown")
    if isinstance(gpu, dict):
        hardware.append(_listed(gpu))
    hardware.append(f"trained on {device}")
    python, system = facts.pop("python", "unknown"), facts.pop("platform", "unknown")
    packages = facts.pop("packages", {})
    return EnvironmentText(
        environment.runs, "; ".join(hardware), f"Python {python}, {system}", _listed(packages), _listed(facts)
    )


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_listed(each)}" for key, each in value.items())
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
