"""Notes, files and figures for what has come to an end in a study since they were written last."""

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
from budgetnet.visualization.dashboard.artifacts import artifact_folder, beginning, drop_files, keep_files
from budgetnet.visualization.dashboard.attributes import Attributes
from budgetnet.visualization.dashboard.candidates import Candidates, numbers_of, numbers_text
from budgetnet.visualization.dashboard.notes import trial_heading, trial_note
from budgetnet.visualization.dashboard.overview import Overview, study_heading

LOCK = ".annotate.lock"
"""The file beside the artifacts that only one process at a time holds."""

_KEY = "budgetnet:annotated"
"""Attribute of a study that says which of its trials have got what they get."""
_FORMAT = 2
"""Version of notes, files and figures; those of another are made anew."""


class Annotated(NamedTuple):
    """What was done."""

    trials: int
    """Trials that got a note now."""
    study: bool
    """Whether the study's note and figures were made anew."""


class _Mark(NamedTuple):
    """What a study says of its notes."""

    done: set[int]
    """Numbers of the trials that have got a note."""
    lacking: set[int]
    """Those of them in whose note something is missing."""
    made_of: str
    """Digest of what the study's note and figures were made of."""

    @classmethod
    def of(cls, value: Any) -> _Mark:
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
    """Gives what has ended in a study its note and its files, and the study its note and its figures.

    To call it again does what is new. Each trial is finished in one transaction: whoever is killed on the way leaves
    nothing half done that would be seen. What a person wrote above a note's heading stays.

    Args:
        study: a study that budgetnet made.
        storage: where it lives.
        out: folder of run folders; files go to ``artifacts`` in it.
        wait: for another process that is at it; else nothing is done then.
        progress: is told after each trial how many are done, and of how many.
        stopped: is asked before each trial whether to leave the rest for another time.

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
        self._mark = _Mark.of(self._attributes.read(_KEY).get(_KEY))
        # Where the folder of artifacts is empty, what was written elsewhere is not in it. Asked with the lock held:
        # another process that found it so as well has filled it by then.
        afresh = not any(path.name != LOCK for path in artifact_folder(out).iterdir())
        self._again = set(self._mark.done if afresh else self._mark.lacking)

    def write(self, progress: Callable[[int, int], object] | None, stopped: Callable[[], bool]) -> Annotated:
        trials = self._candidates.trials
        pending = [trial for trial in trials if trial.number not in self._mark.done or trial.number in self._again]
        written = 0
        for count, trial in enumerate(pending, 1):
            if stopped():
                return Annotated(written, False)
            written += self._write_trial(trial)
            if progress is not None:
                progress(count, len(pending))
        return Annotated(written, self._write_study(trials))

    def _write_trial(self, trial: Trial) -> bool:
        """Gives a trial what it gets; tells whether it did."""
        candidate = self._candidates.read(trial)
        if trial.number in self._mark.done and not candidate.whole:
            # What is missing is still missing, or lies where another process has found it.
            return False
        attributes, page = self._attributes, f"dashboard:{candidate.trial_id}:"
        attributes.read(_KEY, page, beginning(candidate.trial_id))
        replaced = keep_files(candidate, attributes, study_name=self._name, out=self._out)
        note = trial_note(candidate, self._settings)
        self._save_note(note, trial_heading(trial), candidate.trial_id)
        self._mark.done.add(trial.number)
        (self._mark.lacking.discard if candidate.whole else self._mark.lacking.add)(trial.number)
        attributes.write(_KEY, self._mark.to_mapping())
        attributes.commit()
        drop_files(replaced, self._out)
        return True

    def _write_study(self, trials: list[Trial]) -> bool:
        """Gives the study its note and figures, if they would be others than it has; tells whether it did."""
        made_of = hashlib.sha256(repr([_FORMAT, self._settings.config, *trials]).encode()).hexdigest()
        if made_of == self._mark.made_of:
            return False
        from optuna_dashboard import save_plotly_graph_object

        attributes = self._attributes
        attributes.read(_KEY, "dashboard:note_", "dashboard:plot_data:")
        overview = Overview(self._name, self._settings, trials, out=self._out, storage=self._storage)
        self._save_note(overview.note(), study_heading(self._name), None)
        for name, figure in overview.figures():
            save_plotly_graph_object(attributes.page(), figure, graph_object_id=name)
        self._mark = self._mark._replace(made_of=made_of)
        attributes.write(_KEY, self._mark.to_mapping())
        attributes.commit()
        return True

    def _save_note(self, body: str, heading: str, trial_id: int | None) -> None:
        from optuna_dashboard import get_note, save_note

        page = self._attributes.page(trial_id)
        before, found, _ = get_note(page).partition(heading)
        # All of a note that has no heading of ours is somebody's own.
        own = before if found or before.strip() else ""
        save_note(page, f"{own.rstrip()}\n\n{body}" if own.strip() else body)
