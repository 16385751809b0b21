"""Batches of runs: resumed, shared between processes, and evaluated on a test set that is opened once."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_support import Watcher
from support import TINY, StopAfter, restarts, snapshot, tiny_recipe
from torch.nn import functional

from budgetnet.common.errors import BudgetnetError, DataError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.test_set import read_openings
from budgetnet.engines import batch as batch_module
from budgetnet.engines.batch import Batch, RunList
from budgetnet.engines.choice import make_engine
from budgetnet.engines.jobs import Engine, JobEnd, PlannedRun
from budgetnet.model.network import build
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.training.checkpoint import load_tensors
from budgetnet.training.trainer import train

RECIPE = tiny_recipe(learning_rate=0.1, test_time_flip=True)
CPU = torch.device("cpu")


@pytest.fixture
def batch(digits: DataSet, tmp_path: Path) -> Batch:
    return Batch(digits, device=CPU, out=tmp_path, train_size=64, validation_size=40)


def plan(count: int = 2) -> list[PlannedRun]:
    return [PlannedRun(spec=TINY, recipe=RECIPE, seed=seed) for seed in range(count)]


def test_runs_are_trained_once_and_returned_in_order(batch: Batch, tmp_path: Path) -> None:
    runs = [*plan(), PlannedRun(spec=TINY, recipe=RECIPE.with_epochs(1), seed=0)]
    watcher = Watcher(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        batch.train(runs, watcher)
    assert RunFolder(batch.folder(runs[0]).path).finished
    before = snapshot(batch.folder(runs[0]).path)
    watcher = Watcher()
    records = batch.train(runs, watcher)
    assert [info.epochs for info in watcher.networks] == [2, 1], "the first is complete"
    assert [(record.identity.seed, record.result.epochs) for record in records] == [(0, 2), (1, 2), (0, 1)]
    assert snapshot(batch.folder(runs[0]).path) == before
    assert batch.train(runs, Watcher()) == records


def test_a_complete_run_is_read_only_once(batch: Batch) -> None:
    (run,) = plan(1)
    assert batch.record(run) is None
    (record,) = batch.train([run], Watcher())
    shutil.rmtree(record.folder)
    assert batch.record(run) is record
    assert batch.train([run], Watcher()) == [record]


def test_recipes_can_split_differently(batch: Batch) -> None:
    other = RECIPE.model_copy(update={"split_seed": 1})
    runs = [PlannedRun(spec=TINY, recipe=recipe, seed=0) for recipe in (RECIPE, other)]
    first, second = batch.train(runs, Watcher())
    assert first.identity.data.split_fingerprint != second.identity.data.split_fingerprint
    assert batch.data(RECIPE) is batch.data(RECIPE.with_epochs(1))


def test_runs_of_another_process_are_waited_for_without_workers(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan()
    locked, others_done = threading.Event(), threading.Event()
    started, looks = [], []

    def hold() -> None:
        with batch.folder(runs[0]).locked():
            locked.set()
            others_done.wait(60)

    def engine(*values: Any, **options: Any) -> Engine:
        started.append(1)
        return make_engine(*values, **options)

    def look(folder: RunFolder, *, within: float = 0.0) -> bool:
        looks.append(1)
        if len(looks) == 5:
            others_done.set()
        return is_free(folder, within=min(within, 0.01) if len(looks) < 5 else within)

    is_free = RunFolder.is_free
    monkeypatch.setattr(RunFolder, "is_free", look)
    monkeypatch.setattr(batch_module, "make_engine", engine)
    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(60)
    watcher = Watcher()
    records = batch.train(runs, watcher)
    thread.join()
    assert [record.identity.seed for record in records] == [0, 1]
    assert [run.identity.seed for run in watcher.networks] == [1, 0]
    assert len(started) == 2, "one for each time that there was something to train"


def test_a_run_that_another_command_goes_on_with_ends_the_batch() -> None:
    # It would take the run over again, and both would go on doing so.
    runs = RunList(plan(1))
    assert runs.next_job(0) is not None
    with pytest.raises(BudgetnetError, match="taken over") as caught:
        runs.ended(0, JobEnd("taken over", message="another worker has taken over this run", exit_code=2))
    assert caught.value.exit_code == 2
    assert not runs.busy


def reference_evaluation(
    record: RunRecord, digits: DataSet, log: Path
) -> tuple[float, int, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return loss, correct predictions and probabilities on the test set with flip augmentation, in float64."""
    images, labels = digits.test.open(reason="a test", by="an oracle", log=log)
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (digits.mean, digits.std))
    inputs = torch.from_numpy((images.astype(np.float64) / 255 - mean) / std)
    network = build(TINY).double()
    network.load_state_dict(load_tensors(record.folder / "best.safetensors")[0])
    network.eval()
    with torch.no_grad():
        both = [functional.softmax(network(each), dim=1) for each in (inputs, inputs.flip(3))]
    probabilities = ((both[0] + both[1]) / 2).numpy()
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen).mean()), int((probabilities.argmax(axis=1) == labels).sum()), probabilities


