"""Searches on PostgreSQL: resuming, server failures, and machines that share a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from postgres_support import PASSWORD, PostgresServer
from search_support import MAX_PARAMS, SearchRunner, Watcher
from support import PAIR_SPACE, TINY, TINY_SPACE, RunCommand, prepare, restarts, tiny_recipe

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.study import presence as presence_module
from budgetnet.study.bulk import Written, insert_trial
from budgetnet.study.config import SearchConfig
from budgetnet.study.driver import SearchOutcome, make_settings
from budgetnet.study.ledger import Entry, Ledger
from budgetnet.study.presence import Presence
from budgetnet.study.proposer import Proposal, Proposals
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import open_storage, open_study, read_trials
from budgetnet.study.trials import count_outcomes

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
def test_search_resumes_after_server_stop(
    run_search: SearchRunner,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    # So short that signs of life are given while nobody is there to take them.
    monkeypatch.setattr(presence_module, "HEARTBEAT_INTERVAL", 0.005)
    with pytest.raises(RecordError, match=r"storage.*cannot be used") as caught:
        run_search(trials=2, recipe=CYCLES, watcher=Outage(postgres, epoch=epoch))
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


def test_server_restart_during_training_is_tolerated(run_search: SearchRunner, postgres: PostgresServer) -> None:
    outcome = run_search(trials=2, recipe=CYCLES, watcher=Outage(postgres, epoch=1, again=True))
    assert (outcome.trained, len(trained_of(outcome))) == (2, 2)
    assert {trial.state for trial in trained_of(outcome)} == {TrialState.COMPLETE}


def test_interrupt_is_raised_although_server_is_down(run_search: SearchRunner, postgres: PostgresServer) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=1, recipe=CYCLES, watcher=Outage(postgres, epoch=1, error=KeyboardInterrupt))
    postgres.start()
    outcome = run_search(trials=1, recipe=CYCLES)
    assert [trial.state for trial in trials_of(outcome) if "run" in trial.user_attrs] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Has something happen once between the next proposal and its begin, where workers out of sight may act."""
    acted: list[bool] = []
    propose = Proposals.next

    def next_but_late(self: Proposals) -> Proposal:
        proposal = propose(self)
        if not acted and proposal.entry.verdict.fits:
            acted.append(True)
            act()
        return proposal

    monkeypatch.setattr(Proposals, "next", next_but_late)


