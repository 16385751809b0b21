"""Accuracy against cost: the candidates of a study by parameters or MACs, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.common.formatting import percent
from budgetnet.model.budget import Budget
from budgetnet.model.published import PublishedResult
from budgetnet.model.zoo import get
from budgetnet.statistics.intervals import Interval, wilson_interval
from budgetnet.study.leaderboard import PUBLISHED
from budgetnet.study.objectives import COSTS, CostKind, CostName
from budgetnet.study.trials import Trial, front
from budgetnet.visualization.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    INK,
    LEGEND_HEIGHT,
    PURPLE,
    VERMILLION,
    blank_figure,
    listed,
    literal,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_NARROW = 5
"""Ratio of the largest to the smallest cost below which ticks have equal steps."""
_WIDE = 200
"""Ratio of the largest to the smallest cost from which only powers of ten are labelled on the axis."""


class FrontRow(NamedTuple):
    """A candidate with its accuracy and cost."""

    name: str
    """``#12``."""
    architecture: str
    cost: float
    """Parameters, bytes, milliseconds or another cost."""
    accuracy: float
    """Validation accuracy, from 0 to 1."""
    interval: Interval | None
    """95 % Wilson interval of the accuracy; None if the number of images is unknown."""
    images: int | None
    """Number of images that the accuracy is measured on; None if unknown."""
    complete: bool
    """Whether it is fully trained; otherwise it was pruned, and the accuracy is that of the last report."""
    on_front: bool
    """Whether it is on the Pareto front: no other is more accurate at the same or lower cost."""


def front_rows(trials: Sequence[Trial], *, cost: CostName = "params") -> list[FrontRow]:
    """Return the trained candidates of a study by cost, cheapest first.

    Args:
        trials: trials of one study.
        cost: one of `budgetnet.study.objectives.COSTS`.

    Raises:
        InputError: the cost is none of these, or the trials do not have it.
    """
    unbeaten = {trial.number for trial in front(trials, costs=(cost,))}
    rows = [
        FrontRow(
            name=trial.name,
            architecture=trial.architecture,
            cost=amount,
            accuracy=trial.accuracy,
            interval=None
            if trial.correct is None or trial.images is None
            else wilson_interval(trial.correct, trial.images),
            images=trial.images,
            complete=trial.outcome == "complete",
            on_front=trial.number in unbeaten,
        )
        for trial in trials
        if trial.outcome in ("complete", "pruned")
        and trial.accuracy is not None
        and (amount := trial.amount(cost)) is not None
    ]
    return sorted(rows, key=lambda row: (row.cost, -row.accuracy))


def accuracy_front(
    trials: Sequence[Trial],
    *,
    cost: CostName = "params",
    budget: Budget | None = None,
    comparable: bool = False,
    reference: PublishedResult | None = None,
    note: str = "",
) -> Figure:
    """Draw validation accuracy against cost, with the Pareto front and the budget's limit.

    Args:
        trials: trials of one study.
        cost: one of `budgetnet.study.objectives.COSTS`.
        budget: budget whose limit on the cost is drawn, if it has one.
        comparable: whether the candidates were evaluated on original CIFAR-10 images, as the published result was; it
            is drawn only then.
        reference: published result. Default: the paper's final network.
        note: text below the title, such as the name of the study.

    Raises:
        InputError: the cost is none of these, or the trials do not have it.
    """
    # Imported here because most figures show no published result.
    from budgetnet.model import published

    rows, kind, reference = front_rows(trials, cost=cost), COSTS[cost], reference or published.reference()
    limit = kind.limit(budget)
    # A latency would need the device's file, which pages are made without.
    there = None if cost == "latency" else kind.need(get(reference.known_spec), budget or Budget())
    figure = blank_figure(
        title=f"Validation accuracy against {kind.words}",
        note=note,
        alt=_alt(rows, kind, limit=limit),
        height=420,
        above=LEGEND_HEIGHT,
    )
    figure.add_traces(list(_traces(rows, kind)))
    if comparable and there is not None:
        figure.add_trace(_published(there, reference, kind))
    if limit:
        at = limit / kind.scale
        line = {"color": INK, "width": 1.5, "dash": "dash"}
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line=line, name="budget")
        # On a logarithmic axis annotations, unlike shapes, are placed by the logarithm.
        # Right of the line, where no candidate is.
        place = {
            "x": math.log10(at),
            "xanchor": "left",
            "xshift": 1,
            "y": 0.02,
            "yref": "paper",
            "yanchor": "bottom",
        }
        label_style = {"textangle": -90, "showarrow": False, "font": {"size": 12, "color": FAINT}}
        figure.add_annotation(text=f"budget {kind.text(limit)}", **place, **label_style)
    # The axis is logarithmic, so that equal ratios have equal distances.
    shown = [there] if there is not None and (comparable or not rows) else []
    costs = [each / kind.scale for each in (*shown, *(row.cost for row in rows))] or [1.0]
    ticks = _ticks(min(costs), max(costs), least=0 if kind.unit else 1)
    words, format_ = (f"{kind.words}, {kind.unit}", ",") if kind.unit else (kind.words, "~s")
    figure.update_xaxes(title_text=f"{words} (logarithmic)", type="log", tickformat=format_, **ticks)
    figure.update_yaxes(title_text="validation accuracy, %")
    return figure


