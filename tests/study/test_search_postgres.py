"""Searches on PostgreSQL: resuming, servers that are away, and the lock of a study."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna import Study, load_study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from postgres_support import PASSWORD, PostgresServer
from search_support import MAX_PARAMS, SearchRunner, Watcher
from support import TINY_SPACE, EachEpoch, RunCommand, prepare, restarts, tiny_recipe

from budgetnet.common.errors import BudgetnetError, BusyError, RecordError
from budgetnet.data import DataSet
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.study import writer
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings
from budgetnet.study.driver import SearchOutcome
from budgetnet.study.lock import StudyLock
from budgetnet.study.reading import read_trials
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import open_storage, open_study
from budgetnet.study.trial_store import TrialStore
from budgetnet.study.trials import front

CYCLES: Recipe = tiny_recipe(epochs=4, schedule=restarts(2))
"""Recipe with a report to the storage after every second epoch."""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path, url: str) -> SearchRunner:
    return SearchRunner(digits, tmp_path / "here", storage=url)


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    storage = open_storage(url, create=True)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials_of(outcome: SearchOutcome) -> list[FrozenTrial]:
    return outcome.study.get_trials(deepcopy=False)


def trained_of(outcome: SearchOutcome) -> list[FrozenTrial]:
    return [trial for trial in trials_of(outcome) if trial.user_attrs.get("trained")]


def runs_in(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_dir()}


def test_search_resumes_on_postgres(run_search: SearchRunner) -> None:
    first = run_search(trials=2)
    before, watcher = trials_of(first), Watcher()
    more = run_search(trials=4, watcher=watcher)
    assert (more.trained, more.end, len(watcher.networks)) == (4, "done", 2)
    assert trials_of(more)[: len(before)] == before
    assert len({trial.user_attrs["candidate"] for trial in trained_of(more)}) == 4
    for trial in trained_of(more):
        record = RunFolder(run_search.out / trial.user_attrs["run"]).load()
        assert record.result.validation_accuracy == trial.value
    watcher = Watcher()
    assert trials_of(run_search(trials=4, watcher=watcher)) == trials_of(more)
    assert (watcher.networks, watcher.turned) == ([], 0)


def test_several_objectives_on_postgres(run_search: SearchRunner, url: str) -> None:
    ways = {"objectives": "accuracy,macs", "sampler": "nsga2"}
    first = trials_of(run_search(trials=2, ways=ways))
    more = run_search(trials=3, ways=ways)
    assert trials_of(more)[: len(first)] == first
    study = load_study(study_name="study", storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in trained_of(more):
        assert trial.values == [trial.user_attrs["validation_accuracy"], trial.user_attrs["macs"]]
    found = front(read_trials(more.study), costs=("macs",))
    assert {(each.accuracy, each.macs) for each in found} == {tuple(trial.values) for trial in study.best_trials}


def test_postgres_and_sqlite_give_equal_results(run_search: SearchRunner, digits: DataSet, tmp_path: Path) -> None:
    in_file = SearchRunner(digits, tmp_path / "file")
    facts = [
        [(trial.number, trial.state, trial.values, trial.params, trial.constraints) for trial in trials_of(outcome)]
        for outcome in (run_search(trials=3, recipe=CYCLES), in_file(trials=3, recipe=CYCLES))
    ]
    assert facts[0] == facts[1]


def test_commands_search_and_read_on_postgres(tell: RunCommand, url: str, tmp_path: Path) -> None:
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    SearchSpace(**TINY_SPACE).save(tmp_path / "space.yaml")
    where = ["--storage", url, "--out", str(tmp_path / "runs")]
    empty = tell("leaderboard", *where)
    assert (empty.code, empty.out, empty.err.count("\n")) == (2, "", 1)
    assert "the storage has no study yet" in empty.err
    options = ["--space", str(tmp_path / "space.yaml"), "--recipe", str(tmp_path / "recipe.yaml")]
    sizes = ["--max-params", "20k", "--device", "cpu", "--train-size", "64", "--validation-size", "40"]
    searched = tell("search", *options, *sizes, "--trials", "1", *where, "--json")
    assert searched.code == 0, searched.err
    shown = tell("leaderboard", *where, "--json")
    assert (shown.code, shown.out) == (0, searched.out)
    assert PASSWORD not in "".join((*map(str, empty), *map(str, searched), *map(str, shown)))


@pytest.mark.parametrize("verb", ["search", "leaderboard"])
@pytest.mark.parametrize("fault", ["wrong password", "no database", "server down", "password in the query"])
def test_server_error_is_one_line_without_password(
    tell: RunCommand, postgres: PostgresServer, tmp_path: Path, verb: str, fault: str
) -> None:
    url, reason = {
        "wrong password": (postgres.url("postgres", password="wrong-secret"), "password authentication failed"),
        "no database": (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        "server down": (postgres.url("postgres"), "Connection refused"),
        "password in the query": (
            postgres.url("postgres").replace(f":{PASSWORD}", "") + "?password=wrong-secret",
            "password authentication failed",
        ),
    }[fault]
    assert "secret" in url or PASSWORD in url
    if fault == "server down":
        postgres.stop()
    told = tell(verb, "--storage", url, "--out", str(tmp_path))
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1), told.err
    assert told.err.startswith("error: --storage = 'postgresql+psycopg://budgetnet")
    assert reason in told.err
    assert not any(secret in told.err for secret in ("wrong-secret", PASSWORD))


class Outage(Watcher):
    """Stops the server at an epoch of the first candidate, and maybe starts it again; may raise something then."""

    def __init__(self, server: PostgresServer, *, epoch: int, again: bool = False, error: Any = None) -> None:
        super().__init__()
        self._server, self._epoch, self._again, self._then = server, epoch, again, error

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        super().on_epoch_end(epoch, worker=worker)
        if len(self.epochs) == self._epoch:
            self._server.stop()
            if self._again:
                self._server.start()
            if self._then:
                raise self._then


@pytest.mark.parametrize("epoch", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_server_restart_during_training_is_tolerated(
    run_search: SearchRunner, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, epoch: int, workers: int
) -> None:
    outcome = run_search(trials=2, recipe=CYCLES, watcher=Outage(postgres, epoch=epoch, again=True), workers=workers)
    trials = trained_of(outcome)
    assert (outcome.trained, outcome.end, len(trials)) == (2, "done", 2)
    assert {(trial.state, tuple(trial.intermediate_values)) for trial in trials} == {(TrialState.COMPLETE, (2, 4))}
    assert not [trial for trial in trials_of(outcome) if trial.state == TrialState.FAIL], "none was interrupted"
    assert PASSWORD not in caplog.text


def test_training_goes_on_without_the_server(
    run_search: SearchRunner,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer, "_FIRST_PAUSE", 0.01)

    class Away(Watcher):
        """Stops the server in the first candidate, and starts it again in the third."""

        def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
            super().on_epoch_end(epoch, worker=worker)
            if len(self.epochs) == 1:
                postgres.stop()
            elif len(self.results) == 2:
                postgres.start()

    watcher = Away()
    outcome = run_search(trials=4, recipe=CYCLES, watcher=watcher)
    assert (outcome.trained, outcome.end, len(watcher.results), watcher.broken) == (4, "done", 4, [])
    assert len(trained_of(outcome)) == 4
    assert caplog.text.count("cannot be reached; training goes on") == 1
    assert caplog.text.count("reached again") == 1
    assert PASSWORD not in caplog.text


def test_search_resumes_after_the_server_was_away_too_long(
    run_search: SearchRunner, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.0)
    with pytest.raises(RecordError, match=r"storage.*cannot be used") as caught:
        run_search(trials=2, recipe=CYCLES, watcher=Outage(postgres, epoch=3))
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    (run,) = runs_in(run_search.out)
    before = RunFolder(run_search.out / run).read_curves()
    postgres.start()
    watcher = Watcher()
    outcome = run_search(trials=2, recipe=CYCLES, watcher=watcher)
    left, retry, _ = [trial for trial in trials_of(outcome) if trial.user_attrs.get("run")]
    assert (left.state, left.user_attrs["ended"]) == (TrialState.FAIL, "interrupted")
    assert (retry.user_attrs["retry_of"], retry.user_attrs["run"]) == (left.number, run)
    assert list(retry.intermediate_values) == [2, 4], "also what was reported before"
    assert (outcome.trained, len(runs_in(run_search.out))) == (2, 2)
    assert list(RunFolder(run_search.out / run).load().curves[: len(before)]) == before, "no epoch is trained twice"
    assert len(watcher.epochs) == 8 - len(before)


def test_interrupt_is_raised_although_server_is_down(run_search: SearchRunner, postgres: PostgresServer) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=1, recipe=CYCLES, watcher=Outage(postgres, epoch=1, error=KeyboardInterrupt))
    postgres.start()
    outcome = run_search(trials=1, recipe=CYCLES)
    assert [trial.state for trial in trials_of(outcome) if "run" in trial.user_attrs] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_second_search_on_a_study_is_refused_also_from_another_folder(
    run_search: SearchRunner, tmp_path: Path, workers: int
) -> None:
    refused: list[BudgetnetError] = []

    def search_too(_epoch: Epoch) -> None:
        for out in (None, tmp_path / "there"):
            with pytest.raises(BusyError, match="another search is running") as caught:
                run_search(trials=2, recipe=CYCLES, out=out)
            refused.append(caught.value)
        assert run_search(trials=1, name="other", out=tmp_path / "other").trained == 1

    outcome = run_search(trials=1, recipe=CYCLES, watcher=EachEpoch(search_too), workers=workers)
    assert (outcome.trained, len(refused)) == (1, 2 * 4)
    assert {error.exit_code for error in refused} == {2}
    assert run_search(trials=2, recipe=CYCLES, out=tmp_path / "there").trained == 2, "afterwards it goes on anywhere"


def test_a_search_whose_lock_another_took_while_the_server_was_away_ends(
    run_search: SearchRunner, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LOCK_PATIENCE", 0.0)
    with opened(run_search.storage) as storage, ExitStack() as stack:

        class Taken(Outage):
            def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
                super().on_epoch_end(epoch, worker=worker)
                if len(self.epochs) == 1:
                    stack.enter_context(StudyLock(storage, "study", tmp_path).held())

        with pytest.raises(BusyError, match="another search is running"):
            run_search(trials=2, recipe=CYCLES, watcher=Taken(postgres, epoch=1, again=True))
        with pytest.raises(BusyError, match="another search is running"):
            run_search(trials=2, recipe=CYCLES)
    assert run_search(trials=2, recipe=CYCLES).trained == 2


def test_a_lock_that_a_broken_connection_still_holds_is_waited_for(
    run_search: SearchRunner, postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(run_search.storage) as storage, ExitStack() as stack:

        class Kept(Outage):
            def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
                super().on_epoch_end(epoch, worker=worker)
                if len(self.epochs) == 1:
                    # As the server keeps the session of a connection that it does not know to be broken.
                    stack.enter_context(StudyLock(storage, "study", tmp_path).held())
                elif len(self.epochs) == 4:
                    stack.close()

        outcome = run_search(trials=2, recipe=CYCLES, watcher=Kept(postgres, epoch=1, again=True))
    assert (outcome.trained, outcome.end) == (2, "done")
    assert any("the study's lock is held; training goes on for" in message for message in caplog.messages)
    assert caplog.messages[-1].endswith("reached again")


def test_a_trial_left_unfinished_counts_as_interrupted_while_no_search_holds_the_lock(
    run_search: SearchRunner, tmp_path: Path
) -> None:
    run_search(trials=1)
    with opened(run_search.storage) as storage:
        study = load_study(study_name="study", storage=storage)
        trained = study.get_trials()[-1]
        left = create_trial(
            state=TrialState.RUNNING,
            params=trained.params,
            distributions=trained.distributions,
            user_attrs=trained.user_attrs,
        )
        study.add_trial(left)
        with StudyLock(storage, "other", tmp_path).held():
            assert [trial.outcome for trial in read_trials(study)[-2:]] == ["complete", "interrupted"]
        with StudyLock(storage, "study", tmp_path).held():
            assert [trial.outcome for trial in read_trials(study)[-2:]] == ["complete", "running"]


def test_server_forgets_the_lock_of_a_killed_search(run_search: SearchRunner, postgres: PostgresServer) -> None:
    class Killed(BaseException):
        """As little is written as when the process is killed."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialStore, "flush", lambda *_, **__: None)
        with pytest.raises(Killed):
            run_search(trials=2, recipe=CYCLES, watcher=Watcher(stop_at=1, error=Killed))
    assert run_search(trials=2, recipe=CYCLES).trained == 2


