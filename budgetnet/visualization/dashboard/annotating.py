"""Notes, files and figures of a study's finished trials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage

from budgetnet.common.config import without_password
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import default_storage, study_settings
from budgetnet.study.trials import Trial
from budgetnet.visualization.dashboard.artifacts import artifact_folder, artifact_prefix, drop_files, keep_files
from budgetnet.visualization.dashboard.attributes import Attributes
from budgetnet.visualization.dashboard.candidates import Candidates, numbers_of, numbers_text
from budgetnet.visualization.dashboard.notes import trial_heading, trial_note
from budgetnet.visualization.dashboard.overview import Overview, study_heading

LOCK = ".annotate.lock"
"""Lock file in the folder of artifacts, held by the process that writes notes."""

_KEY = "budgetnet:annotated"
"""Attribute of a study that records which trials have notes."""
_FORMAT = 2
"""Version of notes, files and figures; those of other versions are written again."""


class Annotated(NamedTuple):
    """What was written."""

    trials: int
    """Number of trials whose notes were written."""
    study: bool
    """Whether the study's note and figures were written."""


class _Progress(NamedTuple):
    """State of a study's notes."""

    done: set[int]
    """Numbers of the trials that have a note."""
    lacking: set[int]
    """Numbers of the trials whose note is incomplete."""
    made_of: str
    """Digest of the data that the study's note and figures were made from."""

    @classmethod
    def of(cls, value: Any) -> _Progress:
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            return cls(set(), set(), "")
        return cls(numbers_of(value["done"]), numbers_of(value["lacking"]), value["made_of"])

    def to_mapping(self) -> dict[str, Any]:
        done, lacking = numbers_text(sorted(self.done)), numbers_text(sorted(self.lacking))
        return {"format": _FORMAT, "done": done, "lacking": lacking, "made_of": self.made_of}


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
            return _Notes(study, settings, storage, out).write(progress, stopped)
    except Timeout:
        return Annotated(0, False)


class _Notes:
    """One pass over a study, with the lock held."""

    def __init__(self, study: optuna.Study, settings: StudySettings, storage: RDBStorage, out: Path) -> None:
        self._name, self._settings, self._out = study.study_name, settings, out
        usual = str(storage.url) == default_storage(out)
        self._storage = None if usual else without_password(str(storage.url))
        self._attributes = Attributes(storage, study._study_id)
        self._candidates = Candidates(study, settings, out)
        self._progress = _Progress.of(self._attributes.read(_KEY).get(_KEY))
        # If the folder of artifacts is empty, write all files again. Checked while the lock is held, because another
        # process may be filling the folder.
        is_empty = not any(path.name != LOCK for path in artifact_folder(out).iterdir())
        self._again = set(self._progress.done if is_empty else self._progress.lacking)

    def write(self, progress: Callable[[int, int], object] | None, stopped: Callable[[], bool]) -> Annotated:
        trials = self._candidates.trials
        pending = [trial for trial in trials if trial.number not in self._progress.done or trial.number in self._again]
        written = 0
        for count, trial in enumerate(pending, 1):
            if stopped():
                return Annotated(written, False)
            written += self._write_trial(trial)
            if progress is not None:
                progress(count, len(pending))
        return Annotated(written, self._write_study(trials))

    def _write_trial(self, trial: Trial) -> bool:
        """Write a trial's note and files; return whether anything was written."""
        candidate = self._candidates.read(trial)
        if trial.number in self._progress.done and not candidate.whole:
            # Still incomplete; there is nothing new to write.
            return False
        attributes, page = self._attributes, f"dashboard:{candidate.trial_id}:"
        attributes.read(_KEY, page, artifact_prefix(candidate.trial_id))
        replaced = keep_files(candidate, attributes, study_name=self._name, out=self._out)
        note = trial_note(candidate, self._settings)
        self._save_note(note, trial_heading(trial), candidate.trial_id)
        self._progress.done.add(trial.number)
        (self._progress.lacking.discard if candidate.whole else self._progress.lacking.add)(trial.number)
        attributes.write(_KEY, self._progress.to_mapping())
        attributes.commit()
        drop_files(replaced, self._out)
        return True

    def _write_study(self, trials: list[Trial]) -> bool:
        """Write the study's note and figures if they changed; return whether they were written."""
        made_of = hashlib.sha256(repr([_FORMAT, self._settings.config, *trials]).encode()).hexdigest()
        if made_of == self._progress.made_of:
            return False
        from optuna_dashboard import save_plotly_graph_object

        attributes = self._attributes
        attributes.read(_KEY, "dashboard:note_", "dashboard:plot_data:")
        overview = Overview(self._name, self._settings, trials, out=self._out, storage=self._storage)
        self._save_note(overview.note(), study_heading(self._name), None)
        for name, figure in overview.figures():
            save_plotly_graph_object(attributes.page(), figure, graph_object_id=name)
        self._progress = self._progress._replace(made_of=made_of)
        attributes.write(_KEY, self._progress.to_mapping())
        attributes.commit()
        return True

    def _save_note(self, body: str, heading: str, trial_id: int | None) -> None:
        from optuna_dashboard import get_note, save_note

        page = self._attributes.page(trial_id)
        before, found, _ = get_note(page).partition(heading)
        # A note without our heading was written entirely by a user.
        own = before if found or before.strip() else ""
        save_note(page, f"{own.rstrip()}\n\n{body}" if own.strip() else body)