def _ticks(low: float, high: float, *, least: float) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis: few enough that labels do not overlap on a narrow screen.

    Args:
        low: the lowest number that is shown, above 0.
        high: the highest.
        least: the smallest step between ticks.
    """
    # Over several powers of ten, these alone; over less, 1, 2 and 5 times each.
    if high >= _NARROW * low:
        return {"dtick": 1 if high >= _WIDE * low else "D2"}
    # Between nearer costs there are too few of these. A single cost has a tick of its own.
    if high <= low:
        return {"tickvals": [low]}
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))
    first = int(low // step)
    return {"tickvals": [place * step for place in range(first, math.ceil(high / step) + 1)]}


def _traces(rows: Sequence[FrontRow], kind: CostKind) -> Iterable[Any]:
    """Return a trace for each kind of candidate, with its own colour and marker; the front is last, on top."""
    from plotly.graph_objects import Scatter

    looks: tuple[tuple[str, list[FrontRow], dict[str, Any]], ...] = (
        (
            "pruned at the end of a cycle",
            [row for row in rows if not row.complete],
            {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": FAINT}},
        ),
        (
            "fully trained",
            [row for row in rows if row.complete and not row.on_front],
            {"symbol": "circle", "size": 9, "color": BLUE},
        ),
        (
            "front",
            [row for row in rows if row.on_front],
            {"symbol": "diamond", "size": 11, "color": VERMILLION},
        ),
    )
    for name, chosen, marker in looks:
        if not chosen:
            continue
        front_look = {"line": {"color": VERMILLION, "width": 1.5, "shape": "hv"}} if name == "front" else {}
        yield Scatter(
            x=[row.cost / kind.scale for row in chosen],
            y=[100 * row.accuracy for row in chosen],
            mode="lines+markers" if front_look else "markers",
            name=name,
            marker=marker,
            text=[_hover_text(row, kind) for row in chosen],
            customdata=[row.name for row in chosen],
            hovertemplate="%{text}<extra></extra>",
            **front_look,
        )


def _hover_text(row: FrontRow, kind: CostKind) -> str:
    ends = [percent(end, images=row.images) for end in row.interval or ()]
    interval = f" [{', '.join(ends)}]" if ends else ""
    accuracy = percent(row.accuracy, images=row.images)
    return f"{row.name} {literal(row.architecture)}<br>{kind.text(row.cost)} {kind.words}<br>{accuracy} %{interval}"


def _published(cost: float, reference: PublishedResult, kind: CostKind) -> Any:
    from plotly.graph_objects import Scatter

    return Scatter(
        x=[cost / kind.scale],
        y=[100 * reference.accuracy],
        mode="markers",
        name=PUBLISHED,
        marker={"symbol": "star", "size": 15, "color": PURPLE, "line": {"width": 1.5, "color": BLACK}},
        hovertemplate=f"{PUBLISHED}<br>{kind.text(cost)} {kind.words}<br>"
        f"{100 * reference.accuracy:.2f} %<extra></extra>",
    )


def _alt(rows: Sequence[FrontRow], kind: CostKind, *, limit: float | None) -> str:
    unbeaten = [row for row in rows if row.on_front]
    bound = f" within {kind.text(limit)} {kind.words}" if limit else ""
    if not unbeaten:
        return f"No candidate{bound} was trained to its end yet."
    parts = [
        f"{row.name} with {kind.text(row.cost)} {kind.words} and {percent(row.accuracy, images=row.images)} %"
        for row in unbeaten[-5:]
    ]
    earlier = "" if len(unbeaten) <= 5 else f"{len(unbeaten) - 5} smaller ones, "
    complete = sum(row.complete for row in rows)
    return f"Of {complete} candidates trained to their end{bound}, the front holds {earlier}{listed(parts)}."
