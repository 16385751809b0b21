"""Studies with damaged rows: what can be read is shown, what cannot is named, and nothing ends in a traceback."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial
from report_support import WrittenStudy, network
from search_support import SearchRunner
from support import RunCommand

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.study.finalists import FINALS_KEY, Finals, store_finals
from budgetnet.study.storage import SETTINGS_KEY, default_storage, open_storage

VALUES = [None, "x", "", -5, 2**62, 1e300, float("inf"), b"\xff", "{", '"text"', "[]", "null", "NaN", "[" * 100_000]
TRIALS = len(VALUES) + 2
OF_TRIALS = {
    "trials": ("number", "study_id", "state", "datetime_start", "datetime_complete"),
    "trial_user_attributes": ("trial_id", "key", "value_json"),
    "trial_system_attributes": ("trial_id", "key", "value_json"),
    "trial_params": ("trial_id", "param_name", "param_value", "distribution_json"),
    "trial_intermediate_values": ("trial_id", "step", "intermediate_value", "intermediate_value_type"),
    "trial_values": ("trial_id", "objective", "value", "value_type"),
}
OF_STUDIES = {
    "study_user_attributes": ("study_id", "key", "value_json"),
    "study_system_attributes": ("study_id", "key", "value_json"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a study in which every trial has a row in every table."""
    out = tmp_path_factory.mktemp("damaged") / "runs"
    study = WrittenStudy(out)
    for number in range(TRIALS):
        spec = network(8 + number)
        facts = {"architecture": spec.label, "candidate": spec.digest, "spec": spec.digest, **spec.cost._asdict()}
        facts |= {
            "blocks": 1,
            "budget_used": 0.5,
            "trained": True,
            "run": f"run-{number}",
            "seed": 0,
            "epochs": 2,
            "cycles": 2,
        }
        facts |= {"seconds": 1.5, "ended": "all 2 epochs", "status": "complete", "train_flops": 10**20}
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=0.5 + number / 100,
            params={"width": 8 + number},
            distributions={"width": IntDistribution(1, 99)},
            constraints={"params": -0.5},
            intermediate_values={1: 0.8},
            user_attrs={**facts, "validation_correct": 9_000, "validation_images": 10_000},
        )
        trial.datetime_start = datetime(2026, 1, 1)
        study.study.add_trial(trial)
    store_finals(study.study, Finals(finalists=(), seeds=(0,), recipe=study.recipe))
    study.study._storage.set_study_system_attr(study.study._study_id, "kept", 1)
    open_storage(default_storage(out), create=False).engine.dispose()
    with sqlite3.connect(out / "studies.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return out


@pytest.fixture
def out(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(written, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def set_row(out: Path, table: str, column: str, value: object, where: str, *of: object) -> bool:
    """Changes the first row that meets a condition; false if SQLite itself refuses the value."""
    connection = sqlite3.connect(out / "studies.db")
    try:
        statement = f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"
        with connection:
            assert connection.execute(statement, (value, *of)).rowcount == 1
    except sqlite3.IntegrityError:
        return False
    finally:
        connection.close()
    return True


class Reader:
    """Reads a study by commands that must end well and name the damaged trials, each in one line."""

    def __init__(self, tell: RunCommand, caplog: pytest.LogCaptureFixture) -> None:
        self.tell, self._caplog = tell, caplog

    def __call__(self, *commands: str) -> tuple[set[int], dict[int, str]]:
        """Gives the trials that are listed, and what is said of damaged ones by their number."""
        warned = set()
        for command in commands:
            self._caplog.clear()
            told = self.tell(command)
            assert (told.code, told.err) == (0, "")
            warned.add(tuple(self._caplog.messages))
        listed = json.loads(self.tell("trials", "--json").out)
        damaged = {int(number): damage for number, damage in listed["damaged"].items()}
        lines = tuple(f"study study: trial #{each} is damaged and left out: {damaged[each]}" for each in damaged)
        assert warned <= {lines}
        assert not any("\n" in line for line in lines)
        return {trial["number"] for trial in listed["trials"]}, damaged


@pytest.fixture
def read(out: Path, tell: RunCommand, caplog: pytest.LogCaptureFixture) -> Reader:
    return Reader(tell, caplog)


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in OF_TRIALS for column in OF_TRIALS[table]])
def test_every_trial_is_listed_or_named(out: Path, read: Reader, table: str, column: str) -> None:
    changed = {
        number for number, value in enumerate(VALUES) if set_row(out, table, column, value, "trial_id = ?", number + 1)
    }
    listed, damaged = read("leaderboard", "trials", "report")
    assert not listed & set(damaged)
    assert set(damaged) <= changed
    # Rows of another study, or of no trial, belong to no trial of this study.
    if column != "study_id":
        assert listed | set(damaged) == set(range(TRIALS))


@pytest.mark.parametrize(
    ("table", "column", "value", "damage"),
    [
        ("trials", "state", "WEIRD", "state = 'WEIRD': must be one of RUNNING, COMPLETE, PRUNED, FAIL, WAITING"),
        ("trials", "number", None, "number = None: must be a whole number"),
        ("trials", "number", 5, "number = 5: is the number of another trial"),
        ("trials", "datetime_start", "x", "datetime_start = 'x': must be a time"),
        ("trials", "datetime_complete", 3.5, "datetime_complete = 3.5: must be a time"),
        ("trial_user_attributes", "value_json", "{", "attribute architecture = '{': must be JSON"),
        ("trial_user_attributes", "value_json", "7", "attribute architecture = 7: must be text"),
        ("trial_user_attributes", "key", "other", "attribute architecture: missing"),
        ("trial_system_attributes", "value_json", '"x"', "system attribute constraints:params = 'x': must be a number"),
        ("trial_params", "param_value", 100.0, "parameter width = 100.0: must be in IntDistribution"),
        ("trial_params", "param_value", "x", "parameter width = 'x': must be in IntDistribution"),
        ("trial_params", "distribution_json", "{}", "distribution of parameter width = '{}': must be one"),
        ("trial_intermediate_values", "step", "x", "step of a report = 'x': must be a whole number"),
        (
            "trial_intermediate_values",
            "intermediate_value",
            1.5,
            "report at step 1 = 1.5: must be a number from 0 to 1",
        ),
        ("trial_values", "value", "x", "value = 'x': must be a number"),
        ("trial_values", "value_type", "WEIRD", "type of value = 'WEIRD': must be FINITE, INF_POS"),
        ("trial_values", "trial_id", 999, "value = None: must be a number from 0 to 1"),
    ],
)
def test_the_damaged_field_is_named(
    out: Path, read: Reader, table: str, column: str, value: object, damage: str
) -> None:
    assert set_row(out, table, column, value, "trial_id = ?", 4)
    listed, damaged = read()
    assert listed == set(range(TRIALS)) - {3}
    assert set(damaged) == {3}
    assert damaged[3].startswith(damage)


@pytest.mark.parametrize("name", DEPLOYED)
def test_numbers_of_the_deployed_network_are_checked(out: Path, read: Reader, name: str) -> None:
    assert set_row(out, "trial_user_attributes", "key", name, "trial_id = ? AND key = ?", 4, "ended")
    listed, damaged = read("leaderboard")
    assert damaged == {3: f"attribute {name} = 'all 2 epochs': must be a number of at least 0"}
    assert listed == set(range(TRIALS)) - {3}


@pytest.mark.parametrize("value", [" 3", "3\n", "3 4", "3]", ""])
def test_json_is_damaged_by_more_than_spaces_around_it(out: Path, read: Reader, value: str) -> None:
    assert set_row(out, "trial_user_attributes", "value_json", value, "trial_id = ? AND key = ?", 4, "seed")
    _, damaged = read()
    assert damaged == ({} if value.strip() == "3" else {3: f"attribute seed = {value!r}: must be JSON"})


@pytest.mark.parametrize("value", ["null", "{}", '"a/b"', "-1", "NaN", "1e400", "true"])
def test_attributes_of_another_type_are_named(out: Path, read: Reader, value: str) -> None:
    fits = {"enqueued": "{}", "trained": "true"}
    texts = ("architecture", "candidate", "spec", "ended", "status")
    keys = [
        *texts,
        "params",
        "macs",
        "activations",
        "blocks",
        "budget_used",
        "run",
        "seed",
        "epochs",
        "cycles",
        "seconds",
    ]
    keys += ["validation_correct", "validation_images"]
    expected = [key for key in keys if fits.get(key) != value and not (key in texts and value.startswith('"'))]
    for number, key in enumerate(expected):
        if number < TRIALS:
            where = "trial_id = ? AND key = ?", number + 1, key
            assert set_row(out, "trial_user_attributes", "value_json", value, *where)
    _, damaged = read()
    assert [damage.split()[:3] for damage in damaged.values()] == [["attribute", key, "="] for key in expected[:TRIALS]]


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in OF_STUDIES for column in OF_STUDIES[table]])
@pytest.mark.parametrize("value", ["[]", "[" * 100_000], ids=len)
def test_damaged_attributes_of_a_study_are_one_line(
    out: Path, tell: RunCommand, table: str, column: str, value: str
) -> None:
    keys = (SETTINGS_KEY, FINALS_KEY) if table == "study_user_attributes" else ("kept",)
    for key in keys:
        set_row(out, table, column, value, "key = ?", key)
        if (key, column) == (SETTINGS_KEY, "value_json"):
            assert tell("leaderboard").code == 2
        for command in ("leaderboard", "trials"):
            told = tell(command)
            assert told.code in (0, 2)
            assert told.err.count("\n") == (1 if told.code else 0)
            if column == "value_json" and told.code == 2:
                assert told.err.startswith("error: study = 'study': is damaged: study_user_attributes, budgetnet:")


def test_another_damaged_study_is_in_nobodys_way(out: Path, tell: RunCommand) -> None:
    WrittenStudy(out, name="second").complete(network(8), 9_000)
    assert set_row(out, "study_user_attributes", "value_json", "{", "key = ?", SETTINGS_KEY)
    assert tell("leaderboard", "second").code == tell("leaderboard").code == 0
    assert tell("leaderboard", "study").code == 2


def test_a_search_names_the_damaged_trial_and_changes_nothing(digits: DataSet, tmp_path: Path) -> None:
    search = SearchRunner(digits, tmp_path)
    search(trials=2)
    changes: list[tuple[str, str, Any]] = [("trials", "state", "WEIRD"), ("trial_user_attributes", "value_json", "{")]
    for table, column, value in changes:
        assert set_row(tmp_path, table, column, value, "trial_id = ?", 1)
        with sqlite3.connect(tmp_path / "studies.db") as connection:
            before = list(connection.iterdump())
        with pytest.raises(RecordError, match=r"^study = 'study': trial #0 is damaged: .+ = .+; mend it or"):
            search(trials=3)
        with sqlite3.connect(tmp_path / "studies.db") as connection:
            assert list(connection.iterdump()) == before
        connection.close()
