"""Learning curves of one run or of several seeds, as in the paper's Figures 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import percent
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.records import RunRecord
from budgetnet.visualization.figures.style import BLACK, BLUE, FAINT, LEGEND_HEIGHT, ORANGE, blank_figure, listed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Measure = Literal["accuracy", "loss"]


class Curve(NamedTuple):
    """One measure over the epochs of a run, or its mean over runs."""

    seed: int | None
    """Seed of the run; None for a mean."""
    epochs: tuple[int, ...]
    """Counted from 1."""
    training: tuple[float, ...]
    """Values on the augmented training images during the epoch: accuracies from 0 to 1, losses in nats."""
    validation: tuple[float, ...]
    """Values on the validation images after each epoch, in the same units."""
    best_epoch: int | None
    """Epoch with the lowest validation loss, whose weights were kept."""


class Curves(NamedTuple):
    """One measure of runs that differ only in the seed."""

    measure: Measure
    label: str
    """Name of the network."""
    data: str
    """Description of the training and validation data."""
    images: dict[str, int]
    """Numbers of ``training`` and ``validation`` images."""
    leaks: bool
    """Whether the validation images overlap the training images, which every figure then states."""
    runs: tuple[Curve, ...]
    """Curves by seed."""
    mean: Curve | None
    """Mean over all runs, up to the epoch that all of them reached; None for a single run."""
    restarts: tuple[int, ...]
    """Epochs after which a new learning rate cycle began, in any of the runs."""


def collect_curves(records: RunRecord | Sequence[RunRecord], *, measure: Measure) -> Curves:
    """Return the curves of runs as numbers.

    Args:
        records: a run, or runs that differ in their seed alone.
        measure: ``accuracy`` or ``loss``.

    Raises:
        InputError: no run, runs that differ in more than their seed, or the same run twice.
    """
    runs = [records] if isinstance(records, RunRecord) else sorted(records, key=lambda record: record.identity.seed)
    if not runs:
        raise InputError("runs", [], "must be at least one")
    seeds = [run.identity.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise InputError("runs", seeds, "must have seeds that differ")
    first = runs[0].identity
    for run in runs[1:]:
        if run.identity.digest_without_seed != first.digest_without_seed:
            raise InputError("runs", str(run.folder), f"must differ from {runs[0].folder} in nothing but its seed")
    curves = tuple(_curve(run, measure) for run in runs)
    data = (
        f"{first.data.name}: {first.data.train_images:,} training and {first.data.validation_images:,} validation "
        f"images; recipe {describe_recipe(first.recipe)}"
    )
    restarts = {before.epoch for run in runs for before, after in pairwise(run.curves) if after.cycle > before.cycle}
    mean = _mean(curves) if len(curves) > 1 else None
    images = {"training": first.data.train_images, "validation": first.data.validation_images}
    return Curves(measure, first.spec.label, data, images, first.recipe.leaks, curves, mean, tuple(sorted(restarts)))


def accuracy_curves(records: RunRecord | Sequence[RunRecord], *, note: str | None = None) -> Figure:
    """Draw training and validation accuracy by epoch, in per cent.

    Args:
        records: a run, or runs that differ only in the seed, which are drawn thin together with their mean.
        note: what else has to be known to read the numbers; stands in the subtitle and in the text alternative, as
            it always does that validation images were trained on.

    Raises:
        InputError: as `collect_curves`.
    """
    return _draw(collect_curves(records, measure="accuracy"), note=note)


def loss_curves(records: RunRecord | Sequence[RunRecord], *, note: str | None = None) -> Figure:
    """Draw training and validation loss by epoch, in nats; arguments as for `accuracy_curves`."""
    return _draw(collect_curves(records, measure="loss"), note=note)


def _curve(record: RunRecord, measure: Measure) -> Curve:
    rows = record.curves
    training = [row.train_accuracy if measure == "accuracy" else row.train_loss for row in rows]
    validation = [row.validation_accuracy if measure == "accuracy" else row.validation_loss for row in rows]
    epochs = tuple(row.epoch for row in rows)
    return Curve(record.identity.seed, epochs, tuple(training), tuple(validation), record.result.best_epoch)


def _mean(curves: Sequence[Curve]) -> Curve:
    """Return the mean over the epochs that every run has; beyond, it would jump whenever a run ends."""
    epochs = min((curve.epochs for curve in curves), key=len)
    training = tuple(fmean(values) for values in zip(*(curve.training for curve in curves), strict=False))
    validation = tuple(fmean(values) for values in zip(*(curve.validation for curve in curves), strict=False))
    return Curve(None, epochs, training, validation, None)


_LOOKS: tuple[tuple[Literal["training", "validation"], str, str], ...] = (
    ("training", ORANGE, "dash"),
    ("validation", BLUE, "solid"),
)
_FEW = 20
"""Maximum number of epochs with markers and a label each."""


def _draw(curves: Curves, *, note: str | None) -> Figure:
    seeds = listed([str(curve.seed) for curve in curves.runs])
    what = f"{curves.label}, {'seed' if curves.mean is None else 'seeds'} {seeds}; {curves.data}"
    known = [text for text in (LEAKAGE_WARNING if curves.leaks else None, note) if text]
    figure = blank_figure(
        title=f"Training and validation {curves.measure}",
        note="; ".join([what, *known]),
        alt=f"{'; '.join([describe_course(curves), *known])}.",
        height=400,
        above=LEGEND_HEIGHT,
    )
    few = max(len(curve.epochs) for curve in curves.runs) <= _FEW
    for curve in (*curves.runs, curves.mean) if curves.mean else curves.runs:
        figure.add_traces(_lines(curve, curves, mode="lines+markers" if few else "lines"))
    figure.add_trace(_best(curves))
    for number, restart in enumerate(curves.restarts):
        thin = {"line": {"color": FAINT, "width": 1, "dash": "dot"}, "layer": "below"}
        named = {"name": "end of a cycle", "showlegend": number == 0}
        figure.add_shape(type="line", x0=restart, x1=restart, y0=0, y1=1, yref="paper", **thin, **named)
    figure.update_xaxes(title_text="epoch", **({"dtick": 1} if few else {"rangemode": "tozero"}))
    figure.update_yaxes(title_text="accuracy, %" if curves.measure == "accuracy" else "cross-entropy, nats")
    return figure


def _lines(curve: Curve, curves: Curves, *, mode: str) -> list[Any]:
    """Return the traces of a run or of the mean; one of several runs is thin and not in the legend."""
    from plotly.graph_objects import Scatter

    alone = curves.mean is None
    thin = not alone and curve.seed is not None
    lines = []
    for part, colour, dash in _LOOKS:
        name = part if alone else f"{part}, {'mean' if curve.seed is None else f'seed {curve.seed}'}"
        values: tuple[float, ...] = getattr(curve, part)
        lines.append(
            Scatter(
                x=curve.epochs,
                y=_shown(values, curves.measure),
                mode="lines" if thin else mode,
                line={"color": colour, "width": 1 if thin else 2.5, "dash": dash},
                opacity=0.5 if thin else 1,
                name=name,
                hovertemplate=f"epoch %{{x}}, {name}: %{{y:.4~f}}<extra></extra>",
                showlegend=not thin,
            )
        )
    return lines


def _best(curves: Curves) -> Any:
    """Return a trace of the validation value at each run's best epoch."""
    from plotly.graph_objects import Scatter

    found = [
        (curve.best_epoch, _shown(curve.validation, curves.measure)[curve.best_epoch - 1], curve.seed)
        for curve in curves.runs
        if curve.best_epoch is not None
    ]
    epochs, values, seeds = zip(*found, strict=True) if found else ((), (), ())
    return Scatter(
        x=epochs,
        y=values,
        mode="markers",
        name="best epoch" if len(curves.runs) == 1 else "best epochs",
        marker={"symbol": "star", "size": 13, "color": BLACK, "line": {"color": "#FFFFFF", "width": 1}},
        customdata=seeds,
        hovertemplate="best epoch %{x}, seed %{customdata}: %{y:.4~f}<extra></extra>",
    )


