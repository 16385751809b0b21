"""The network that a study recommends: that of the best finalist, or without finals the best candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from budgetnet.statistics.intervals import Interval, wilson_interval
from budgetnet.study.finalists import FinalResult, best_record
from budgetnet.study.leaderboard import LeaderboardRow


class Winner(NamedTuple):
    """The recommended network and the run to use."""

    name: str
    """Name of its candidate or finalist."""
    trial: str
    """Name of its trial: ``#12``."""
    architecture: str
    params: int
    """Parameters, frozen ones included."""
    macs: int
    """Multiply-accumulates for one image."""
    run: str
    """Name of the run's folder: of several seeds, the one with the highest validation accuracy."""
    seed: int
    accuracy: float
    """Validation accuracy of the run, as a share."""
    interval: Interval
    """95 % Wilson interval of the accuracy."""
    images: int
    """Validation images."""
    finalist: FinalResult | None = None
    """The finalist with all its runs; None without finals."""


def winner(rows: Sequence[LeaderboardRow], results: Sequence[FinalResult]) -> Winner | None:
    """Return the network that a study recommends, chosen by validation accuracy alone; None without a result.

    Once all finalists are trained, the best of them is recommended before any candidate of the search.

    Args:
        rows: the leaderboard.
        results: the finalists, the best first.
    """
    record = best_record(results)
    if record is not None:
        finalist, result = results[0].finalist, record.result
        correct, images = result.validation_correct or 0, result.validation_images
        return Winner(
            name=finalist.name,
            trial=f"#{finalist.trial}",
            architecture=finalist.spec.label,
            params=result.params,
            macs=result.macs,
            run=record.folder.name,
            seed=record.identity.seed,
            accuracy=correct / images,
            interval=wilson_interval(correct, images),
            images=images,
            finalist=results[0],
        )
    row = next((row for row in rows if row.rank == 1), None)
    if row is None:
        return None
    return Winner(
        name=row.name,
        trial=row.name,
        architecture=row.architecture,
        params=row.params,
        macs=row.macs,
        run=row.run or "",
        seed=row.seed or 0,
        accuracy=row.accuracy,
        interval=row.interval,
        images=row.images,
    )