def test_concurrent_creation_of_database_and_study(digits: DataSet, postgres: PostgresServer) -> None:
    data = prepare(digits, CYCLES)
    settings = make_settings(data, SearchConfig(recipe=CYCLES, max_params=MAX_PARAMS, space=SearchSpace(**TINY_SPACE)))

    def make(url: str) -> str:
        with opened(url) as storage:
            return open_study(storage, "study", settings).study_name

    for _ in range(3):
        url = postgres.new_database()
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(make, [url] * 4)) == ["study"] * 4
        assert postgres.execute(url, "SELECT count(*) FROM studies") == [(1,)]


def test_settings_are_stored_before_other_machines_see_the_study(
    digits: DataSet, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(digits, CYCLES)
    asked: dict[str, Any] = {"seed": 0, "space": SearchSpace(**TINY_SPACE)}
    mine, theirs = (
        make_settings(data, SearchConfig(recipe=CYCLES, max_params=most, **asked)) for most in (20_000, 30_000)
    )
    set_user_attr = Study.set_user_attr
    others: list[Future[Study]] = []
    with opened(url) as storage, opened(url) as their_storage, ThreadPoolExecutor(1) as thread:

        def set_late(self: Study, key: str, value: Any) -> None:
            if not others:
                others.append(thread.submit(open_study, their_storage, "study", theirs))
                wait(others, timeout=1)
            set_user_attr(self, key, value)

        monkeypatch.setattr(Study, "set_user_attr", set_late)
        open_study(storage, "study", mine)
        with pytest.raises(RecordError, match="made with max_params 20000, not 30000"):
            others[0].result()
