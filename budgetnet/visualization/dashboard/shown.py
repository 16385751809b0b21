"""Writing of dashboard notes with a progress bar, where errors are returned instead of raised."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from budgetnet.common.errors import BudgetnetError
from budgetnet.study.storage import storage_errors
from budgetnet.visualization.dashboard.annotating import annotate


def annotate_shown(
    study: optuna.Study, storage: RDBStorage, out: Path, *, wait: bool = True, quiet: bool = False
) -> str | None:
    """Update the notes, files and figures of a study, with a progress bar on a terminal.

    Args:
        study: a study that budgetnet made.
        storage: its storage.
        out: folder of run folders.
        wait: whether to wait for another process that is writing notes.
        quiet: whether to show no bar.

    Returns:
        An error message; None on success.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn()
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task("notes for the dashboard", total=None)
        return try_annotate(
            study, storage, out, wait=wait, progress=lambda done, of: bars.update(task, completed=done, total=of)
        )


def try_annotate(study: optuna.Study, storage: RDBStorage, out: Path, **how: Any) -> str | None:
    """Write notes as `annotate` does, but return an error message instead of raising; None on success."""
    try:
        with storage_errors(storage):
            annotate(study, storage, out, **how)
    except BudgetnetError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or out}: {error.strerror or error}"
    else:
        return None
    return f"notes for the dashboard were not updated: {' '.join(reason.split())}"
