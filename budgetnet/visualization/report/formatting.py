"""Facts of a report in words and numbers, as its page shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from budgetnet.common.formatting import duration, percent, short_petaflops
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.runs.records import DataRecord
from budgetnet.statistics.intervals import Interval, exceeds_noise, points
from budgetnet.study.finalists import FinalResult
from budgetnet.visualization.report.content import Environment, Report

LIMIT_WORDS = {"params": "parameters", "macs": "MACs", "activations": "activations"}
_MINUS = "\N{MINUS SIGN}"


def signed(difference: float) -> str:
    """A difference of shares in points, with its sign as print has it."""
    return points(difference).replace("-", _MINUS)


def percent_interval(interval: Interval) -> str:
    """An interval of shares, in per cent."""
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def points_interval(interval: Interval) -> str:
    """An interval of differences, in points."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]"


def whole(number: int) -> str:
    """A count, its thousands parted."""
    return f"{number:,}"


def counted(number: int, thing: str) -> str:
    """So many of a thing: ``1 run``, ``2 runs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def p_value(p: float) -> str:
    """A p-value to three places."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "points": signed,
    "percent_interval": percent_interval,
    "points_interval": points_interval,
    "whole": whole,
    "petaflops": short_petaflops,
    "counted": counted,
    "p_value": p_value,
    "duration": duration,
}
"""What templates write numbers with."""


class VerdictWords(NamedTuple):
    """What a difference to the published result is worth."""

    word: str
    """``beyond noise``, ``within noise`` or ``not comparable``; empty while there is nothing to judge."""
    sentence: str


def budget_words(budget: Budget) -> str:
    """The limits of a budget, as a phrase."""
    limits = {limit: getattr(budget, f"max_{limit}") for limit in LIMITS}
    parts = [f"{allowed:,} {LIMIT_WORDS[limit]}" for limit, allowed in limits.items() if allowed is not None]
    return f"at most {', '.join(parts)}" if parts else "no limit"


def data_words(data: DataRecord) -> str:
    """What was trained and judged on: name, origin, numbers of images."""
    images = f"{data.train_images:,} training and {data.validation_images:,} validation images"
    return f"{data.name}: {data.provenance}; {images}"


def outcome_text(counts: Mapping[str, int]) -> str:
    """Return the number of trials with each outcome, as a sentence."""
    others = {"in training": "running", "interrupted": "interrupted", "skipped": "skipped"}
    rest = "".join(f", {counts[key]:,} {words}" for words, key in others.items() if counts[key])
    return (
        f"{counts['proposed']:,} proposed, {counts['trained']:,} trained, {counts['pruned']:,} of them pruned at a "
        f"restart; {counts['over_budget']:,} rejected over budget before training, {counts['duplicate']:,} "
        f"duplicates, {counts['no_result']:,} without a result{rest}"
    )


def verdict_words(report: Report) -> VerdictWords:
    """How the best candidate stands to the published result."""
    best, published = report.best, report.published
    if best is None:
        return VerdictWords(
            "", "No candidate was trained to its end yet, so there is nothing to set beside the reference."
        )
    reference = f"the published {percent(published.accuracy)}\N{NO-BREAK SPACE}%"
    if not report.comparable:
        return VerdictWords(
            "not comparable",
            f"The images are not the original CIFAR-10 but {report.settings.data.name}: {reference} says nothing about "
            "this network.",
        )
    row = best.row
    side = "above" if row.gap > 0 else "below"
    return VerdictWords(
        row.verdict,
        f"{signed(row.gap)} points {points_interval(row.gap_interval)}: {side} {reference}, {row.verdict} at 95 % for "
        "all candidates together; on validation images, which also chose the run's best epoch.",
    )


def final_verdict(result: FinalResult, *, comparable: bool) -> VerdictWords:
    """How a finalist's test accuracy stands to the published result."""
    gap = result.gap
    if gap is None:
        return VerdictWords("", "not judged yet")
    if not comparable:
        return VerdictWords("not comparable", "other images than the published result's")
    difference, interval = gap
    word = "beyond noise" if exceeds_noise(interval) else "within noise"
    return VerdictWords(word, f"{signed(difference)} {points_interval(interval)}")


class EnvironmentWords(NamedTuple):
    """An environment as a row."""

    runs: int
    hardware: str
    system: str
    packages: str
    others: str
    """What else was written down."""


def environment_words(environment: Environment) -> EnvironmentWords:
    """Hardware, system and versions, whatever of them was written down."""
    facts = dict(environment.facts)
    processor, cores, threads = (facts.pop(key, "unknown") for key in ("processor", "cores", "threads"))
    hardware = [f"{processor}, cores: {cores}, threads: {threads}"]
    gpu, device = facts.pop("gpu", None), facts.pop("device", "unknown")
    if isinstance(gpu, dict):
        hardware.append(_listed(gpu))
    hardware.append(f"trained on {device}")
    python, system = facts.pop("python", "unknown"), facts.pop("platform", "unknown")
    packages = facts.pop("packages", {})
    return EnvironmentWords(
        environment.runs, "; ".join(hardware), f"Python {python}, {system}", _listed(packages), _listed(facts)
    )


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_listed(each)}" for key, each in value.items())
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