def test_two_machines_train_no_surplus_candidates(
    run_search: SearchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    meanwhile(monkeypatch, lambda: run_search(trials=3, out=there))
    outcome = run_search(trials=3)
    assert (outcome.end, len(trained_of(outcome))) == ("done", 3)
    assert not run_search.out.exists() or not runs_in(run_search.out)
    assert len(runs_in(there)) == 3
    (late,) = [trial for trial in trials_of(outcome) if trial.user_attrs.get("ended") == "enough are in training"]
    assert (late.state, late.values) == (TrialState.PRUNED, None)
    assert count_outcomes(read_trials(outcome.study)) | {"over_budget": 0} == {
        "trained": 3,
        "pruned": 0,
        "over_budget": 0,
        "duplicate": 0,
        "no_result": 0,
    }
    more = run_search(trials=4)
    assert len({trial.user_attrs["candidate"] for trial in trained_of(more)}) == len(trained_of(more)) == 4


def test_candidate_of_another_machine_is_not_trained_again(
    run_search: SearchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 6)
    meanwhile(monkeypatch, lambda: run_search(trials=2, space=PAIR_SPACE, out=there))
    outcome = run_search(trials=5, space=PAIR_SPACE)
    assert (outcome.trained, outcome.end) == (2, "exhausted")
    assert len({trial.user_attrs["candidate"] for trial in trained_of(outcome)}) == 2
    assert len(runs_in(there)) == 2
    assert not runs_in(run_search.out)
    assert sum(trial.user_attrs.get("ended") == "taken by another worker" for trial in trials_of(outcome)) == 1


class Two(NamedTuple):
    """Two machines' ledgers of one study, and candidates to begin."""

    one: Ledger
    other: Ledger
    entries: list[Entry]


@pytest.fixture
def two(digits: DataSet, url: str, tmp_path: Path) -> Iterator[Two]:
    data = prepare(digits, CYCLES)
    settings = make_settings(data, SearchConfig(recipe=CYCLES, max_params=MAX_PARAMS, space=SearchSpace(**TINY_SPACE)))
    specs = tuple(TINY.replace(channels=[width]) for width in (8, 16, 24))
    with opened(url) as storage:
        study = open_study(storage, "study", settings)
        one, other = (Ledger(study, storage, Presence(storage, "study", tmp_path / name)) for name in ("here", "there"))
        one.refresh()
        other.refresh()
        proposals = Proposals(one, settings, data, enqueued=specs)
        yield Two(one, other, [proposals.next().entry for _ in specs])


def begin(ledger: Ledger, entry: Entry, *, trials: int = 9) -> Any:
    return ledger.begin(entry, run="r", seed=0, trials=trials)


def test_first_machine_keeps_a_shared_candidate(two: Two) -> None:
    one, other, (entry, *_) = two
    assert begin(one, entry)
    assert begin(other, entry) is None
    other.refresh()
    assert [trial.number for trial in other.running.values()] == [0]


def test_surplus_retry_keeps_interrupted_candidate_waiting(two: Two) -> None:
    one, other, (left, entry, _) = two
    interrupted = begin(other, left)
    other.interrupt(interrupted)
    other.refresh()
    assert begin(one, entry, trials=1)
    assert begin(other, left._replace(retry_of=interrupted.number), trials=1) is None
    other.refresh()
    assert [trial.number for trial in other.interrupted] == [interrupted.number]
    assert begin(other, left._replace(retry_of=interrupted.number), trials=2)
    other.refresh()
    assert not other.interrupted


@pytest.mark.parametrize("same", [True, False])
def test_first_trial_is_kept_when_another_follows(two: Two, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    one, other, (first, second, _) = two
    behind: list[Written] = []

    def insert_and_be_slow(storage: RDBStorage, study_id: int, trial: FrozenTrial) -> Written:
        written = insert_trial(storage, study_id, trial)
        candidate = first.key if same else second.key
        trial.user_attrs |= {"candidate": candidate, "worker": "another-machine:/runs#0"}
        behind.append(insert_trial(storage, study_id, trial))
        return written

    with monkeypatch.context() as patch:
        patch.setattr("budgetnet.study.ledger.insert_trial", insert_and_be_slow)
        assert begin(one, first, trials=1)
    other.refresh()
    assert sorted(trial.number for trial in other.running.values()) == ([0] if same else [0, behind[0].number])


def test_candidate_of_a_stale_machine_is_resumed(
    run_search: SearchRunner, postgres: PostgresServer, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """As little is written as when the process is killed."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("budgetnet.study.ledger.close_trial", lambda *_, **__: False)
        with pytest.raises(Killed):
            run_search(trials=2, recipe=CYCLES, watcher=Watcher(stop_at=1, error=Killed))
    (left,) = postgres.execute(run_search.storage, "SELECT trial_id FROM trials WHERE state = 'RUNNING'")
    there = tmp_path / "there"
    patient = run_search(trials=1, recipe=CYCLES, out=there, deadline=time.time() + 1)
    assert (patient.trained, patient.end) == (0, "time"), "it may still be at work, and is waited for"
    postgres.execute(run_search.storage, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '110 seconds'")
    assert run_search(trials=1, recipe=CYCLES, out=there, deadline=time.time() + 1).trained == 0
    postgres.execute(run_search.storage, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '41 seconds'")
    outcome = run_search(trials=2, recipe=CYCLES, out=there)
    assert outcome.trained == 2
    lost, retry, _ = [trial for trial in trials_of(outcome) if "run" in trial.user_attrs]
    assert (lost._trial_id, lost.state) == (left[0], TrialState.FAIL)
    assert (retry.user_attrs["retry_of"], retry.params) == (lost.number, lost.params)
    assert {trial.user_attrs["worker"].partition("#")[0] for trial in trained_of(outcome)} == {
        retry.user_attrs["worker"].partition("#")[0]
    }
    assert lost.user_attrs["worker"] != retry.user_attrs["worker"]


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
        with pytest.raises(RecordError, match="made with another max_params"):
            others[0].result()
