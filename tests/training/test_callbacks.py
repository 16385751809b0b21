"""Events that callbacks receive, and searches whose callbacks raise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from search_support import SearchRunner, Watcher
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, Callbacks, RunContext, RunInfo
from budgetnet.training.trainer import train

RECIPE = tiny_recipe(epochs=3)


class EventLog(Callback):
    """Records every event except steps as a string."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.started: list[RunInfo] = []

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        self.started.append(run)
        self.events.append(f"start after {len(run.curves)}")

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        self.events.append(str(epoch.epoch))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        self.events.append(result.status)

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        self.events.append(f"interrupted: {reason}")


class Raising(Callback):
    """Raises an error at the first event of one kind."""

    def __init__(self, event: str, error: Exception) -> None:
        self._event, self._error = event, error
        self._raised = False

    def _handle(self, event: str) -> None:
        if event == self._event and not self._raised:
            self._raised = True
            raise self._error

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        self._handle("run start")

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        self._handle("step end")

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        self._handle("epoch end")

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        self._handle("run end")

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        self._handle("interruption")


def test_events_of_an_interrupted_resumed_and_completed_run(digits: DataSet, tmp_path: Path) -> None:
    data, log = prepare(digits, RECIPE), EventLog()
    context = RunContext(worker=3, trained=2, study="mine", trial=7, sampled={"depth": 2})
    options: dict[str, Any] = {"seed": 4, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, RECIPE, callback=Callbacks([log, Watcher(stop_at=1)]), context=context, **options)
    assert log.events == ["start after 0", "1", "interrupted: None"]
    for _ in range(2):
        record = train(TINY, data, RECIPE, callback=log, context=context, **options)
    assert log.events[3:] == ["start after 1", "2", "3", "complete", "start after 3", "complete"]
    info = log.started[-1]
    assert info.curves == record.curves
    assert (info.run, info.identity, info.context) == (record.folder.name, record.identity, context)
    assert (info.label, info.params, info.macs) == (TINY.label, TINY.params, TINY.macs)
    assert info.epochs == 3
    # Workers send it as JSON through a pipe.
    assert RunInfo.from_mapping(json.loads(json.dumps(info.to_mapping()))) == info


def search(digits: DataSet, out: Path, callback: Callback) -> list[tuple[Any, ...]]:
    """Run a search and return parameters, value and run of its trained trials, in order."""
    outcome = SearchRunner(digits, out)(trials=3, recipe=RECIPE, watcher=callback)
    trials = [trial for trial in outcome.study.get_trials() if trial.user_attrs.get("trained")]
    return [(trial.params, trial.value, trial.user_attrs["run"]) for trial in trials]


@pytest.mark.parametrize("event", ["run start", "step end", "epoch end", "run end"])
@pytest.mark.parametrize(
    "error", [ValueError("mine"), RuntimeError("mine"), RecordError("run folder", "mine", "is damaged")]
)
def test_an_exception_of_a_callback_ends_the_search_which_can_be_resumed(
    digits: DataSet, tmp_path: Path, event: str, error: Exception
) -> None:
    log, raising = EventLog(), Raising(event, error)
    with pytest.raises(type(error), match="mine") as caught:
        search(digits, tmp_path, Callbacks([log, raising]))
    assert caught.value is error
    assert log.events[-1] == "interrupted: None"
    trained = [len(RunFolder(path).read_curves()) for path in tmp_path.iterdir() if path.is_dir()]
    found = search(digits, tmp_path, log)
    assert len({run for _, _, run in found}) == len(found) == 3
    resumed = log.events[log.events.index("interrupted: None") + 1]
    assert resumed == f"start after {trained[0]}", "the interrupted trial is resumed"
    assert found[0][1] is not None
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_all_callbacks_receive_the_interruption_although_one_raises_again(
    digits: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog()
    raising = Callbacks([Raising("epoch end", ValueError("first")), Raising("interruption", ValueError("again"))])
    with pytest.raises(ValueError, match="first"):
        train(TINY, prepare(digits, RECIPE), RECIPE, seed=0, out=tmp_path, callback=Callbacks([raising, log]))
    assert log.events == ["start after 0", "interrupted: None"]
    assert "also failed when the run was interrupted: ValueError('again')" in caplog.text