def _shown(values: Sequence[float], measure: Measure) -> list[float | None]:
    """Convert to per cent or nats; values that are not finite become gaps."""
    scale = 100 if measure == "accuracy" else 1
    return [scale * value if math.isfinite(value) else None for value in values]


def describe_course(curves: Curves) -> str:
    """Describe the first, last and best values of the curves in text."""
    main = curves.mean or curves.runs[0]
    subject = f"the mean of {len(curves.runs)} seeds" if curves.mean else f"seed {main.seed}"
    if not main.epochs:
        return f"{curves.label}: no epoch was completed"

    def text_of(value: float, part: str = "validation") -> str:
        accuracy = curves.measure == "accuracy"
        return f"{percent(value, images=curves.images[part])} %" if accuracy else f"{value:.3f} nats"

    course = listed(
        [
            f"{part} {curves.measure} goes from {text_of(values[0], part)} to {text_of(values[-1], part)}"
            for part, values in (("training", main.training), ("validation", main.validation))
        ]
    )
    best = [
        f"epoch {curve.best_epoch} with {text_of(curve.validation[curve.best_epoch - 1])}"
        for curve in curves.runs
        if curve.best_epoch is not None
    ]
    chosen = f"; best by validation loss: {listed(best)} on the validation images" if best else ""
    return f"{curves.label}, {subject}: over {len(main.epochs)} epochs {course}{chosen}"
