"""Searches as processes on a study that a PostgreSQL server keeps: one at a time, killed, and without their server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from postgres_support import PASSWORD, PostgresServer
from process_support import AVAILABLE, ForkedProcess, python_code
from support import TINY_SPACE, child_environment, finished, started, tiny_recipe, wait_for, write_space

from budgetnet.runs.store import RunFolder
from budgetnet.study.storage import find_study, open_storage

SEARCH = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
SEARCH += ["--train-size", "200", "--validation-size", "40", "--study", "shared", "--json"]
TRIALS = 8

pytestmark = pytest.mark.slow

Read = Callable[[], list[FrozenTrial]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=40).save(tmp_path / "recipe.yaml")
    return tmp_path


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def trials(url: str) -> Iterator[Read]:
    """Reads every trial of the study."""
    kept: list[Any] = []

    def read() -> list[FrozenTrial]:
        if not kept:
            kept.append(open_storage(url, create=True))
        names = [study.study_name for study in kept[0].get_all_studies()]
        return find_study(kept[0], "shared").get_trials() if names else []

    yield read
    for storage in kept:
        storage.remove_session()
        storage.engine.dispose()


def options(url: str, out: str, *, trials: int = TRIALS) -> list[str]:
    return [*SEARCH, "--storage", url, "--out", out, "--trials", str(trials)]


def check_study(folder: Path, trials: list[FrozenTrial], outs: tuple[str, ...], *, wanted: int = TRIALS) -> None:
    """Check that the wanted number of candidates was trained, each once, and that their run folders are complete."""
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    trained = [trial for trial in trials if trial.user_attrs.get("trained")]
    assert len(trained) == len({trial.user_attrs["candidate"] for trial in trained}) == wanted
    assert [trial.number for trial in trials] == list(range(len(trials)))
    finished_runs = {path.parent.name: path.parent for out in outs for path in (folder / out).glob("*/result.json")}
    assert sorted(finished_runs) == sorted(trial.user_attrs["run"] for trial in trained), "nothing was trained twice"
    for trial in trained:
        record = RunFolder(finished_runs[trial.user_attrs["run"]]).load()
        assert (record.result.validation_accuracy, record.result.epochs) == (trial.value, 40)


def test_one_search_at_a_time_and_a_killed_one_is_resumed_from_another_folder(
    folder: Path, url: str, trials: Read
) -> None:
    with started(*options(url, "A"), cwd=folder) as process:
        wait_for(lambda: list((folder / "A").glob("*/checkpoint.safetensors")), process=process)
        refused = finished(*options(url, "B"), cwd=folder)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
        assert "another search is running on this study" in refused.stderr
        assert not list((folder / "B").glob("*/result.json"))
        process.kill()
        process.communicate()
    done = finished(*options(url, "B"), cwd=folder)
    assert (done.returncode, done.stderr, json.loads(done.stdout)["trained"]) == (0, "", TRIALS)
    check_study(folder, trials(), ("A", "B"))
    (left,) = [trial for trial in trials() if trial.state == TrialState.FAIL]
    (retry,) = [trial for trial in trials() if trial.user_attrs.get("retry_of") == left.number]
    assert (retry.params, retry.user_attrs["run"]) == (left.params, left.user_attrs["run"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_stops_for_a_while_is_waited_for(
    folder: Path, url: str, trials: Read, postgres: PostgresServer, workers: int
) -> None:
    command = [*options(url, "A", trials=4), "--workers", str(workers)]
    with started(*command, cwd=folder) as process:
        wait_for(lambda: list((folder / "A").glob("*/checkpoint.safetensors")), process=process)
        postgres.stop()
        said = ""
        while "training goes on" not in said:
            said += process.stderr.readline()
        postgres.start()
        out, err = process.communicate(timeout=240)
    assert (process.returncode, json.loads(out)["trained"]) == (0, 4)
    assert (said + err).count("\n") == 2, said + err
    assert "reached again" in err
    assert PASSWORD not in said + err
    check_study(folder, trials(), ("A",), wanted=4)
    assert not [trial for trial in trials() if trial.state == TrialState.FAIL]


IMPATIENT = """
import sys
from budgetnet.cli.main import main
from budgetnet.study import writer
writer.PATIENCE = 0.0
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with no patience with a storage that is away."""


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_is_away_too_long_is_told_in_one_line_and_nothing_is_trained_twice(
    folder: Path, url: str, trials: Read, postgres: PostgresServer, workers: int
) -> None:
    command = [*options(url, "A", trials=3), "--workers", str(workers)]
    arguments = [IMPATIENT, *command]
    with ForkedProcess(arguments, cwd=folder, environment=child_environment(), function=python_code) as process:

        def in_training() -> list[Path]:
            begun = list((folder / "A").glob("*/checkpoint.safetensors"))
            return begun if len(begun) == workers else []

        wait_for(in_training, process=process)
        postgres.stop()
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    *warned, told = err.splitlines()
    assert len(warned) <= 1, err
    assert told.startswith("error: --storage = 'postgresql+psycopg://budgetnet:***@127.0.0.1:")
    assert "cannot be used" in told
    assert PASSWORD not in err
    down = finished(*command, cwd=folder)
    assert (down.returncode, down.stdout, down.stderr.count("\n")) == (2, "", 1), down.stderr
    assert PASSWORD not in down.stderr
    before = {path.parent: RunFolder(path.parent).read_curves() for path in (folder / "A").glob("*/environment.json")}
    assert before
    postgres.start()
    again = finished(*command, cwd=folder)
    assert (again.returncode, again.stderr) == (0, "")
    check_study(folder, trials(), ("A",), wanted=3)
    for path, curves in before.items():
        # A run's checkpoint may be an epoch behind its curves.
        whole = max(0, len(curves) - 1)
        assert list(RunFolder(path).load().curves[:whole]) == list(curves[:whole]), "no epoch is trained twice"
