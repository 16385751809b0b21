"""The search: candidates are proposed, checked against the budget, trained if they fit, and written down."""

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
from budgetnet.model.published import reference
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
from budgetnet.study.pruning_callback import CycleJudge
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

MAX_TURNED_AWAY = 1_000
"""Candidates turned away in a row, over budget or trained before, after which the search gives up."""

_LOOK_AGAIN = 2.0
"""Seconds between two looks at what other machines are training."""

End = Literal["done", "time", "exhausted"]
"""Why a worker ended: nothing is left to begin, the time is up, or nothing new that fits was proposed any more."""


class Plan(NamedTuple):
    """How far a search goes, apart from its question."""

    trials: int
    """Trained candidates that the study shall have, those of earlier searches included."""
    by_hand: tuple[ModelSpec, ...] = ()
    """Networks to be trained first, each as it stands."""
    deadline: float | None = None
    """When to stop, as `time.time` counts; never if left out."""


class Arrangement(NamedTuple):
    """A question, and where it is worked on."""

    settings: StudySettings
    """The question: space, budget, recipe, data and seed."""
    data: TrainingData
    """Training and validation images, on the device to train on; several workers take them to theirs."""
    study_name: str
    """Name of the study in the storage."""
    storage: RDBStorage
    """Where the study lives."""
    out: Path
    """Folder of run folders."""
    workers: int = 1
    """Processes at work."""

    @property
    def device(self) -> torch.device:
        """Where candidates are trained."""
        return torch.device(self.settings.device)

    @property
    def presence(self) -> Presence:
        """The locks of the study."""
        return Presence(self.storage, self.study_name, self.out)


class SearchOutcome(NamedTuple):
    """What a search did."""

    study: optuna.Study
    trained: int
    """Trained candidates of the study, those of earlier searches included."""
    end: End
    """Why it ended."""


class _TimeUpError(Exception):
    """The time is up."""


class _Clock(Callback):
    """Breaks training off within a step of the time that it shall stop at."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - time is the same to all
        if self._deadline is not None and time.time() >= self._deadline:
            raise _TimeUpError


def question(data: TrainingData, config: SearchConfig, *, device: torch.device | None = None) -> StudySettings:
    """Return the question that a search asks, with the device and the precision that it would train in.

    Args:
        data: training and validation images.
        config: what is searched for, and how.
        device: where candidates are trained; where the images are by default.

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


def search(place: Arrangement, plan: Plan, callback: Callback) -> SearchOutcome:
    """Trains candidates in this process until a study has as many as wanted; to go on is the same call.

    Args:
        place: the question, and where it is worked on.
        plan: how far to go.
        callback: is told of progress; what it raises ends the search, and the candidate in training is taken up again.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question.
        BusyError: another search is at work on the study.
    """
    require_feasible(place.settings, place.data)
    place.out.mkdir(parents=True, exist_ok=True)
    presence = place.presence
    with presence.searching(), presence, storage_errors(place.storage):
        study = open_study(place.storage, place.study_name, place.settings)
        worker = Worker(place, study=study, presence=presence, callback=callback)
        end = worker.work(plan)
        return SearchOutcome(study, worker.ledger.trained, end)


def require_feasible(settings: StudySettings, data: TrainingData) -> None:
    """Lets a question pass that has an answer.

    Raises:
        OverBudgetError: not even the smallest network that may be proposed fits.
        InputError: widths are to be fitted to a budget without limits, or some candidate could not be trained on images
            of this size.
    """
    check_image_size(settings.space, settings.recipe, input_shape=data.input_shape)
    sizing = settings.config.sizing
    space = settings.space if sizing == "reject" else settings.space.narrowest
    if sizing != "reject" and not settings.budget.limits(Cost(0, 0, 0)):
        raise InputError("sizing", sizing, "needs a limit to make networks for, such as 5M parameters")
    feasibility.require_feasible(space, settings.budget, input_shape=data.input_shape, num_classes=data.num_classes)


