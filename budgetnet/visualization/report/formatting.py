"""Text and number formatting of reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from budgetnet.common.formatting import count_of, duration, percent, short_petaflops
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.runs.records import DataRecord
from budgetnet.statistics.intervals import Interval, exceeds_noise, points
from budgetnet.study.finalists import FinalResult
from budgetnet.visualization.report.content import Environment, Report

LIMIT_NAMES = {"params": "parameters", "macs": "MACs", "activations": "activations"}
_MINUS = "\N{MINUS SIGN}"


def signed(difference: float) -> str:
    """Format a difference in points with a typographic minus sign."""
    return points(difference).replace("-", _MINUS)


def percent_interval(interval: Interval) -> str:
    """Format an interval in per cent."""
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def points_interval(interval: Interval) -> str:
    """Format an interval of differences in points."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]"


def whole(number: int) -> str:
    """Format a whole number with thousands separators."""
    return f"{number:,}"


def p_value(p: float) -> str:
    """Format a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "points": signed,
    "percent_interval": percent_interval,
    "points_interval": points_interval,
    "whole": whole,
    "petaflops": short_petaflops,
    "counted": count_of,
    "p_value": p_value,
    "duration": duration,
}
"""Filters of the templates."""


class VerdictText(NamedTuple):
    """Verdict on a difference to the published result."""

    word: str
    """``beyond noise``, ``within noise`` or ``not comparable``; empty without a result."""
    sentence: str


def budget_text(budget: Budget) -> str:
    """Return the limits of a budget as text."""
    limits = {limit: getattr(budget, f"max_{limit}") for limit in LIMITS}
    parts = [f"{allowed:,} {LIMIT_NAMES[limit]}" for limit, allowed in limits.items() if allowed is not None]
    return f"at most {', '.join(parts)}" if parts else "no limit"


def data_text(data: DataRecord) -> str:
    """Return name, origin and numbers of images of a data set as text."""
    images = f"{data.train_images:,} training and {data.validation_images:,} validation images"
    return f"{data.name}: {data.provenance}; {images}"


def outcome_text(counts: Mapping[str, int]) -> str:
    """Return the number of candidates by outcome as one sentence."""
    others = {"in training": "running", "interrupted": "interrupted", "trained by another worker": "skipped"}
    rest = "".join(f", {counts[key]:,} {words}" for words, key in others.items() if counts[key])
    return (
        f"{counts['proposed']:,} proposed, {counts['trained']:,} trained, {counts['pruned']:,} of them pruned at a "
        f"restart; {counts['over_budget']:,} rejected before training (over budget), {counts['duplicate']:,} "
        f"duplicates, {counts['no_result']:,} without a result{rest}"
    )


def verdict_text(report: Report) -> VerdictText:
    """Compare the best candidate with the published result."""
    best, published = report.best, report.published
    if best is None:
        return VerdictText("", "No candidate is fully trained yet, so there is nothing to compare with the reference.")
    reference = f"the published {percent(published.accuracy)}\N{NO-BREAK SPACE}%"
    if not report.comparable:
        return VerdictText(
            "not comparable",
            f"The images are not the original CIFAR-10 but {report.settings.data.name}, so this network cannot be "
            f"compared with {reference}.",
        )
    row = best.row
    side = "above" if row.gap > 0 else "below"
    return VerdictText(
        row.verdict,
        f"{signed(row.gap)} points {points_interval(row.gap_interval)}: {side} {reference}, {row.verdict} at the 95 % "
        "level, corrected over all candidates; on validation images, which also selected the run's best epoch.",
    )


def final_verdict(result: FinalResult, *, comparable: bool) -> VerdictText:
    """Compare a finalist's test accuracy with the published result."""
    gap = result.gap
    if gap is None:
        return VerdictText("", "not evaluated yet")
    if not comparable:
        return VerdictText("not comparable", "other images than the published result's")
    difference, interval = gap
    word = "beyond noise" if exceeds_noise(interval) else "within noise"
    return VerdictText(word, f"{signed(difference)} {points_interval(interval)}")


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
