"""What the tests of figures share: a run of a study, runs made by hand, rows of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgetnet.runs.records import Epoch, RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.visualization.figures import ForestRow

RUNS = Path(__file__).parents[1] / "studies" / "cifar10-cpu" / "runs"
RUN = sorted(RUNS.iterdir())[0]
HOSTILE = "<script>alert('1')</script>&amp;\"</figure>"


def curved(*, seed: int, losses: list[tuple[float, float]], cycles: list[int], best: int | None) -> RunRecord:
    """A run with these training and validation losses."""
    record = RunFolder(RUN).load(weights=False)
    curves = [
        Epoch(number, cycle, 0.1, training, 0.5, validation, 0.5, 1.0)
        for number, (cycle, (training, validation)) in enumerate(zip(cycles, losses, strict=True), 1)
    ]
    return record._replace(
        identity=record.identity.model_copy(update={"seed": seed}),
        result=record.result.model_copy(update={"best_epoch": best}),
        curves=tuple(curves),
    )


def forest_rows() -> list[ForestRow]:
    """Rows of every kind: beyond noise, within it, not judged, and without interval or result."""
    return [
        ForestRow("no cutout", 5, -0.0125, -0.02, -0.005, True, 4_662_346, ""),
        ForestRow("wide", 5, 0.0075, 0.0025, 0.0125, True, 4_900_000, ""),
        ForestRow("<b>bold</b> & x", 5, 0.005, -0.0025, 0.0125, False, None, "a remark"),
        ForestRow("alone", 1, 0.0025, None, None, None, 1_000, ""),
        ForestRow("all seeds alike", 9, 0.01, None, None, True, 1_000, ""),
        ForestRow("huge", 0, None, None, None, None, 5_000_001, "over budget by 1"),
    ]


def texts(figure: Any) -> list[str]:
    """All annotations."""
    return [note.text for note in figure.layout.annotations]