class Worker:
    """One process at work on a study: begins a candidate behind the study's gate, trains it outside, and so on."""

    def __init__(self, place: Arrangement, *, study: optuna.Study, presence: Presence, callback: Callback) -> None:
        self._settings, self._data, self._storage, self._out = place.settings, place.data, place.storage, place.out
        self._presence, self._study_name, self._callback = presence, place.study_name, callback
        pruner = make_pruner(self._settings.config.pruner, self._settings.recipe)
        self.ledger = Ledger(study, self._storage, presence, pruner=pruner)

    def work(self, plan: Plan) -> End:
        """Trains candidates until nothing is left to begin, or the time is up."""
        with self._presence.gate():
            self.ledger.refresh()
        slot = self._presence.slot
        proposals = Proposals(self.ledger, self._settings, self._data, by_hand=plan.by_hand, worker=slot)
        turned_away = 0
        while turned_away < MAX_TURNED_AWAY:
            with self._presence.gate():
                self.ledger.refresh()
                enough = self.ledger.trained + len(self.ledger.running) >= plan.trials
                waiting = self.ledger.trained < plan.trials and self.ledger.others_out_of_sight
                if enough and not waiting:
                    return "done"
                if plan.deadline is not None and time.time() >= plan.deadline:
                    return "time"
                begun = None if enough else self._begin_next(proposals, plan)
            if enough:
                # Whether another machine's candidates come to their ends only the storage tells, when it is asked.
                time.sleep(_LOOK_AGAIN)
                continue
            if begun is None:
                turned_away += 1
                continue
            try:
                ended = self._train(*begun, plan)
            except _TimeUpError:
                return "time"
            turned_away = 0 if ended else turned_away + 1
        return "exhausted"

    def _begin_next(self, proposals: Proposals, plan: Plan) -> tuple[Entry, Written] | None:
        """Proposes a candidate and begins it; none if it was turned away."""
        proposal = proposals.next()
        entry = proposal.entry
        if not entry.verdict.fits:
            proposals.written(proposal, self.ledger.turn_away(entry))
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
        """Trains one candidate and writes down how it ended; tells whether it counts as trained."""
        told = Callbacks([self._callback, _Clock(plan.deadline)])
        try:
            with heartbeat(self._storage, written.trial_id):
                record, parts = self._train_in_parts(entry, written, told)
        except BaseException as error:
            if self._goes_on(error, entry, written, of_callback=error is told.raised):
                return False
            raise
        if record is None:
            self.ledger.finish(written, value=None, facts={"ended": OUT_OF_MEMORY})
        else:
            self._finish(written, record, parts)
        return record is not None

    def _goes_on(self, error: BaseException, entry: Entry, written: Written, *, of_callback: bool) -> bool:
        """Writes down how a candidate broke off, and tells whether the search goes on without it."""
        if of_callback or isinstance(error, (KeyboardInterrupt, SystemExit, OSError)):
            # What passes, such as a full disk, or is no fault of the candidate's: it is taken up again.
            self.ledger.interrupt(written)
        elif isinstance(error, BusyError):
            # Another study's search is training the same run; this one goes on with others.
            self.ledger.leave(written)
            return True
        elif isinstance(error, RecordError):
            # Of this candidate alone: its folder is damaged, or of another version.
            self.ledger.fail(written, reason=str(error)[:500])
            _log.warning("%s is left out: %s", entry.verdict.spec.label, error)
            return True
        elif isinstance(error, (BudgetnetError, RuntimeError)):
            self.ledger.fail(written, reason=f"{type(error).__name__}: {error}"[:500])
        return False

    def _train_in_parts(self, entry: Entry, written: Written, told: Callback) -> tuple[RunRecord | None, int]:
        """Trains a candidate; gives its record, none where memory did not suffice, and the parts of its batches."""
        context = RunContext(
            self._presence.slot, self.ledger.trained, self._study_name, trial=written.number, drawn=entry.params
        )

        def attempt(execution: Execution) -> RunRecord:
            return train(
                entry.verdict.spec,
                self._data,
                entry.recipe,
                seed=self._settings.config.seed,
                out=self._out,
                execution=execution,
                callback=told,
                context=context,
                pruning=judge,
            )

        judge = CycleJudge(self.ledger, written, entry.recipe, retry_of=entry.retry_of)
        record, parts = retry_out_of_memory(attempt)
        if record is not None:
            judge.catch_up(record.curves)
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
                "gap_to_reference": round(accuracy - reference().accuracy, 6),
            }
        self.ledger.finish(written, value=accuracy if result.status == "complete" else None, facts=facts)
