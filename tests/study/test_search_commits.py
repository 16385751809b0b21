"""Commits of a search whose end is not known: the storage has them, but the reply was lost or an interrupt came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from search_support import SearchRunner
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from support import restarts, tiny_recipe

from budgetnet.data import DataSet
from budgetnet.study import writer
from budgetnet.study.driver import SearchOutcome
from budgetnet.study.writer import TrialWriter

RECIPE = tiny_recipe(epochs=4, schedule=restarts(2))


@contextmanager
def error_after_commit(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Raise an error behind the commit of that number of a search's writes; yield the numbers of those before it."""
    done: list[int] = []
    inside: list[bool] = []
    write = TrialWriter._write

    def watched(own: TrialWriter) -> None:
        inside.append(True)
        try:
            write(own)
        finally:
            inside.clear()

    def commit(connection: Connection) -> None:
        if inside:
            done.append(len(done))
            if len(done) == number:
                connection.connection.commit()
                raise error

    with monkeypatch.context() as patch:
        patch.setattr(TrialWriter, "_write", watched)
        event.listen(Engine, "commit", commit)
        try:
            yield done
        finally:
            event.remove(Engine, "commit", commit)


def facts(outcome: SearchOutcome) -> list[Any]:
    def of(trial: FrozenTrial) -> Any:
        return trial.number, trial.state, trial.values, trial.params, trial.intermediate_values

    return [of(trial) for trial in outcome.study.get_trials()]


def test_a_commit_whose_reply_is_lost_is_not_repeated(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_FIRST_PAUSE", 0.0)
    expected = facts(SearchRunner(digits, tmp_path / "undisturbed")(trials=2, recipe=RECIPE))
    lost = OperationalError("COMMIT", {}, Exception("connection lost"))
    for number in range(1, 100):
        with error_after_commit(number, lost, monkeypatch) as done:
            outcome = SearchRunner(digits, tmp_path / str(number))(trials=2, recipe=RECIPE)
        assert facts(outcome) == expected
        if len(done) < number:
            break
    assert number > 4, "there were some commits"


def test_an_interrupt_behind_a_commit_is_an_interrupt(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        run_search = SearchRunner(digits, tmp_path / str(number))
        with error_after_commit(number, KeyboardInterrupt(), monkeypatch), pytest.raises(KeyboardInterrupt):
            run_search(trials=2, recipe=RECIPE)
        assert run_search(trials=2, recipe=RECIPE).trained == 2