def test_the_test_set_is_opened_once_for_complete_runs(batch: Batch, digits: DataSet, tmp_path: Path) -> None:
    records = batch.train(plan(), Watcher())
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()
    evaluated = batch.evaluate_on_test(records, by="a test", reason="first time")
    (opening,) = read_openings(tmp_path / TEST_OPENINGS_FILE)
    assert (opening["by"], opening["reason"], opening["count"]) == ("a test", "first time", 360)
    assert opening["runs"] == [record.folder.name for record in records]
    for record in evaluated:
        loss, correct, probabilities = reference_evaluation(record, digits, tmp_path / "oracle.jsonl")
        assert record.test is not None
        assert (record.test.correct, record.test.images) == (correct, 360)
        assert record.test.loss == pytest.approx(loss, rel=1e-5)
        scores = RunFolder(record.folder).read_scores()
        assert scores is not None
        np.testing.assert_allclose(scores.probabilities, probabilities, atol=1e-5)
        assert scores.correct == correct
    more = batch.train(plan(3), Watcher())
    before = snapshot(evaluated[0].folder)
    assert batch.evaluate_on_test(more, by="a test", reason="again")[:2] == evaluated
    again = read_openings(tmp_path / TEST_OPENINGS_FILE)[1:]
    assert [(each["reason"], each["runs"]) for each in again] == [("again", [more[2].folder.name])], "only the new run"
    assert snapshot(evaluated[0].folder) == before
    batch.evaluate_on_test(more, by="a test", reason="once more")
    assert len(read_openings(tmp_path / TEST_OPENINGS_FILE)) == 2, "all runs have a test result"


def test_a_damaged_run_leaves_the_test_set_sealed(batch: Batch, tmp_path: Path) -> None:
    records = batch.train(plan(), Watcher())
    (records[1].folder / "best.safetensors").write_bytes(b"nothing")
    with pytest.raises(RecordError, match="best weights"):
        batch.evaluate_on_test(records, by="a test", reason="first time")
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()
    assert batch.evaluate_on_test(records[:1], by="a test", reason="first time")[0].test is not None
    scores = records[0].folder / "test-scores.safetensors"
    scores.write_bytes(scores.read_bytes()[:-9])
    with pytest.raises(RecordError, match="are damaged"):
        RunFolder(records[0].folder).read_scores()


def test_two_processes_open_the_test_set_once_for_shared_runs(batch: Batch, tmp_path: Path) -> None:
    records = batch.train(plan(), Watcher())
    both = threading.Barrier(2)
    evaluated: list[list[RunRecord]] = []

    def evaluate() -> None:
        both.wait(60)
        evaluated.append(batch.evaluate_on_test(records, by="one of two", reason="at once"))

    threads = [threading.Thread(target=evaluate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_openings(tmp_path / TEST_OPENINGS_FILE)) == 1
    assert evaluated[0] == evaluated[1]
    assert all(record.test for record in evaluated[0])


def test_a_run_that_a_search_stopped_is_trained_to_its_end(batch: Batch) -> None:
    run = plan(1)[0]
    stopped = train(run.spec, batch.data(run.recipe), run.recipe, seed=run.seed, out=batch.out, pruning=StopAfter(1))
    assert (stopped.result.status, stopped.result.epochs) == ("stopped", 1)
    (record,) = batch.train([run], Watcher())
    assert record.folder == stopped.folder
    assert (record.result.status, record.result.epochs) == ("complete", 2)


def test_weights_of_another_run_are_rejected(batch: Batch, tmp_path: Path) -> None:
    first, second = batch.train(plan(), Watcher())
    (second.folder / "best.safetensors").write_bytes((first.folder / "best.safetensors").read_bytes())
    with pytest.raises(RecordError, match="not the weights of this run"):
        batch.evaluate_on_test([first, second], by="a test", reason="first time")
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()


def test_a_folder_that_cannot_be_locked_leaves_the_test_set_sealed(batch: Batch, tmp_path: Path) -> None:
    records = batch.train(plan(1), Watcher())
    (tmp_path / f".{TEST_OPENINGS_FILE}.lock").mkdir()
    with pytest.raises(DataError, match="so the test set stays sealed"):
        batch.evaluate_on_test(records, by="a test", reason="first time")
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()
    assert not list(tmp_path.glob("*/test.json"))


def test_a_diverged_run_is_not_evaluated(batch: Batch, tmp_path: Path) -> None:
    diverging = tiny_recipe(learning_rate=1e30, schedule=restarts(2))
    records = batch.train([PlannedRun(spec=TINY, recipe=diverging, seed=0)], Watcher())
    assert records[0].result.status == "diverged"
    assert batch.evaluate_on_test(records, by="a test", reason="first time")[0].test is None
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()
