"""Jobs that engines execute, how they end, and the interface of the code that hands them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple, Protocol

from budgetnet.common.documents import Document
from budgetnet.common.errors import BudgetnetError
from budgetnet.engines.deaths import Ending
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunContext


class PlannedRun(Document):
    """A run to train: network, recipe and seed."""

    spec: ModelSpec
    """Architecture."""
    recipe: Recipe
    """Training recipe."""
    seed: int
    """Seed of initialisation, order of the images and augmentation."""


class Job(NamedTuple):
    """A run for a worker to train."""

    run: PlannedRun
    context: RunContext = RunContext()
    """Search or batch that the run belongs to, for callbacks."""
    reports: bool = False
    """Whether the end of each cycle is reported, and the reply decides whether training stops there."""
    reported: tuple[int, ...] = ()
    """Epochs that an interrupted job of the same run reported before."""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "run": self.run.to_mapping(),
            "context": self.context._replace(sampled=dict(self.context.sampled))._asdict(),
            "reports": self.reports,
            "reported": list(self.reported),
        }

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Job:
        """Create the object from the output of `to_mapping`."""
        return cls(
            PlannedRun.from_mapping(mapping["run"]),
            RunContext(**mapping["context"]),
            mapping["reports"],
            tuple(mapping["reported"]),
        )


JobOutcome = Literal["trained", "out of memory", "busy", "taken over", "unreadable", "interrupted", "failed"]
"""How a job ends.

busy: another process is training the same run. taken over: the workers of another command went on with it meanwhile.
unreadable: its run folder is damaged or of another version. interrupted: for a reason outside the run, such as a full
disk. failed: for any other reason.
"""


class JobEnd(NamedTuple):
    """How a job ended."""

    outcome: JobOutcome
    result: RunResult | None = None
    """Result of a trained run."""
    train_flops: int | None = None
    """Training cost of a trained run in floating-point operations, if it is known."""
    run: str = ""
    """Name of the folder of a trained run."""
    parts: int = 1
    """Number of parts that each batch was divided into to save memory."""
    message: str = ""
    """Why there is no result."""
    exit_code: int = 1
    """Exit code of a command that ends with this message."""
    error: BaseException | None = None
    """The exception, if it was raised in this process."""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data, ready for JSON, without the exception."""
        result = self.result.to_mapping() if self.result else None
        return {**self._replace(error=None)._asdict(), "result": result}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> JobEnd:
        """Create the object from the output of `to_mapping`."""
        result = RunResult.from_mapping(mapping["result"]) if mapping["result"] else None
        return cls(**{**mapping, "result": result})

    def as_error(self) -> BaseException:
        """Return the exception to raise for a job that ends everything."""
        if self.error is not None:
            return self.error
        error = BudgetnetError(self.message)
        error.exit_code = self.exit_code
        return error


class Waiting(NamedTuple):
    """No job yet: ask again at once, after other events were handled."""


WAITING = Waiting()


class Dispatcher(Protocol):
    """What hands out jobs and receives their events; called from one thread."""

    def next_job(self, worker: int) -> Job | Waiting | None:
        """Return a job for an idle worker, or None if there is none until another job has ended."""

    def report(self, worker: int, epoch: Epoch) -> bool:
        """Receive the last epoch of a cycle; return whether training stops there."""

    def ended(self, worker: int, end: JobEnd) -> None:
        """Receive the end of a worker's job; an exception stops the engine."""

    def interrupted(self, worker: int, *, death: Ending | None, epochs: int | None) -> None:
        """Receive that a worker's job was interrupted and can be resumed.

        Args:
            worker: number of the worker.
            death: how its process ended; None if it did not, or if the job is not to blame.
            epochs: number of epochs of the run that had ended; None if the worker had not yet read its run folder.
        """

    def tick(self) -> None:
        """Do what is due, such as writing to a storage; called after every event. An exception stops the engine."""


class Engine(ABC):
    """Executes jobs with one or several workers."""

    workers: int
    """Number of workers."""

    @abstractmethod
    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:
        """Execute jobs until the dispatcher has none and all have ended.

        Args:
            dispatcher: hands out the jobs; its exceptions interrupt all running jobs.
            callback: receives the events of the runs; its exceptions interrupt all running jobs.

        Raises:
            BudgetnetError: a worker failed, or workers die again and again.
        """
