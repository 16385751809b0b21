"""Locks of workers, stale trials of dead workers, and heartbeats."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import text
from support import child_environment

from budgetnet.common.errors import BusyError
from budgetnet.study import presence as module
from budgetnet.study.bulk import insert_trial
from budgetnet.study.ledger import Ledger
from budgetnet.study.presence import Presence, heartbeat
from budgetnet.study.storage import default_storage, open_storage

HOLDER = """
import sys
from pathlib import Path
from budgetnet.study.presence import Presence
from budgetnet.study.storage import open_storage
with Presence(open_storage(sys.argv[1], create=True), "study", Path(sys.argv[2]), slot=1):
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RDBStorage]:
    storage = open_storage(default_storage(tmp_path), create=True)
    optuna.create_study(storage=storage, study_name="study", direction="maximize")
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def left_behind(storage: RDBStorage, **facts: Any) -> int:
    trial = create_trial(state=TrialState.RUNNING, user_attrs={"candidate": "c", "run": "r", **facts})
    trial.datetime_start = datetime.now() - timedelta(hours=1)
    return insert_trial(storage, storage.get_study_id_from_name("study"), trial).number


def ledger_of(storage: RDBStorage, presence: Presence) -> Ledger:
    ledger = Ledger(optuna.load_study(study_name="study", storage=storage), storage, presence)
    ledger.refresh()
    return ledger


def test_a_worker_is_alive_as_long_as_its_process(storage: RDBStorage, tmp_path: Path) -> None:
    here = Presence(storage, "study", tmp_path)
    other = Presence(storage, "study", tmp_path, slot=1)
    assert not here.is_alive(other.worker), "it never was there"
    command = [sys.executable, "-c", HOLDER, default_storage(tmp_path), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        assert here.is_alive(other.worker)
        number = left_behind(storage, worker=other.worker)
        assert list(ledger_of(storage, here).running) == ["c"]
        process.kill()
        process.wait()
        assert not here.is_alive(other.worker)
        ledger = ledger_of(storage, here)
        assert ledger.running == {}
        assert [trial.number for trial in ledger.interrupted] == [number]


def test_acquiring_a_busy_slot_times_out(storage: RDBStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOT_PATIENCE", 0.1)
    with Presence(storage, "study", tmp_path):
        with pytest.raises(BusyError, match="a worker of an earlier search"), Presence(storage, "study", tmp_path):
            raise AssertionError("two workers have one slot")
        with Presence(storage, "study", tmp_path, slot=1), Presence(storage, "another", tmp_path):
            pass
    with Presence(storage, "study", tmp_path):
        pass


def test_stale_trial_of_the_same_slot_is_lost(storage: RDBStorage, tmp_path: Path) -> None:
    with Presence(storage, "study", tmp_path) as presence:
        number = left_behind(storage, worker=presence.worker)
        assert [trial.number for trial in ledger_of(storage, presence).interrupted] == [number]


def test_remote_worker_is_lost_after_missing_heartbeats(
    storage: RDBStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not a file's study: as on a server, where workers of other machines leave nothing but what they write.
    with Presence(storage, "study", tmp_path) as presence:
        presence.in_file = False
        number = left_behind(storage, worker="another-machine:/runs#0")
        ledger = ledger_of(storage, presence)
        assert (list(ledger.running), ledger.interrupted) == (["c"], [])
        with storage.engine.begin() as connection:
            connection.execute(text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))
        ledger = ledger_of(storage, presence)
        assert ledger.running == {}
        assert [trial.number for trial in ledger.interrupted] == [number]


def test_running_trial_records_heartbeats(storage: RDBStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(storage, worker="w")
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'"))
        trial_id = connection.execute(text("SELECT trial_id FROM trial_heartbeats")).scalar_one()
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.01)
    beats = []
    record = RDBStorage.record_heartbeat

    def recorded(self: RDBStorage, trial_id: int) -> None:
        record(self, trial_id)
        beats.append(trial_id)

    monkeypatch.setattr(RDBStorage, "record_heartbeat", recorded)
    with heartbeat(storage, trial_id):
        while len(beats) < 2:
            pass
    count = len(beats)
    with storage.engine.begin() as connection:
        (when,) = connection.execute(text("SELECT heartbeat FROM trial_heartbeats")).all()[0]
    assert str(when) > "2026-01-02"
    assert len(beats) == count, "it ends with the block"


def test_heartbeat_tolerates_storage_errors(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(storage, worker="w")
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.01)
    with storage.engine.begin() as connection:
        trial_id = connection.execute(text("SELECT trial_id FROM trial_heartbeats")).scalar_one()
        connection.execute(text("ALTER TABLE trial_heartbeats RENAME TO away"))
    failed = []
    record = RDBStorage.record_heartbeat

    def recorded(self: RDBStorage, trial_id: int) -> None:
        try:
            record(self, trial_id)
        except Exception as error:
            failed.append(error)
            raise

    monkeypatch.setattr(RDBStorage, "record_heartbeat", recorded)
    with heartbeat(storage, trial_id):
        while len(failed) < 2:
            pass
