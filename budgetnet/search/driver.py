"""The search: candidates are proposed, checked against the budget, trained if they fit, and written down."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.trial import Trial

from budgetnet.budget import Budget, Verdict
from budgetnet.environment import choose_precision
from budgetnet.errors import BudgetnetError, BusyError, OverBudgetError, is_out_of_memory
from budgetnet.published import REFERENCE
from budgetnet.recipe import Recipe
from budgetnet.records import Epoch, RunFolder, RunResult
from budgetnet.search.proposals import Proposal, Proposals
from budgetnet.search.settings import StudySettings
from budgetnet.search.study import is_trained, lock_path, open_study, storage_errors
from budgetnet.space import Measure, SearchSpace
from budgetnet.train import identify, train
from budgetnet.training_data import TrainingData

MAX_TURNED_AWAY = 1_000
"""Candidates turned away in a row, over budget or trained before, after which the search gives up."""


class Observer(Protocol):
    """What a search tells of its progress."""

    def turned_away(self) -> None:
        """A candidate did not fit and was closed without training."""

    def begun(self, verdict: Verdict, *, trained: int) -> None:
        """Training of a candidate begins, behind so many trained ones."""

    def stepped(self, epoch: int, share: float) -> None:
        """A step of training ended; ``share`` of the epoch is done."""

    def epoch_ended(self, epoch: Epoch) -> None:
        """An epoch of training ended."""

    def ended(self, result: RunResult | None) -> None:
        """Training of a candidate ended, with its result unless it broke down."""


class SearchOutcome(NamedTuple):
    """What a search did."""

    study: optuna.Study
    trained: int
    """Trained candidates of the study, those of earlier searches included."""
    exhausted: bool
    """Whether the search gave up because nothing new that fits was proposed any more."""


def question(
    data: TrainingData, recipe: Recipe, *, budget: Budget, seed: int, space: SearchSpace | None = None
) -> StudySettings:
    """The question that a search with these arguments asks, with the device and the precision that it would train in.

    Args:
        data: training and validation images, on the device to train on.
        recipe: how candidates are trained.
        budget: what a candidate may cost.
        seed: of proposals and of every candidate's run.
        space: what may be proposed; the default space if left out.
    """
    device = data.train.images.device
    return StudySettings(
        space=space or SearchSpace(),
        budget=budget,
        recipe=recipe,
        data=data.record,
        seed=seed,
        device=device.type,
        precision=choose_precision(recipe.precision, device),
    )


def search(
    settings: StudySettings,
    data: TrainingData,
    *,
    study_name: str,
    storage: RDBStorage,
    out: Path,
    trials: int,
    observer: Observer,
) -> SearchOutcome:
    """Trains candidates until a study has as many as wanted; going on with an earlier search is the same call.

    Args:
        settings: the question: space, budget, recipe, data and seed.
        data: training and validation images, on the device to train on.
        study_name: name of the study in the storage.
        storage: where the study lives.
        out: folder for the candidates' run folders.
        trials: trained candidates that the study shall have, those of earlier searches included.
        observer: is told of progress.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question.
        BusyError: another search is at work on the study.
    """
    require_feasible(settings, data)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(lock_path(storage, study_name, out), study_name), storage_errors(str(storage.url)):
        study = open_study(storage, study_name, settings)
        proposals = Proposals(study, storage, settings, input_shape=data.input_shape, num_classes=data.num_classes)
        trained = sum(is_trained(trial) for trial in study.get_trials(deepcopy=False))
        turned_away = 0
        while trained < trials and turned_away < MAX_TURNED_AWAY:
            proposal = proposals.next()
            if not proposal.verdict.fits:
                proposals.reject(proposal)
                observer.turned_away()
                turned_away += 1
            elif proposal.spec.digest in proposals.results:
                proposals.repeat(proposal)
                turned_away += 1
            else:
                observer.begun(proposal.verdict, trained=trained)
                ended = _train_candidate(proposals, proposal, settings, data, out, observer)
                trained += ended
                turned_away = 0 if ended else turned_away + 1
        return SearchOutcome(study, trained, exhausted=trained < trials)


@contextmanager
def _locked(path: Path, study_name: str) -> Iterator[None]:
    """Keeps other searches off a study; the lock falls with the process, however it ends."""
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise BusyError("--study", study_name, "another search is at work on this study") from None


def require_feasible(settings: StudySettings, data: TrainingData) -> None:
    """Lets a question pass that has an answer.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
    """
    measures: tuple[Measure, ...] = ("params", "macs", "activations")
    for measure in measures:
        limit = Budget(**{f"max_{measure}": getattr(settings.budget, f"max_{measure}")})
        smallest = settings.space.smallest(input_shape=data.input_shape, num_classes=data.num_classes, measure=measure)
        try:
            limit.check(smallest).require()
        except OverBudgetError as error:
            raise OverBudgetError(f"no network of the space fits the budget; the smallest, {error}") from None


def _train_candidate(
    proposals: Proposals,
    proposal: Proposal,
    settings: StudySettings,
    data: TrainingData,
    out: Path,
    observer: Observer,
) -> bool:
    """Trains one candidate and writes down how it ended; tells whether it counts as trained."""
    identity = identify(proposal.spec, data, settings.recipe, seed=settings.seed)
    trial = proposals.begin(proposal, run=RunFolder.of(identity, out).path.name, seed=settings.seed)
    cycle_ends = settings.recipe.schedule.cycle_ends(settings.recipe.epochs)

    def on_epoch(epoch: Epoch) -> None:
        # Only at the end of a cycle, where the learning rate is at its minimum, are candidates worth comparing.
        if epoch.epoch in cycle_ends:
            proposals.report(proposal, trial, value=epoch.validation_accuracy, step=epoch.cycle)
        observer.epoch_ended(epoch)

    try:
        record = train(
            proposal.spec,
            data,
            settings.recipe,
            seed=settings.seed,
            out=out,
            on_epoch=on_epoch,
            on_step=observer.stepped,
        )
    except (KeyboardInterrupt, OSError, BusyError):
        # What passes, such as a full disk: the candidate is taken up again.
        proposals.interrupt(proposal, trial)
        raise
    except (BudgetnetError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error):
            proposals.finish(proposal, trial, value=None, facts={"ended": "out of memory"})
            observer.ended(None)
            # What trained the candidate holds itself in a circle, and the device's memory with it.
            gc.collect()
            torch.cuda.empty_cache()
            return False
        proposals.fail(proposal, trial, reason=f"{type(error).__name__}: {error}"[:500])
        raise
    _finish(proposals, proposal, trial, record.result)
    observer.ended(record.result)
    return True


def _finish(proposals: Proposals, proposal: Proposal, trial: Trial, result: RunResult) -> None:
    accuracy = result.validation_accuracy if result.status == "complete" else None
    facts: dict[str, Any] = {"trained": True, "ended": result.reason, "epochs": result.epochs}
    if accuracy is not None:
        facts |= {
            "validation_correct": result.validation_correct,
            "validation_images": result.validation_images,
            "gap_to_reference": round(accuracy - REFERENCE.test_accuracy, 6),
        }
    proposals.finish(proposal, trial, value=accuracy, facts=facts)
