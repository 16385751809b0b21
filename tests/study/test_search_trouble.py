"""What goes wrong with one candidate or one finalist, and leaves the others be."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_support import SearchRunner, Watcher
from support import TINY, prepare, tiny_recipe
from test_search_finals import Case

from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.test_set import read_openings
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.study.storage import open_storage, read_trials
from budgetnet.study.trials import count_outcomes
from budgetnet.training.trainer import identify


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def folder_of(run_search: SearchRunner) -> RunFolder:
    recipe = tiny_recipe(epochs=1)
    return RunFolder.of(identify(TINY, prepare(run_search.digits, recipe), recipe, seed=0), run_search.out)


def test_candidate_with_damaged_folder_is_skipped(run_search: SearchRunner, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(run_search)
    folder.path.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"no checkpoint")
    watcher = Watcher()
    outcome = run_search(trials=2, enqueued=(TINY,), watcher=watcher)
    assert (outcome.trained, outcome.end) == (2, "done")
    assert len(watcher.networks) == len(watcher.results) == 2
    assert ": checkpoint" in caplog.text
    assert count_outcomes(read_trials(outcome.study))["no_result"] == 1
    assert folder.checkpoint.read_bytes() == b"no checkpoint"


def test_a_run_that_another_study_is_training_is_left_to_it(run_search: SearchRunner) -> None:
    with folder_of(run_search).locked():
        outcome = run_search(trials=2, enqueued=(TINY,))
    assert outcome.trained == 2
    assert count_outcomes(read_trials(outcome.study))["no_result"] == 0
    first = outcome.study.get_trials()[0]
    assert (first.user_attrs["ended"], first.user_attrs.get("trained")) == ("in training elsewhere", None)


def test_a_test_set_is_not_opened_for_weights_that_cannot_be_read(digits: DataSet, tmp_path: Path) -> None:
    case = Case(digits, tmp_path)
    finals = case.hold(number=1, seeds=1)
    opened = len(read_openings(tmp_path / TEST_OPENINGS_FILE))
    folder = RunFolder(finals[0].records[0].folder)
    (folder.path / "test.json").unlink()
    folder.best.write_bytes(b"no weights")
    for _ in range(2):
        with pytest.raises(RecordError, match=r"best weights.*is damaged"):
            case.hold(number=1, seeds=1, watcher=Watcher())
    assert len(read_openings(tmp_path / TEST_OPENINGS_FILE)) == opened


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_study_is_not_kept_in_memory_alone(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must name a file"):
        open_storage(url, create=True)
    assert list(tmp_path.iterdir()) == []
