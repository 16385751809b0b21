"""A study with a trial of every outcome, and what optuna-dashboard would find of it in the storage."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import optuna
import pytest
from markdown_it import MarkdownIt
from optuna.storages import RDBStorage
from search_support import SearchRunner, Watcher
from sqlalchemy import text
from support import PAIR_SPACE, TINY, restarts, tiny_recipe

from budgetnet.data import DataSet
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import default_storage, find_study, open_storage
from budgetnet.study.trials import Trial
from budgetnet.visualization.dashboard import Annotated, annotate

NAME = "all outcomes | <b>`$x$`</b>"
"""A name of which Markdown would make what it is not."""
EIGHT: dict[str, Any] = {**PAIR_SPACE, "channels": [8, 64]}
"""Eight networks, of which those of 8, 16 and 24 channels have no more parameters than a study here allows."""
RECIPE = tiny_recipe(epochs=3, schedule=restarts(1))
BY_HAND = TINY.replace(channels=[4], name="by-hand")


def make_study(digits: DataSet, out: Path) -> None:
    """Run a search, interrupted once, until nothing new is sampled."""
    ways = {"sampler": "random", "pruner": "asha"}
    run_search = SearchRunner(digits, out)
    with patch("budgetnet.study.driver.MAX_REJECTED", 12):
        for watcher in (Watcher(stop_at=2), Watcher()):
            how: dict[str, Any] = {"space": EIGHT, "recipe": RECIPE, "ways": ways, "enqueued": (BY_HAND,)}
            try:
                run_search(trials=99, name=NAME, watcher=watcher, **how)
            except KeyboardInterrupt:
                continue


class Copy(NamedTuple):
    """A study of a test's own."""

    out: Path
    storage: RDBStorage
    study: optuna.Study

    @property
    def trials(self) -> list[Trial]:
        return read_trials(self.study)

    def trial(self, outcome: str) -> Trial:
        """The first trial of a outcome."""
        return next(trial for trial in self.trials if trial.outcome == outcome)

    def annotate(self, **how: Any) -> Annotated:
        return annotate(self.study, self.storage, self.out, **how)

    def attributes(self) -> dict[str, Any]:
        """Every system attribute of the study, read by other means than those that wrote it."""
        query = text("SELECT key, value_json FROM study_system_attributes WHERE study_id = :study")
        with self.storage.engine.connect() as connection:
            rows = connection.execute(query, {"study": self.study._study_id}).all()
        assert max(Counter(row.key for row in rows).values(), default=1) == 1
        return {row.key: json.loads(row.value_json) for row in rows}

    def shown(self) -> dict[str, Any]:
        """The study as optuna-dashboard's own server tells it to its pages."""
        from optuna_dashboard import wsgi

        answer = b"".join(wsgi(self.storage)(_request(f"/api/studies/{self.study._study_id}"), _ignore))
        found: dict[str, Any] = json.loads(answer)
        return found

    def shown_trial(self, trial: Trial) -> dict[str, Any]:
        shown: dict[str, Any] = self.shown()["trials"][trial.number]
        assert shown["number"] == trial.number
        return shown

    def note(self, trial: Trial) -> str:
        body: str = self.shown_trial(trial)["note"]["body"]
        return body

    def files(self, trial: Trial) -> dict[str, bytes]:
        """Contents of a trial's artifacts by their names."""
        listed = self.shown_trial(trial)["artifacts"]
        assert len({each["filename"] for each in listed}) == len(listed), "no file stands twice"
        return {each["filename"]: (self.out / "artifacts" / each["artifact_id"]).read_bytes() for each in listed}


def rendered(note: str) -> str:
    """A note as HTML, by another reader of Markdown than the dashboard's; HTML in it stays text, as there."""
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(note))


def cells(note: str, first: str) -> list[str]:
    """The cells of the line of a note's tables that begins so."""
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in note.splitlines()]
    (found,) = [line for line in lines if line[0] == first]
    return found[1:]


def _request(path: str) -> dict[str, Any]:
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_ACCEPT_ENCODING": ""}
    setup_testing_defaults(environ)
    return environ


def _ignore(*_: Any) -> None: ...


def copied(source: Path, out: Path) -> Copy:
    """A copy of a study."""
    shutil.copytree(source, out)
    return opened(out)


def opened(out: Path, url: str | None = None) -> Copy:
    """The study in a folder, or in another storage."""
    storage = open_storage(url or default_storage(out), create=False)
    return Copy(out, storage, find_study(storage, NAME))


@pytest.fixture(scope="session")
def all_outcomes(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with a trial of every outcome."""
    folder = tmp_path_factory.mktemp("outcomes")
    make_study(digits, folder)
    return folder
