"""Searches as processes on a study that a PostgreSQL server keeps: machines that share it, and a server that stops.

Two searches with run folders of their own see no more of each other than two machines do: neither finds the other's
locks, and both know only what the server says.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from postgres_support import PASSWORD, PostgresServer
from support import TINY_SPACE, finished, started, tiny_recipe, wait_for, write_space

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


def by(out: Path, trial: FrozenTrial) -> bool:
    """Whether a trial was begun by the search with that folder of run folders."""
    return str(trial.user_attrs.get("worker")).rpartition("#")[0].endswith(f":{out.resolve()}")


def check_study(folder: Path, trials: list[FrozenTrial], outs: tuple[str, ...], *, wanted: int = TRIALS) -> None:
    """That so many candidates were trained as were wanted, each once, and that their run folders stand."""
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    trained = [trial for trial in trials if trial.user_attrs.get("trained")]
    assert len(trained) == len({trial.user_attrs["candidate"] for trial in trained}) == wanted
    assert [trial.number for trial in trials] == list(range(len(trials)))
    for out in outs:
        own = [trial for trial in trained if by(folder / out, trial)]
        assert own, f"{out} took no part"
        for trial in own:
            record = RunFolder(folder / out / trial.user_attrs["run"]).load()
            assert record.result.validation_accuracy == trial.value
            assert record.result.epochs == 40
    finished_runs = [path.parent.name for path in folder.glob("*/*/result.json")]
    assert sorted(finished_runs) == sorted(trial.user_attrs["run"] for trial in trained), "nothing was trained twice"


def test_two_machines_that_start_at_once_share_a_study(folder: Path, url: str, trials: Read) -> None:
    with ExitStack() as stack:
        pair = [stack.enter_context(started(*options(url, out), cwd=folder)) for out in ("A", "B")]
        answers = [process.communicate(timeout=300) for process in pair]
    for process, (_, err) in zip(pair, answers, strict=True):
        assert (process.returncode, err) == (0, "")
    assert max(json.loads(out)["trained"] for out, _ in answers) == TRIALS
    check_study(folder, trials(), ("A", "B"))
    again = finished(*options(url, "A"), cwd=folder)
    assert (again.returncode, json.loads(again.stdout)["trained"]) == (0, TRIALS)
    check_study(folder, trials(), ("A", "B"))


def test_a_machine_takes_up_what_another_was_at_when_it_was_killed(
    folder: Path, url: str, trials: Read, postgres: PostgresServer
) -> None:
    with started(*options(url, "A"), cwd=folder) as victim, started(*options(url, "B"), cwd=folder) as survivor:

        def in_training() -> list[FrozenTrial]:
            at = [trial for trial in trials() if trial.state == TrialState.RUNNING and by(folder / "A", trial)]
            return [each for each in at if (folder / "A" / each.user_attrs["run"] / "checkpoint.safetensors").exists()]

        def held_in_training() -> list[FrozenTrial]:
            # Not before the other one is there as well.
            if not any(by(folder / "B", trial) for trial in trials()) or not in_training():
                return []
            victim.send_signal(signal.SIGSTOP)
            if not (held := in_training()):
                victim.send_signal(signal.SIGCONT)
            return held

        (left,) = wait_for(held_in_training, process=victim)
        victim.kill()
        victim.communicate()
        # As if as much time had passed as a machine out of sight may be silent.
        aged = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour' WHERE trial_id ="
        postgres.execute(url, f"{aged} {left._trial_id}")
        out, err = survivor.communicate(timeout=300)
    assert (survivor.returncode, err) == (0, "")
    assert json.loads(out)["trained"] == TRIALS
    check_study(folder, trials(), ("B",))
    (retry,) = (trial for trial in trials() if trial.user_attrs.get("retry_of") == left.number)
    assert by(folder / "B", retry)
    assert (retry.params, retry.user_attrs["run"]) == (left.params, left.user_attrs["run"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_stops_is_told_in_one_line_and_nothing_is_trained_twice(
    folder: Path, url: str, trials: Read, postgres: PostgresServer, workers: int
) -> None:
    command = [*options(url, "A", trials=3), "--workers", str(workers)]
    with started(*command, cwd=folder) as process:

        def in_training() -> list[Path]:
            begun = list((folder / "A").glob("*/checkpoint.safetensors"))
            return begun if len(begun) == workers else []

        wait_for(in_training, process=process)
        postgres.stop()
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: --storage = 'postgresql+psycopg://budgetnet:***@127.0.0.1:")
    assert "cannot be used" in err
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
