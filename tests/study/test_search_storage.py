"""Storages of studies: missing, damaged, foreign, with another config, and the default study."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from search_support import SearchRunner, Watcher
from support import snapshot, tiny_recipe

from budgetnet.common.errors import BudgetnetError, InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch
from budgetnet.study.leaderboard import candidates
from budgetnet.study.lock import StudyLock
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def test_reading_does_not_create_a_storage(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="the storage has no study yet"):
        open_storage(default_storage(tmp_path / "runs"), create=False)
    assert not list(tmp_path.iterdir())


def test_writing_creates_storage_and_folder(tmp_path: Path) -> None:
    storage = open_storage(default_storage(tmp_path / "new" / "runs"), create=True)
    assert (tmp_path / "new" / "runs" / "studies.db").is_file()
    with pytest.raises(RecordError, match="the storage has no study yet"):
        find_study(storage, None)


@pytest.mark.parametrize(("error", "logged"), [(KeyboardInterrupt, 0), (sqlite3.OperationalError, 1)])
@pytest.mark.parametrize("pool", [sqlalchemy.NullPool, sqlalchemy.QueuePool])
def test_an_interrupt_as_a_connection_closes_is_not_logged_as_a_failure(
    pool: type[sqlalchemy.Pool], error: type[BaseException], logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Connection(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise error

    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=pool, creator=lambda: sqlite3.connect(":memory:", factory=Connection)
    )
    with pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else nullcontext():
        engine.connect().invalidate()
    assert len(caplog.records) == logged


def write_random(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def write_other_tables(path: Path) -> None:
    execute(path, "CREATE TABLE version_info (version_info_id INTEGER PRIMARY KEY, schema_version INTEGER)")


def write_other_version(path: Path) -> None:
    open_storage(f"sqlite:///{path}", create=True)
    execute(path, "UPDATE alembic_version SET version_num = 'v2.6.0.a'")


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def truncate(path: Path) -> None:
    open_storage(f"sqlite:///{path}", create=True).engine.dispose()
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [write_random, write_other_version, truncate, Path.mkdir])
def test_unusable_storage_gives_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "studies.db"
    damage(path)
    with pytest.raises(RecordError, match="cannot be used") as caught:
        open_storage(f"sqlite:///{path}", create=False)
    assert "\n" not in str(caught.value)


def test_reading_does_not_change_a_foreign_database(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    write_other_tables(path)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="the storage has no study"):
        open_storage(f"sqlite:///{path}", create=False)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        "sqlite",
        "foo://bar",
        "postgresql+nodriver://u:secret@h/db",
        "http://x/y",
        "sqlite:///x\0y",
        # What goes wrong with the password in it; the last is a fine URL of a server that is not there.
        "postgresql//u:secret@h/db",
        "postgresql://u:secret@h:port/db",
        "postgresql://u:to@secret@h/db",
        "postgresql://u:to@secret:1@h/db",
        "postgresql+psycopg://u@127.0.0.1:1/db?connect_timeout=1&password=secret",
    ],
)
def test_invalid_url_gives_one_line(url: str) -> None:
    with pytest.raises((BudgetnetError, ValueError)) as caught:
        open_storage(url, create=False)
    assert isinstance(caught.value, BudgetnetError)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_storage_damaged_while_reading_gives_one_line(run_search: SearchRunner, tmp_path: Path) -> None:
    run_search(trials=1)
    url = default_storage(tmp_path)
    study = find_study(open_storage(url, create=False), None)
    execute(tmp_path / "studies.db", "DROP TABLE trial_user_attributes")
    with pytest.raises(RecordError, match="no such table") as caught, storage_errors(url):
        read_trials(study)
    assert "\n" not in str(caught.value)


def test_storage_damaged_while_training_gives_one_line(run_search: SearchRunner, tmp_path: Path) -> None:
    class Vandal(Watcher):
        def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
            super().on_epoch_end(epoch, worker=worker)
            execute(tmp_path / "studies.db", "DROP TABLE trial_values")

    with pytest.raises(RecordError, match="no such table") as caught:
        run_search(trials=1, watcher=Vandal())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"max_params": 30_000}, "max_params 20000, not 30000"),
        ({"max_macs": 10**9}, "max_macs none, not 1000000000"),
        ({"recipe": tiny_recipe(epochs=2)}, "recipe.epochs 1, not 2.*"),
        (
            {"recipe": tiny_recipe(epochs=1, precision="bfloat16")},
            "precision float32, not bfloat16; recipe.+",
        ),
        ({"space": {"stages": [1, 1]}}, r"space.stages \[1, 2\], not \[1, 1\]; .+"),
    ],
)
def test_study_with_another_config_is_rejected_and_unchanged(
    run_search: SearchRunner, tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    run_search(trials=1)
    before = {name: content for name, (_, content) in snapshot(tmp_path).items()}
    with pytest.raises(RecordError, match=f"made with {part};"):
        run_search(trials=2, **changes)
    assert {name: content for name, (_, content) in snapshot(tmp_path).items()} == before


def test_a_study_that_others_made_is_refused(run_search: SearchRunner, tmp_path: Path) -> None:
    foreign = optuna.create_study(storage=open_storage(default_storage(tmp_path), create=True), study_name="study")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(RecordError, match="not made by budgetnet"):
        run_search(trials=1)
    assert len(foreign.get_trials()) == 1


def test_the_study_meant_is_the_one_worked_on_last(run_search: SearchRunner, tmp_path: Path) -> None:
    storage = open_storage(default_storage(tmp_path), create=True)
    for name in ("first", "second"):
        run_search(trials=1, name=name)
    assert find_study(storage, None).study_name == "second"
    run_search(trials=2, name="first")
    assert find_study(storage, None).study_name == "first"
    assert find_study(storage, "second").study_name == "second"
    with pytest.raises(RecordError, match="the storage has first, second"):
        find_study(storage, "third")


@pytest.mark.parametrize("name", ["a/b", "../a", "a b", "n" * 300, ".", "ü"])
def test_a_study_may_have_any_name(run_search: SearchRunner, tmp_path: Path, name: str) -> None:
    assert run_search(trials=1, name=name).trained == 1
    assert run_search(trials=1, name=name).trained == 1
    storage = open_storage(default_storage(tmp_path), create=False)
    assert find_study(storage, name).study_name == name
    assert StudyLock(storage, name, tmp_path / "runs").path.parent == tmp_path.resolve()
    assert StudyLock(storage, name, tmp_path).path != StudyLock(storage, name + "x", tmp_path).path


def test_candidates_are_the_trained_ones(run_search: SearchRunner) -> None:
    study = run_search(trials=3).study
    found = candidates(read_trials(study))
    trained = [trial for trial in study.get_trials() if trial.user_attrs.get("trained")]
    assert [item.name for item in found] == [f"#{trial.number}" for trial in trained]
    assert [item.correct / item.images for item in found] == [trial.value for trial in trained]
    assert [item.run for item in found] == [trial.user_attrs["run"] for trial in trained]


def test_a_file_in_the_way_of_a_storage_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^storage = '.*/file': must be a writable folder"):
        open_storage(f"sqlite:///{tmp_path}/file/studies.db", create=True)
