"""What callbacks are told of runs, and what becomes of a search when one of them raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from search_support import Question, Watcher
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Announced, Callback, Callbacks, Occasion
from budgetnet.training.trainer import train

RECIPE = tiny_recipe(epochs=3)


class Notebook(Callback):
    """Writes down every event but steps, one word each."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.begun_with: list[Announced] = []

    def begun(self, run: Announced, *, worker: int) -> None:
        self.begun_with.append(run)
        self.words.append(f"begun behind {len(run.curves)}")

    def epoch_ended(self, epoch: Epoch, *, worker: int) -> None:
        self.words.append(str(epoch.epoch))

    def ended(self, result: RunResult, *, worker: int) -> None:
        self.words.append(result.status)

    def broken_off(self, reason: str | None, *, worker: int) -> None:
        self.words.append(f"broken off: {reason}")


class Raising(Callback):
    """Raises in one event of the first run that has it."""

    def __init__(self, event: str, error: Exception) -> None:
        self.raised = 0

        def tell(*_: Any, **__: Any) -> None:
            self.raised += 1
            if self.raised == 1:
                raise error

        setattr(self, event, tell)


def test_a_run_is_told_whole_broken_off_gone_on_with_and_answered(digits: DataSet, tmp_path: Path) -> None:
    data, notebook = prepare(digits, RECIPE), Notebook()
    occasion = Occasion(worker=3, trained=2, study="mine", trial=7, drawn={"depth": 2})
    options: dict[str, Any] = {"seed": 4, "out": tmp_path, "occasion": occasion}
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, RECIPE, callback=Callbacks([notebook, Watcher(stop_at=1)]), **options)
    assert notebook.words == ["begun behind 0", "1", "broken off: None"]
    for _ in range(2):
        record = train(TINY, data, RECIPE, callback=notebook, **options)
    assert notebook.words[3:] == ["begun behind 1", "2", "3", "complete", "begun behind 3", "complete"]
    announced = notebook.begun_with[-1]
    assert announced.curves == record.curves
    assert (announced.run, announced.identity, announced.occasion) == (record.folder.name, record.identity, occasion)
    assert (announced.label, announced.params, announced.macs) == (TINY.label, TINY.params, TINY.macs)
    assert announced.epochs == 3
    # As it goes through a worker's pipe.
    assert Announced.from_mapping(json.loads(json.dumps(announced.to_mapping()))) == announced


def question(digits: DataSet, out: Path, callback: Callback) -> list[tuple[Any, ...]]:
    """What a search came to: its trained candidates in their order."""
    outcome = Question(digits, out)(trials=3, recipe=RECIPE, watcher=callback)
    trials = [trial for trial in outcome.study.get_trials() if trial.user_attrs.get("trained")]
    return [(trial.params, trial.value, trial.user_attrs["run"]) for trial in trials]


@pytest.mark.parametrize("event", ["begun", "stepped", "epoch_ended", "ended"])
@pytest.mark.parametrize(
    "error", [ValueError("mine"), RuntimeError("mine"), RecordError("run folder", "mine", "is damaged")]
)
def test_what_a_callback_raises_ends_the_search_and_loses_nothing(
    digits: DataSet, tmp_path: Path, event: str, error: Exception
) -> None:
    notebook, raising = Notebook(), Raising(event, error)
    with pytest.raises(type(error), match="mine") as caught:
        question(digits, tmp_path, Callbacks([notebook, raising]))
    assert caught.value is error
    assert notebook.words[-1] == "broken off: None"
    kept = [len(RunFolder(path).read_curves()) for path in tmp_path.iterdir() if path.is_dir()]
    found = question(digits, tmp_path, notebook)
    assert len({run for _, _, run in found}) == len(found) == 3
    gone_on = notebook.words[notebook.words.index("broken off: None") + 1]
    assert gone_on == f"begun behind {kept[0]}", "the same candidate, where it stopped"
    assert found[0][1] is not None
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_the_end_of_a_run_reaches_all_though_one_raises_again(
    digits: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notebook = Notebook()
    trouble = Callbacks([Raising("epoch_ended", ValueError("first")), Raising("broken_off", ValueError("again"))])
    with pytest.raises(ValueError, match="first"):
        train(TINY, prepare(digits, RECIPE), RECIPE, seed=0, out=tmp_path, callback=Callbacks([trouble, notebook]))
    assert notebook.words == ["begun behind 0", "broken off: None"]
    assert "failed as well: ValueError('again')" in caplog.text
