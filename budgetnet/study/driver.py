"""Search loop of one worker: sample a candidate, check it against the budget, train it and store the result."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
import torch
from optuna.storages import RDBStorage

from budgetnet.common.errors import BudgetnetError, BusyError, InputError, RecordError
from budgetnet.data.training_data import TrainingData
from budgetnet.model.cost import Cost
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import require_reliable_validation
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.study.bulk import Written
from budgetnet.study.config import SearchConfig
from budgetnet.study.ledger import Entry, Ledger
from budgetnet.study.outcomes import OUT_OF_MEMORY
from budgetnet.study.presence import Presence, heartbeat
from budgetnet.study.proposer import Proposals
from budgetnet.study.pruner import make_pruner
from budgetnet.study.pruning_callback import PruningReporter
from budgetnet.study.settings import StudySettings
from budgetnet.study.space import feasibility
from budgetnet.study.space.images import check_image_size
from budgetnet.study.storage import open_study, storage_errors
from budgetnet.training.callbacks import Callback, Callbacks, RunContext
from budgetnet.training.devices import choose_precision
from budgetnet.training.out_of_memory import retry_out_of_memory
from budgetnet.training.step import Execution
from budgetnet.training.trainer import identify, train

_log = logging.getLogger(__name__)

MAX_REJECTED = 1_000
"""Candidates rejected in a row, over budget or duplicates, after which the search stops."""

_POLL_INTERVAL = 2.0
"""Seconds between two checks of the trials that other machines train."""

End = Literal["done", "time", "exhausted"]
"""Why a worker stopped: the study has enough trials, the time is up, or the sampler finds nothing new that fits."""


class Plan(NamedTuple):
    """When a search stops, and what it trains first."""

    trials: int
    """Number of trained candidates to reach, those of earlier searches included."""
    enqueued: tuple[ModelSpec, ...] = ()
    """Networks to train first, unchanged."""
    deadline: float | None = None
    """Time to stop at, on the clock of `time.time`. Default: never."""


class SearchContext(NamedTuple):
    """Settings of a study, with its data, storage and folder."""

    settings: StudySettings
    """Space, budget, recipe, data and seed."""
    data: TrainingData
    """Training and validation images, on the training device; each of several workers copies them to its own."""
    study_name: str
    """Name of the study in the storage."""
    storage: RDBStorage
    """Storage of the study."""
    out: Path
    """Folder of run folders."""
    workers: int = 1
    """Number of worker processes."""

    @property
    def device(self) -> torch.device:
        """Device to train on."""
        return torch.device(self.settings.device)

    @property
    def presence(self) -> Presence:
        """The locks of the study."""
        return Presence(self.storage, self.study_name, self.out)


class SearchOutcome(NamedTuple):
    """Result of a search."""

    study: optuna.Study
    trained: int
    """Number of trained candidates of the study, those of earlier searches included."""
    end: End
    """Why the search stopped."""


class _TimeUpError(Exception):
    """The deadline has passed."""


class _Clock(Callback):
    """Callback that interrupts training at the first step after the deadline."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - the deadline is common to all
        if self._deadline is not None and time.time() >= self._deadline:
            raise _TimeUpError


def make_settings(data: TrainingData, config: SearchConfig, *, device: torch.device | None = None) -> StudySettings:
    """Return the settings of a search, with its device and precision.

    Args:
        data: training and validation images.
        config: options of the search.
        device: device to train on. Default: the device of the images.

    Raises:
        InputError: a recipe, space or file that the config names is missing or breaks a rule, or the recipe validates
            on images that it trains on, so that candidates cannot be ranked.
    """
    recipe = config.candidate_recipe
    require_reliable_validation(recipe, field="recipe")
    device = device or data.train.images.device
    return StudySettings(
        config=config,
        space=config.search_space,
        recipe=recipe,
        data=data.record,
        device=device.type,
        precision=choose_precision(recipe.precision, device),
    )


def search(context: SearchContext, plan: Plan, callback: Callback) -> SearchOutcome:
    """Train candidates in this process until the study has enough; the same call resumes the search.

    Args:
        context: the study's settings, data, storage and folder.
        plan: when to stop.
        callback: called with the progress; an exception from it ends the search, and the next one resumes the trial.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study exists with another config.
        BusyError: another search is running on the study.
    """
    require_feasible(context.settings, context.data)
    context.out.mkdir(parents=True, exist_ok=True)
    presence = context.presence
    with presence.searching(), presence, storage_errors(context.storage):
        study = open_study(context.storage, context.study_name, context.settings)
        worker = Worker(context, study=study, presence=presence, callback=callback)
        end = worker.work(plan)
        return SearchOutcome(study, worker.ledger.trained, end)


def require_feasible(settings: StudySettings, data: TrainingData) -> None:
    """Require that every candidate can be trained and the smallest one fits the budget.

    Raises:
        OverBudgetError: not even the smallest network that may be proposed fits.
        InputError: widths are to be fitted to a budget without limits, or some candidate could not be trained on images
            of this size.
    """
    check_image_size(settings.space, settings.recipe, input_shape=data.input_shape)
    sizing = settings.config.sizing
    space = settings.space if sizing == "reject" else settings.space.narrowest
    if sizing != "reject" and not settings.budget.limits(Cost(0, 0, 0)):
        raise InputError("sizing", sizing, "needs a limit to fit widths to, such as 5M parameters")
    feasibility.require_feasible(space, settings.budget, input_shape=data.input_shape, num_classes=data.num_classes)


