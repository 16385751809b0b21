"""Names of runs in place of their folders: ``best``, ``#3`` and ``STUDY#3``."""

from __future__ import annotations

import re
from pathlib import Path

from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.files import exists
from budgetnet.study.finalists import load_finals, readable_results
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors
from budgetnet.study.winner import winner

DEFAULT_FOLDER = Path("runs")
"""Folder of run folders where a name has none, as for all commands."""

_NAME = re.compile(r"(?P<study>[^#]*)#(?P<trial>\d+|best)|best")


def is_run_name(run: Path | str) -> bool:
    """Return whether a text is the name of a run rather than a path; a study may still have that name."""
    return not exists(Path(run)) and _NAME.fullmatch(Path(run).name) is not None


def run_path(run: Path | str) -> Path:
    """Return the folder of a run that is given by its path or by a name.

    A name is ``best``, the network that the most recent study recommends; ``#3``, the run of its trial 3; ``STUDY#3``
    or ``STUDY#best``, those of another study. The study is looked for in ``runs``; ``FOLDER/best`` and
    ``FOLDER/STUDY#3`` look in another folder of runs.

    Args:
        run: path or name; a path that exists is never taken for a name.

    Raises:
        RecordError: there is no such study, or it has no trained network yet.
        InputError: the study has no such trial, or it was not trained.
    """
    path = Path(run)
    match = None if exists(path) else _NAME.fullmatch(path.name)
    if match is None:
        return path
    out = path.parent if len(path.parts) > 1 else DEFAULT_FOLDER
    storage = open_storage(default_storage(out), create=False)
    with storage_errors(storage):
        study = find_study(storage, match["study"] or None)
        trials, finals = read_trials(study), load_finals(study)
    number = match["trial"]
    if number in (None, "best"):
        found = winner(rank(candidates(trials), comparable=False), readable_results(finals, out))
        if found is None:
            raise RecordError("run", str(run), f"study {study.study_name} has no fully trained network yet")
        return out / found.run
    trial = next((trial for trial in trials if trial.number == int(number)), None)
    if trial is None:
        raise InputError("run", str(run), f"study {study.study_name} has no such trial")
    if trial.run is None:
        raise InputError("run", str(run), f"has no run: {trial.outcome}")
    return out / trial.run
