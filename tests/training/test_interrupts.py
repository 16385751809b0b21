"""Ctrl-C during training, also where Python swallows the exception."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import caused_by_interrupt
from budgetnet.data import DataSet
from budgetnet.engines import running
from budgetnet.engines.jobs import Job, PlannedRun
from budgetnet.engines.running import run_job
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback
from budgetnet.training.interrupts import Interrupts
from budgetnet.training.trainer import identify, train


class Thing:
    """Something that a weak reference can refer to."""


class LostCtrlC(Callback):
    """Presses Ctrl-C within the callback of a weak reference, at a step of the second epoch."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        self.steps += 1
        if epoch == 2 and share < 0.5:
            thing = Thing()
            self.reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del thing


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_swallows_ends_training_at_that_step(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=4)
    data, pressed = prepare(digits, recipe), LostCtrlC()
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=pressed)
    folder = RunFolder.of(identify(TINY, data, recipe, seed=0), tmp_path)
    assert (len(folder.read_curves()), pressed.steps) == (1, 4 + 1), "one epoch of four steps, and a step"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(TINY, data, recipe, seed=0, out=tmp_path).result.epochs == 4


def test_an_interrupt_that_compiled_code_turned_into_another_exception_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemError("returned a result with an exception set") from None
    with pytest.raises(SystemError), Interrupts():
        raise SystemError("of another cause")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_swallows_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        thing = Thing()
        _reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_exception_that_is_its_own_cause_is_no_interrupt() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__ = first
    assert not caused_by_interrupt(first)
    first.__cause__, second.__cause__ = second, first
    assert not caused_by_interrupt(first)
    second.__cause__ = KeyboardInterrupt()
    assert caused_by_interrupt(first)


def test_a_job_whose_import_was_interrupted_has_not_failed(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(running, "train", interrupted)
    recipe = tiny_recipe()
    job = Job(PlannedRun(spec=TINY, recipe=recipe, seed=0))
    with pytest.raises(KeyboardInterrupt):
        run_job(job, prepare(digits, recipe), out=tmp_path, callback=Callback(), report=lambda _: False)


def test_other_handlers_and_threads_are_left_alone() -> None:
    def own(*_: Any) -> None:
        pass

    before = signal.signal(signal.SIGINT, own)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGINT) is own
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with Interrupts():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failed == []