class Worker:
    """Worker of a search: starts each candidate under the study's lock and trains it without the lock."""

    def __init__(self, context: SearchContext, *, study: optuna.Study, presence: Presence, callback: Callback) -> None:
        self._settings, self._data, self._storage, self._out = (
            context.settings,
            context.data,
            context.storage,
            context.out,
        )
        self._presence, self._study_name, self._callback = presence, context.study_name, callback
        pruner = make_pruner(self._settings.config.pruner, self._settings.recipe)
        self.ledger = Ledger(study, self._storage, presence, pruner=pruner)

    def work(self, plan: Plan) -> End:
        """Train candidates until the study has enough or the time is up."""
        with self._presence.gate():
            self.ledger.refresh()
        slot = self._presence.slot
        proposals = Proposals(self.ledger, self._settings, self._data, enqueued=plan.enqueued, worker=slot)
        rejected = 0
        while rejected < MAX_REJECTED:
            with self._presence.gate():
                self.ledger.refresh()
                enough = self.ledger.trained + len(self.ledger.running) >= plan.trials
                waiting = self.ledger.trained < plan.trials and self.ledger.others_elsewhere
                if enough and not waiting:
                    return "done"
                if plan.deadline is not None and time.time() >= plan.deadline:
                    return "time"
                started = None if enough else self._start_next(proposals, plan)
            if enough:
                # The results of other machines are only seen by polling the storage.
                time.sleep(_POLL_INTERVAL)
                continue
            if started is None:
                rejected += 1
                continue
            try:
                ended = self._train(*started, plan)
            except _TimeUpError:
                return "time"
            rejected = 0 if ended else rejected + 1
        return "exhausted"

    def _start_next(self, proposals: Proposals, plan: Plan) -> tuple[Entry, Written] | None:
        """Propose and start a candidate; return None if it is rejected."""
        proposal = proposals.next()
        entry = proposal.entry
        if not entry.verdict.fits:
            proposals.written(proposal, self.ledger.reject(entry))
            self._callback.on_trial_rejected(worker=self._presence.slot)
            return None
        if entry.key in self.ledger.results:
            proposals.written(proposal, self.ledger.repeat(entry))
            return None
        if entry.key in self.ledger.running:
            return None
        run = RunFolder.of(self._identity(entry), self._out).path.name
        written = self.ledger.begin(entry, run=run, seed=self._settings.config.seed, trials=plan.trials)
        if written is None:
            return None
        proposals.written(proposal, written)
        return entry, written

    def _identity(self, entry: Entry) -> Any:
        return identify(entry.verdict.spec, self._data, entry.recipe, seed=self._settings.config.seed)

    def _train(self, entry: Entry, written: Written, plan: Plan) -> bool:
        """Train a candidate and store its result; return whether it counts as trained."""
        callbacks = Callbacks([self._callback, _Clock(plan.deadline)])
        try:
            with heartbeat(self._storage, written.trial_id):
                record, parts = self._train_in_parts(entry, written, callbacks)
        except BaseException as error:
            if self._continues_after(error, entry, written, of_callback=error is callbacks.raised):
                return False
            raise
        if record is None:
            self.ledger.finish(written, value=None, facts={"ended": OUT_OF_MEMORY})
        else:
            self._finish(written, record, parts)
        return record is not None

    def _continues_after(self, error: BaseException, entry: Entry, written: Written, *, of_callback: bool) -> bool:
        """Store why a candidate failed; return whether the search continues without it."""
        if of_callback or isinstance(error, (KeyboardInterrupt, SystemExit, OSError)):
            # A temporary cause, such as a full disk, or one outside the candidate: the next search resumes it.
            self.ledger.interrupt(written)
        elif isinstance(error, BusyError):
            # Another study's search is training the same run; continue with other candidates.
            self.ledger.leave(written)
            return True
        elif isinstance(error, RecordError):
            # Only this candidate is affected: its folder is damaged, or of another version.
            self.ledger.fail(written, reason=str(error)[:500])
            _log.warning("skipped %s: %s", entry.verdict.spec.label, error)
            return True
        elif isinstance(error, (BudgetnetError, RuntimeError)):
            self.ledger.fail(written, reason=f"{type(error).__name__}: {error}"[:500])
        return False

    def _train_in_parts(self, entry: Entry, written: Written, callbacks: Callback) -> tuple[RunRecord | None, int]:
        """Train a candidate; return its record, None if out of memory, and the number of parts of its batches."""
        context = RunContext(
            self._presence.slot, self.ledger.trained, self._study_name, trial=written.number, sampled=entry.params
        )

        def attempt(execution: Execution) -> RunRecord:
            return train(
                entry.verdict.spec,
                self._data,
                entry.recipe,
                seed=self._settings.config.seed,
                out=self._out,
                execution=execution,
                callback=callbacks,
                context=context,
                pruning=reporter,
            )

        reporter = PruningReporter(self.ledger, written, entry.recipe, retry_of=entry.retry_of)
        record, parts = retry_out_of_memory(attempt)
        if record is not None:
            reporter.catch_up(record.curves)
        return record, parts

    def _finish(self, written: Written, record: RunRecord, parts: int) -> None:
        result = record.result
        accuracy = result.validation_accuracy
        facts: dict[str, Any] = {
            "trained": True,
            "ended": result.reason,
            "status": result.status,
            "epochs": result.epochs,
            "cycles": result.cycles,
            "seconds": round(result.seconds, 3),
            "train_flops": record.train_flops,
        }
        if parts > 1:
            facts["batch_parts"] = parts
        if accuracy is not None:
            facts |= {
                "validation_accuracy": round(accuracy, 6),
                "validation_correct": result.validation_correct,
                "validation_images": result.validation_images,
            }
        self.ledger.finish(written, value=accuracy if result.status == "complete" else None, facts=facts)
