"""Notes, files and figures of a study's finished trials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage

from budgetnet.common.files import remove_partial_files
from budgetnet.common.passwords import without_password
from budgetnet.study.finalists import load_finals, readable_results
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import default_storage, study_settings
from budgetnet.study.trials import Trial
from budgetnet.visualization.dashboard.artifacts import ARTIFACTS, artifact_folder, keep_files
from budgetnet.visualization.dashboard.attributes import Attributes
from budgetnet.visualization.dashboard.candidates import Candidates
from budgetnet.visualization.dashboard.notes import trial_heading, trial_note
from budgetnet.visualization.dashboard.overview import Overview, study_heading

LOCK = ".annotate.lock"
"""Lock file in the folder of artifacts, held by the process that writes notes."""

_KEY = "budgetnet:annotated"
"""Attribute of a study: a digest of the data that its note and figures were made from. Followed by the number of a
trial: that the trial has a note, with its format and whether the note is complete."""
_FORMAT = 5
"""Version of notes, files and figures; those of other versions are written again."""


class Annotated(NamedTuple):
    """What was written."""

    trials: int
    """Number of trials whose notes were written."""
    study: bool
    """Whether the study's note and figures were written."""


def annotate(
    study: optuna.Study,
    storage: RDBStorage,
    out: Path,
    *,
    wait: bool = True,
    progress: Callable[[int, int], object] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Annotated:
    """Write the notes and files of finished trials, and the note and figures of the study.

    Only what is new since the last call is written. Each trial is written in one transaction, so that a killed process
    leaves no partial notes. Text that users wrote above a note's heading is kept.

    Args:
        study: a study that budgetnet made.
        storage: its storage.
        out: folder of run folders; files go to ``artifacts`` in it.
        wait: whether to wait for another process that is writing notes; if not, nothing is written in that case.
        progress: called after each trial with the number done and the total.
        stopped: called before each trial; if it returns True, the remaining trials are skipped.

    Raises:
        RecordError: the study was not made by budgetnet, or by a newer version.
        OSError: files cannot be written.
    """
    settings = study_settings(study)
    folder = artifact_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=-1 if wait else 0):
            remove_partial_files(folder)
            return _Notes(study, settings, storage, out).write(progress, stopped)
    except Timeout:
        return Annotated(0, False)


class _Notes:
    """One pass over a study, with the lock held."""

    def __init__(self, study: optuna.Study, settings: StudySettings, storage: RDBStorage, out: Path) -> None:
        self._name, self._settings, self._out = study.study_name, settings, out
        usual = str(storage.url) == default_storage(out)
        self._storage = None if usual else without_password(str(storage.url))
        self._finals = load_finals(study)
        self._attributes = Attributes(storage, study._study_id)
        self._candidates = Candidates(study, settings, out)
        self._done = self._attributes.read(_KEY, ARTIFACTS)
        # Files that were deleted are written again. Looked for while the lock is held, because another process may be
        # filling the folder.
        kept = {path.name for path in artifact_folder(out).iterdir()}
        # What a user deleted in the dashboard is null.
        wanted = (key for key, value in self._done.items() if key.startswith(ARTIFACTS) and value != "null")
        files = (key.removeprefix(ARTIFACTS).split(":") for key in wanted)
        self._without_files = {int(trial_id) for trial_id, name in files if name not in kept}
        """Ids of the trials of which files are missing."""

    def write(self, progress: Callable[[int, int], object] | None, stopped: Callable[[], bool]) -> Annotated:
        trials, id_of = self._candidates.trials, self._candidates.id_of
        pending = [trial for trial in trials if id_of(trial) in self._without_files or not self._is_whole(trial)]
        written = 0
        for count, trial in enumerate(pending, 1):
            if stopped():
                return Annotated(written, False)
            written += self._write_trial(trial)
            if progress is not None:
                progress(count, len(pending))
        return Annotated(written, self._write_study(trials))

    def _is_whole(self, trial: Trial) -> bool | None:
        """Return whether a trial's note is complete; None without a note, or with one of another format or outcome."""
        version, *noted = self._done.get(f"{_KEY}:{trial.number}", (None,))
        # An interrupted trial is resumed later.
        return noted[0] if version == _FORMAT and noted[1] == trial.outcome else None

    def _write_trial(self, trial: Trial) -> bool:
        """Write a trial's note and files; return whether anything was written."""
        candidate = self._candidates.read(trial)
        if self._is_whole(trial) is not None and not candidate.whole:
            # Still incomplete; there is nothing new to write.
            return False
        attributes = self._attributes
        attributes.read(f"dashboard:{candidate.trial_id}:")
        keep_files(candidate, attributes, study_name=self._name, out=self._out)
        self._save_note(trial_note(candidate, self._settings), trial_heading(trial), candidate.trial_id)
        attributes.write(f"{_KEY}:{trial.number}", [_FORMAT, candidate.whole, trial.outcome])
        attributes.commit()
        return True

    def _write_study(self, trials: list[Trial]) -> bool:
        """Write the study's note and figures if they changed; return whether they were written."""
        finals = readable_results(self._finals, self._out)
        made_of = hashlib.sha256(repr([_FORMAT, self._settings.config, *finals, *trials]).encode()).hexdigest()
        if made_of == self._done.get(_KEY):
            return False
        from optuna_dashboard import save_plotly_graph_object

        attributes = self._attributes
        attributes.read("dashboard:note_", "dashboard:plot_data:")
        overview = Overview(self._name, self._settings, trials, finals, out=self._out, storage=self._storage)
        self._save_note(overview.note(), study_heading(self._name), None)
        for name, figure in overview.figures():
            save_plotly_graph_object(attributes.page(), figure, graph_object_id=name)
        attributes.write(_KEY, made_of)
        attributes.commit()
        return True

    def _save_note(self, body: str, heading: str, trial_id: int | None) -> None:
        from optuna_dashboard import get_note, save_note

        page = self._attributes.page(trial_id)
        before, found, _ = get_note(page).partition(heading)
        # A note without our heading was written entirely by a user.
        own = before if found or before.strip() else ""
        save_note(page, f"{own.rstrip()}\n\n{body}" if own.strip() else body)
