"""Hypervolume of a search's front, by the number of its complete trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.model.budget import Budget
from budgetnet.study.objectives import COSTS, CostName, directions
from budgetnet.study.trials import Trial
from budgetnet.visualization.figures.style import BLUE, blank_figure, listed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class HypervolumeRow(NamedTuple):
    """Hypervolume after a complete trial."""

    name: str
    """``#12``."""
    share: float
    """Hypervolume of the front of all trials up to this one, as a share of the reference volume, from 0 to 1."""


class Hypervolume(NamedTuple):
    """Hypervolume by trial."""

    rows: tuple[HypervolumeRow, ...]
    reference: dict[CostName, float]
    """Cost of the reference point, whose accuracy is 0: the budget's limit, or the highest of a complete trial."""


def hypervolume_rows(trials: Sequence[Trial], *, costs: Sequence[CostName], budget: Budget) -> Hypervolume:
    """Return the hypervolume of accuracy and costs after each complete trial, as Optuna computes it.

    Args:
        trials: trials of one study.
        costs: costs that the study minimises beside accuracy.
        budget: budget of the study.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    complete = [trial for trial in trials if trial.outcome == "complete" and trial.accuracy is not None]
    columns = {name: [trial.amount(name) or 0.0 for trial in complete] for name in costs}
    if not complete:
        return Hypervolume((), {})
    reference = {name: COSTS[name].limit(budget) or max(column) or 1 for name, column in columns.items()}
    # A copy in memory, whose costs are shares of the reference point's, so that its volume is 1.
    mirror = optuna.create_study(directions=directions(costs))
    for place, trial in enumerate(complete):
        shares = (columns[name][place] / reference[name] for name in costs)
        mirror.add_trial(optuna.trial.create_trial(values=[trial.accuracy or 0.0, *shares]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        drawn = optuna.visualization.plot_hypervolume_history(mirror, [0.0, *(1.0 for _ in costs)])
    found = zip(complete, drawn.data[0].y, strict=True)
    return Hypervolume(tuple(HypervolumeRow(trial.name, float(share)) for trial, share in found), reference)


def hypervolume(trials: Sequence[Trial], *, costs: Sequence[CostName], budget: Budget, note: str = "") -> Figure:
    """Draw the hypervolume of the front by trial.

    Args:
        trials: trials of one study.
        costs: costs that the study minimises beside accuracy.
        budget: budget of the study.
        note: text below the title, such as the name of the study.
    """
    from plotly.graph_objects import Scatter

    found = hypervolume_rows(trials, costs=costs, budget=budget)
    figure = blank_figure(title="Hypervolume of the front", note=note, alt=_alt(found), height=320)
    figure.add_trace(
        Scatter(
            x=[row.name for row in found.rows],
            y=[100 * row.share for row in found.rows],
            mode="lines+markers",
            line={"color": BLUE, "width": 1.5, "shape": "hv"},
            hovertemplate="up to %{x}: %{y:.1f} %<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title_text="complete trials", type="category", nticks=10)
    figure.update_yaxes(title_text="hypervolume, %", rangemode="tozero")
    return figure


def _alt(found: Hypervolume) -> str:
    if not found.rows:
        return "No candidate was trained to its end yet."
    corner = listed([f"{COSTS[name].text(allowed)} {COSTS[name].words}" for name, allowed in found.reference.items()])
    return (
        f"After {len(found.rows)} complete trials the front covers {100 * found.rows[-1].share:.1f} % of the volume "
        f"between an accuracy of 0 % with {corner}, and 100 % without cost."
    )
