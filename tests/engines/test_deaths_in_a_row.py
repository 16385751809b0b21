"""What is said when the workers of an engine die again and again, whatever the processes are."""

from __future__ import annotations

import signal
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.engines.deaths import Ending
from budgetnet.engines.jobs import Job, JobEnd, PlannedRun
from budgetnet.engines.remote import Message, RemoteEngine
from budgetnet.runs.records import Epoch
from budgetnet.training.callbacks import Callback


class Dying(RemoteEngine):
    """One worker whose process ends with the next of some exit statuses, before it is ready or in a run."""

    def __init__(self, data: Any, statuses: list[int | None], *, ready: bool) -> None:
        super().__init__(data, out=Path(), device="cpu", workers=1)
        self._statuses, self._ready = deque(statuses), ready
        self._messages: list[Message] = []

    def _start_all(self) -> None:
        self._start(0)

    def _start(self, worker: int) -> None:
        self._messages = [Message(worker, "ready" if self._ready else "gone")]

    def _send(self, worker: int, *message: Any) -> None:
        del message
        self._messages.append(Message(worker, "gone"))

    def _receive(self, timeout: float) -> list[Message]:
        del timeout
        received, self._messages = self._messages, []
        return received

    def _ending(self, worker: int) -> Ending:
        del worker
        return Ending(self._statuses.popleft())

    def _stop_all(self) -> None:
        pass


class Runs:
    """Hands out the same run for ever."""

    def next_job(self, worker: int) -> Job:
        del worker
        return Job(PlannedRun(spec=TINY, recipe=tiny_recipe(), seed=0))

    def report(self, worker: int, epoch: Epoch) -> bool:
        raise AssertionError

    def ended(self, worker: int, end: JobEnd) -> None:
        raise AssertionError

    def interrupted(self, worker: int, *, death: Ending | None, epochs: int | None) -> None:
        assert (worker, epochs) == (0, None)
        assert death is not None

    def tick(self) -> None:
        pass


NINE = "9 times in a row without having trained an epoch"
THREE = "3 times in a row before it was ready"
LAST = "; the last time it was killed by signal"
FEWER = "which is often for lack of memory: repeat the command with fewer workers to resume"
RESUME = ": repeat the command to resume"


@pytest.mark.parametrize(
    ("statuses", "ready", "message"),
    [
        ([1] * 8 + [-signal.SIGKILL], True, f"{NINE}{LAST} SIGKILL, {FEWER}"),
        ([-signal.SIGKILL] * 8 + [1], True, f"{NINE}; the last time it ended with exit code 1{RESUME}"),
        ([-signal.SIGSEGV] * 9, True, f"{NINE}{LAST} SIGSEGV{RESUME}"),
        ([None] * 9, True, f"{NINE}{RESUME}"),
        ([1] * 3, False, f"{THREE}; the last time it ended with exit code 1{RESUME}"),
        ([-signal.SIGKILL] * 3, False, f"{THREE}{LAST} SIGKILL, {FEWER}"),
    ],
)
def test_a_worker_that_dies_again_and_again_ends_the_command_with_what_is_known(
    digits: DataSet, statuses: list[int | None], message: str, *, ready: bool
) -> None:
    engine = Dying(prepare(digits, tiny_recipe()), statuses, ready=ready)
    with pytest.raises(BudgetnetError) as caught:
        engine.run(Runs(), Callback())
    assert str(caught.value) == f"worker 0 died {message}"
