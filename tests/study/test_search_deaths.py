"""Worker processes that die again and again in training one candidate, also when the search is killed in between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from search_support import SearchRunner, read_trials
from support import TINY, TINY_SPACE, prepare, started, tiny_recipe, until, wait_for, write_space
from worker_support import are_gone, workers_of

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.engines.batch import RunList
from budgetnet.engines.deaths import Deaths, Ending
from budgetnet.engines.jobs import Job, PlannedRun, Waiting
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.study.context import Plan, SearchContext
from budgetnet.study.driver import Driver
from budgetnet.study.storage import open_storage, study_settings
from budgetnet.training.callbacks import Callback

THREE = "its worker process died 3 times in the same epoch"
KILLED = Ending(-signal.SIGKILL)
LAST = "; the last time it was killed by signal SIGKILL"


def test_deaths_count_until_an_epoch_more_has_ended() -> None:
    deaths = Deaths()
    for epochs, count, too_many in [
        (0, 1, ""),
        (0, 2, ""),
        (1, 1, ""),
        (1, 2, ""),
        (7, 1, ""),
        (6, 2, ""),
        (7, 3, THREE),
    ]:
        deaths = deaths.with_one(epochs)
        assert (deaths.number, deaths.too_many) == (count, too_many)
        assert Deaths.of_attributes(deaths.to_attributes()) == deaths
    assert Deaths.of_attributes({}) == Deaths()


class Drivers:
    """Drivers of one study, each begun after the one before was killed, which left its trials as they were."""

    def __init__(self, run_search: SearchRunner) -> None:
        outcome = run_search(trials=1)
        self._search, self._study = run_search, outcome.study
        settings = study_settings(outcome.study)
        storage = open_storage(run_search.storage, create=True)
        data = prepare(run_search.digits, settings.recipe)
        self._context = SearchContext(settings, data, "study", storage, run_search.out)

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        lock = self._context.lock
        with lock.held():
            driver = Driver(self._context, self._study, plan=Plan(2), callback=Callback(), lock=lock)
            yield driver
            driver.store.flush()

    def write_epochs(self, run: str, count: int) -> None:
        folder = RunFolder(self._search.out / run)
        folder.path.mkdir(exist_ok=True)
        row = Epoch(1, 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0)
        folder.write_curves([row._replace(epoch=epoch) for epoch in range(1, count + 1)])

    def close(self) -> None:
        self._context.storage.remove_session()
        self._context.storage.engine.dispose()


@pytest.fixture
def drivers(digits: DataSet, tmp_path: Path) -> Iterator[Drivers]:
    made = Drivers(SearchRunner(digits, tmp_path))
    yield made
    made.close()


def begin(driver: Driver) -> str:
    """Let the worker begin the next candidate that is not rejected, and return its run."""
    while isinstance(job := driver.next_job(0), Waiting):
        pass
    assert isinstance(job, Job)
    (trial,) = driver.store.running.values()
    return str(trial.user_attrs["run"])


@pytest.mark.parametrize("known", [True, False])
def test_epochs_trained_under_a_search_that_is_killed_count_as_progress(drivers: Drivers, *, known: bool) -> None:
    with drivers.driver() as driver:
        for _ in range(2):
            run = begin(driver)
            driver.interrupted(0, death=KILLED, epochs=5)
        begin(driver)
    drivers.write_epochs(run, 20)
    with drivers.driver() as driver:
        assert begin(driver) == run
        # A worker can die before it has read how far its run had come.
        driver.interrupted(0, death=KILLED, epochs=20 if known else None)
        assert driver.store.trials[-1].user_attrs["ended"] == "interrupted"
        assert begin(driver) == run
        driver.interrupted(0, death=KILLED, epochs=20 if known else None)
    with drivers.driver() as driver:
        begin(driver)
        driver.interrupted(0, death=KILLED, epochs=20 if known else None)
        assert driver.store.trials[-1].user_attrs["ended"] == THREE + LAST
        assert begin(driver) != run


def test_without_progress_deaths_count_on_when_the_search_is_killed_or_interrupted(drivers: Drivers) -> None:
    with drivers.driver() as driver:
        begin(driver)
        driver.interrupted(0, death=KILLED, epochs=0)
        begin(driver)
        driver.interrupted(0, death=None, epochs=0)
    with drivers.driver() as driver:
        begin(driver)
        driver.interrupted(0, death=KILLED, epochs=None)
        begin(driver)
    with drivers.driver() as driver:
        begin(driver)
        driver.interrupted(0, death=KILLED, epochs=0)
        assert driver.store.trials[-1].user_attrs["ended"] == THREE + LAST


def test_a_death_is_told_with_its_cause_and_what_becomes_of_the_candidate(
    drivers: Drivers, caplog: pytest.LogCaptureFixture
) -> None:
    with drivers.driver() as driver:
        labels = []
        for ending in (KILLED, Ending(1), None, Ending()):
            begin(driver)
            candidate, trial = driver._training[0]
            labels.append(f"#{trial.number} {candidate.verdict.spec.label}")
            driver.interrupted(0, death=ending, epochs=None)
    first, second = (f"the candidate is resumed ({number} of at most 3 deaths in one epoch)" for number in (1, 2))
    assert caplog.messages == [
        f"worker 0 was killed by signal SIGKILL while it trained {labels[0]}; {first}",
        f"worker 0 ended with exit code 1 while it trained {labels[1]}; {second}",
        f"skipped {labels[3].split()[1]}: {THREE}",
    ]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with exit code 0"),
        (137, "ended with exit code 137"),
        (-signal.SIGSEGV, "was killed by signal SIGSEGV"),
        (-63, "was killed by signal 63"),
        (None, "died"),
    ],
)
def test_how_a_process_ended_is_said_in_words(status: int | None, text: str) -> None:
    ending = Ending(status)
    assert str(ending) == text
    assert ending.last == ("" if status is None else f"; the last time it {text}")


def test_deaths_of_a_run_of_a_batch_count_until_an_epoch_more_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    runs = RunList([PlannedRun(spec=TINY, recipe=tiny_recipe(), seed=seed) for seed in range(2)])
    for death, epochs in [(KILLED, 0), (KILLED, None), (None, 0), (KILLED, 3), (KILLED, None), (None, None)]:
        job = runs.next_job(0)
        assert job is not None
        assert job.run.seed == 0
        runs.interrupted(0, death=death, epochs=epochs)
    line = f"worker 0 was killed by signal SIGKILL while it trained {TINY.label}, seed 0; the run is resumed"
    assert caplog.messages == [f"{line} ({number} of at most 3 deaths in one epoch)" for number in (1, 2, 1, 2)]
    runs.next_job(0)
    with pytest.raises(BudgetnetError, match=f"seed 0: {THREE}{LAST}$"):
        runs.interrupted(0, death=KILLED, epochs=3)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds a search's workers in /proc")
def test_a_candidate_whose_workers_were_killed_twice_before_the_search_was_is_resumed(tmp_path: Path) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=4, batch_size=2).save(tmp_path / "recipe.yaml")
    options = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
    options += ["--train-size", "1000", "--validation-size", "40", "--workers", "2", "--trials", "1", "--json"]
    runs = tmp_path / "runs"

    def rows() -> int:
        return sum(len(RunFolder(file.parent).read_curves()) for file in runs.glob("*/curves.csv"))

    def in_training() -> int:
        """Return the worker that trains the only candidate, 0 if none does."""
        trials = read_trials(tmp_path)
        training = [pid for pid in workers_of(process.pid) if _has_lock_of_a_run(pid)]
        return training[0] if training and trials and trials[-1]["state"] == "RUNNING" else 0

    def kill_worker() -> None:
        os.kill(wait_for(in_training, process=process), signal.SIGKILL)

    with started(*options, cwd=tmp_path) as process:
        kill_worker()
        wait_for(lambda: len(read_trials(tmp_path)) == 2, process=process)
        kill_worker()
        assert rows() == 0, "both died in the first epoch"
        wait_for(lambda: rows() >= 2, process=process)
        workers = workers_of(process.pid)
        for pid in (process.pid, *workers):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        until(lambda: are_gone(workers))
    with started(*options, cwd=tmp_path) as process:
        kill_worker()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert err.count("\n") == err.count("was killed by signal SIGKILL while it trained #") == 1
    assert "; the candidate is resumed (1 of at most 3 deaths in one epoch)" in err
    trials = read_trials(tmp_path)
    assert [trial["state"] for trial in trials] == ["FAIL"] * 4 + ["COMPLETE"]
    assert [trial.get("deaths") for trial in trials] == [1, 2, 2, 1, 1]
    assert len({trial["run"] for trial in trials}) == 1


def _has_lock_of_a_run(pid: int) -> bool:
    try:
        files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any("/runs/" in file and file.endswith(".lock") for file in files)
