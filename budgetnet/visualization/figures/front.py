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
from budgetnet.study.objectives import COSTS, CostName
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
    cost: int
    """Parameters, MACs or activations."""
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
        cost: ``params``, ``macs`` or ``activations``.

    Raises:
        InputError: the cost is none of these.
    """
    unbeaten = {trial.number for trial in front(trials, costs=(cost,))}
    rows = [
        FrontRow(
            name=trial.name,
            architecture=trial.architecture,
            cost=getattr(trial, cost),
            accuracy=trial.accuracy,
            interval=None
            if trial.correct is None or trial.images is None
            else wilson_interval(trial.correct, trial.images),
            images=trial.images,
            complete=trial.outcome == "complete",
            on_front=trial.number in unbeaten,
        )
        for trial in trials
        if trial.outcome in ("complete", "pruned") and trial.accuracy is not None
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
        cost: ``params``, ``macs`` or ``activations``.
        budget: budget whose limit on the cost is drawn, if it has one.
        comparable: whether the candidates were evaluated on original CIFAR-10 images, as the published result was; it
            is drawn only then.
        reference: published result. Default: the paper's final network.
        note: text below the title, such as the name of the study.

    Raises:
        InputError: the cost is none of these.
    """
    # Imported here because most figures show no published result.
    from budgetnet.model import published

    reference, words = reference or published.reference(), COSTS[cost].words if cost in COSTS else cost
    rows, limit = front_rows(trials, cost=cost), getattr(budget, f"max_{cost}", None)
    spec = get(reference.known_spec)
    there = spec.cost._asdict()[cost]
    figure = blank_figure(
        title=f"Validation accuracy against {words}",
        note=note,
        alt=_alt(rows, words, limit=limit),
        height=420,
        above=LEGEND_HEIGHT,
    )
    figure.add_traces(list(_traces(rows, words)))
    if comparable:
        figure.add_trace(_published(there, reference, words))
    if limit:
        line = {"color": INK, "width": 1.5, "dash": "dash"}
        figure.add_shape(type="line", x0=limit, x1=limit, y0=0, y1=1, yref="paper", line=line, name="budget")
        # On a logarithmic axis annotations, unlike shapes, are placed by the logarithm.
        # Right of the line, where no candidate is.
        place = {
            "x": math.log10(limit),
            "xanchor": "left",
            "xshift": 1,
            "y": 0.02,
            "yref": "paper",
            "yanchor": "bottom",
        }
        label_style = {"textangle": -90, "showarrow": False, "font": {"size": 12, "color": FAINT}}
        figure.add_annotation(text=f"budget {limit:,}", **place, **label_style)
    # The axis is logarithmic, so that equal ratios have equal distances.
    costs = [*([there] if comparable or not rows else []), *(row.cost for row in rows)]
    ticks = _ticks(min(costs), max(costs))
    figure.update_xaxes(title_text=f"{words} (logarithmic)", type="log", tickformat="~s", **ticks)
    figure.update_yaxes(title_text="validation accuracy, %")
    return figure


def _ticks(low: int, high: int) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis: few enough that labels do not overlap on a narrow screen."""
    # Over several powers of ten, these alone; over less, 1, 2 and 5 times each.
    if high >= _NARROW * low:
        return {"dtick": 1 if high >= _WIDE * low else "D2"}
    # Between nearer costs there are too few of these. A single cost has a tick of its own.
    rough = max(1, high - low) / 4
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    ticks = list(range(low // step * step, high + step, step))
    return {"tickvals": ticks if high > low else [low]}


def _traces(rows: Sequence[FrontRow], words: str) -> Iterable[Any]:
    """Return a trace for each kind of candidate, with its own colour and marker; the front is last, on top."""
    from plotly.graph_objects import Scatter

    kinds: tuple[tuple[str, list[FrontRow], dict[str, Any]], ...] = (
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
    for name, chosen, marker in kinds:
        if not chosen:
            continue
        front_look = {"line": {"color": VERMILLION, "width": 1.5, "shape": "hv"}} if name == "front" else {}
        yield Scatter(
            x=[row.cost for row in chosen],
            y=[100 * row.accuracy for row in chosen],
            mode="lines+markers" if front_look else "markers",
            name=name,
            marker=marker,
            text=[_hover_text(row, words) for row in chosen],
            customdata=[row.name for row in chosen],
            hovertemplate="%{text}<extra></extra>",
            **front_look,
        )


def _hover_text(row: FrontRow, words: str) -> str:
    ends = [percent(end, images=row.images) for end in row.interval or ()]
    interval = f" [{', '.join(ends)}]" if ends else ""
    accuracy = percent(row.accuracy, images=row.images)
    return f"{row.name} {literal(row.architecture)}<br>{row.cost:,} {words}<br>{accuracy} %{interval}"


def _published(cost: int, reference: PublishedResult, words: str) -> Any:
    from plotly.graph_objects import Scatter

    return Scatter(
        x=[cost],
        y=[100 * reference.accuracy],
        mode="markers",
        name=PUBLISHED,
        marker={"symbol": "star", "size": 15, "color": PURPLE, "line": {"width": 1.5, "color": BLACK}},
        hovertemplate=f"{PUBLISHED}<br>{cost:,} {words}<br>{100 * reference.accuracy:.2f} %<extra></extra>",
    )


def _alt(rows: Sequence[FrontRow], words: str, *, limit: int | None) -> str:
    unbeaten = [row for row in rows if row.on_front]
    bound = f" within {limit:,} {words}" if limit else ""
    if not unbeaten:
        return f"No candidate{bound} was trained to its end yet."
    parts = [
        f"{row.name} with {row.cost:,} {words} and {percent(row.accuracy, images=row.images)} %"
        for row in unbeaten[-5:]
    ]
    earlier = "" if len(unbeaten) <= 5 else f"{len(unbeaten) - 5} smaller ones, "
    complete = sum(row.complete for row in rows)
    return f"Of {complete} candidates trained to their end{bound}, the front holds {earlier}{listed(parts)}."
