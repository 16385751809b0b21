"""Names of runs in place of their folders: ``best``, ``#3`` and ``STUDY#3``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import optuna

from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.files import exists
from budgetnet.study.finalists import Finalist, load_finals, readable_results
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors, study_settings
from budgetnet.study.trials import Outcome
from budgetnet.study.winner import winner

DEFAULT_FOLDER = Path("runs")
"""Folder of run folders where a name has none, as for all commands."""

_NAME = re.compile(r"(?P<study>[^#]*)#(?P<trial>\d+|best)|best")


def is_run_name(run: Path | str) -> bool:
    """Return whether a text is the name of a run rather than a path; a study may still have that name."""
    return not exists(Path(run)) and _NAME.fullmatch(Path(run).name) is not None


def run_path(run: Path | str, *, out: Path = DEFAULT_FOLDER, storage: str | None = None) -> Path:
    """Return the folder of a run that is given by its path or by a name.

    A name is ``best``, the network that the most recent study recommends; ``#3``, the run of its trial 3; ``STUDY#3``
    or ``STUDY#best``, those of another study. The study is looked for in `out`; ``FOLDER/best`` and
    ``FOLDER/STUDY#3`` look in another folder of runs.

    Args:
        run: path or name; a path that exists is never taken for a name.
        out: folder of runs for a name without one.
        storage: URL of the storage for a name without a folder. Default: the SQLite file in `out`.

    Raises:
        RecordError: there is no such study, or it has no trained network yet.
        InputError: the study has no such trial, or it was not trained.
    """
    path = Path(run)
    match = None if exists(path) else _NAME.fullmatch(path.name)
    if match is None:
        return path
    if len(path.parts) > 1:
        out, storage = path.parent, None
    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(kept):
        study = find_study(kept, match["study"] or None)
        return out / run_of_trial(study, match["trial"], out=out, name=str(run)).run


class TrialRun(NamedTuple):
    """A trial of a study, or a finalist, and its run."""

    trial: str
    """Name of the trial: ``#3``."""
    run: str
    """Name of the run's folder; of a finalist's runs, that of the highest validation accuracy."""
    finalist: Finalist | None
    """The finalist, if the run is one of its runs."""
    outcome: Outcome
    """Outcome of the trial."""


def run_of_trial(study: optuna.Study, number: str | None, *, out: Path, name: str, field: str = "run") -> TrialRun:
    """Return the run of a trial, or the run that a study recommends.

    Args:
        study: the study.
        number: number of the trial; ``best`` or None for the recommended run.
        out: folder of its run folders.
        name: what names the run, for errors.
        field: what it is given as, for errors.

    Raises:
        RecordError: the study has no trained network yet.
        InputError: it has no such trial, or the trial has no run.
    """
    trials, finals = read_trials(study), load_finals(study)
    if number in (None, "best"):
        ranked = rank(candidates(trials, costs=study_settings(study).config.costs), comparable=False)
        found = winner(ranked, readable_results(finals, out))
        if found is None:
            raise RecordError(field, name, f"study {study.study_name} has no fully trained network yet")
        finalist = None if found.finalist is None else found.finalist.finalist
        return TrialRun(found.trial, found.run, finalist, "complete")
    trial = next((trial for trial in trials if trial.number == int(number)), None)
    if trial is None:
        raise InputError(field, name, f"study {study.study_name} has no such trial")
    if trial.run is None:
        raise InputError(field, name, f"has no run: {trial.outcome}")
    return TrialRun(trial.name, trial.run, None, trial.outcome)
