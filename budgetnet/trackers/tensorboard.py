"""Runs for TensorBoard: one folder of event files for each, with scalars by epoch and hyperparameters at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.callbacks import Announced
from budgetnet.records import Epoch, RunResult
from budgetnet.trackers.base import RunTracker, curve_values, describe, final_values, require_package

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_LOSS = "validation/loss"
"""The curve that says which epochs are kept."""


class _Kept(NamedTuple):
    writer: SummaryWriter
    run: Announced


class TensorBoard(RunTracker[_Kept]):
    """Keeps runs for ``tensorboard --logdir FOLDER``, each in a folder that is named as its run folder is."""

    name = "TensorBoard"

    def __init__(self, folder: Path | str) -> None:
        """Nothing is written yet.

        Args:
            folder: in which every run has a folder.

        Raises:
            InputError: TensorBoard is not installed.
        """
        require_package("tensorboard", extra="tensorboard")
        super().__init__()
        self._folder = Path(folder)

    def _begin(self, run: Announced) -> tuple[_Kept, set[int]]:
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / run.run
        known, behind = _epochs_in(folder), len(run.curves)
        # What stands there of epochs that will be trained again counts no more; readers of event files heed the mark.
        purge = behind + 1 if any(epoch > behind for epoch in known) else None
        writer = SummaryWriter(str(folder), purge_step=purge)
        return _Kept(writer, run), {epoch for epoch in known if epoch <= behind}

    def _keep(self, kept: _Kept, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            # The curve that says that an epoch is kept comes last.
            for name, value in sorted(curve_values(epoch).items(), key=lambda item: item[0] == _LOSS):
                kept.writer.add_scalar(name, value, epoch.epoch)
        # Behind every epoch, so that a kill leaves what had ended.
        kept.writer.flush()

    def _end(self, kept: _Kept, result: RunResult) -> None:
        from torch.utils.tensorboard.summary import hparams

        facts = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in describe(kept.run).items()
        }
        values = final_values(result)
        # As `add_hparams`, which would open a folder of its own for them.
        for summary in hparams({**facts, "ended": result.reason}, values):
            kept.writer._get_file_writer().add_summary(summary)
        for name, value in values.items():
            kept.writer.add_scalar(name, value, result.epochs)
        kept.writer.close()

    def _break_off(self, kept: _Kept, reason: str | None) -> None:
        kept.writer.close()


def _epochs_in(folder: Path) -> set[int]:
    """The epochs that event files hold."""
    if not folder.exists():
        return set()
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {event.step for event in events.Scalars(_LOSS)} if _LOSS in events.Tags()[SCALARS] else set()
