"""Driver of a search: proposes candidates, gives them to an engine's workers, prunes them and stores their results.

It is the only writer of its study: a second driver on the same study is refused.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from budgetnet.common.errors import RecordError
from budgetnet.engines.deaths import Ending
from budgetnet.engines.jobs import WAITING, Engine, Job, JobEnd, PlannedRun, Waiting
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.study.context import Plan, SearchContext, require_feasible
from budgetnet.study.lock import StudyLock
from budgetnet.study.operations import Operations
from budgetnet.study.outcomes import OUT_OF_MEMORY
from budgetnet.study.proposer import Proposal, Proposals
from budgetnet.study.pruner import make_pruner
from budgetnet.study.storage import open_study, storage_errors
from budgetnet.study.trial_store import Candidate, TrialStore
from budgetnet.training.callbacks import Callback, RunContext
from budgetnet.training.trainer import identify

_log = logging.getLogger(__name__)

MAX_REJECTED = 1_000
"""Candidates rejected in a row, over budget or duplicates, after which the search stops."""
_BUSY_SECONDS = 60.0
"""Longest time to wait, with nothing else to do, for candidates that other processes are training."""
_LOOK_SECONDS = 1.0
"""Longest time between two ticks in this time."""

End = Literal["done", "time", "train flops", "exhausted"]
"""Why a search stopped: the study has enough trials, the time is up, the next candidate could exceed the limit on
training operations, or the sampler finds nothing new that fits."""


class SearchOutcome(NamedTuple):
    """Result of a search."""

    study: optuna.Study
    trained: int
    """Number of trained candidates of the study, those of earlier searches included."""
    end: End
    """Why the search stopped."""
    train_flops: int
    """Training operations of these candidates."""
    refused: int | None = None
    """Training operations of the candidate that could have exceeded the limit on them, if that stopped the search."""
    rejected: Mapping[str, int] = {}
    """The last proposals in a row that led to no trained candidate, counted by reason."""


class _TimeUpError(Exception):
    """The deadline has passed."""


def search(context: SearchContext, plan: Plan, callback: Callback) -> SearchOutcome:
    """Train candidates until the study has enough; the same call resumes the search.

    Args:
        context: the study's settings, data, storage, folder and engine.
        plan: when to stop.
        callback: called with the progress; an exception from it ends the search, and the next one resumes the trial.

    Raises:
        InputError: the limit on training operations allows no candidate.
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study exists with another config, or the storage cannot be used.
        BusyError: another search is running on the study.
        BudgetnetError: a candidate or a worker failed.
    """
    require_feasible(context.settings, context.data)
    context.out.mkdir(parents=True, exist_ok=True)
    lock = context.lock
    with storage_errors(context.storage), lock.held():
        study = open_study(context.storage, context.study_name, context.settings)
        driver = Driver(context, study, plan=plan, callback=callback, lock=lock)
        end = driver.run(context.engine)
        refused = driver.operations.refused if end == "train flops" else None
        return SearchOutcome(study, driver.store.trained, end, driver.store.train_flops, refused, driver.rejected)


class Driver:
    """Dispatcher of a search's candidates to the workers of an engine."""

    def __init__(
        self, context: SearchContext, study: optuna.Study, *, plan: Plan, callback: Callback, lock: StudyLock
    ) -> None:
        """Read the study.

        Args:
            context: the study's settings, data, storage, folder and engine.
            study: the study.
            plan: when to stop, and what to train first.
            callback: receives the events of the search.
            lock: lock of the study, which is held.
        """
        self._context, self._plan, self._callback = context, plan, callback
        settings = self._settings = context.settings
        self.store = TrialStore(
            study,
            context.storage,
            study_name=context.study_name,
            lock=lock,
            pruner=make_pruner(settings.config.pruner, settings.recipe),
            costs=settings.config.costs,
        )
        self.operations = Operations(self.store, limit=plan.max_train_flops, images=context.data.record.train_images)
        self._proposals = Proposals(self.store, settings, context.data, enqueued=plan.enqueued)
        self._held: Proposal | None = None
        """The next candidate, which could exceed the limit on operations unless one in training is pruned."""
        self._folders = {path.name.rpartition("-")[2]: path.name for path in context.out.iterdir() if path.is_dir()}
        """Names of run folders by the digests of their runs; listed once, as there may be very many."""
        self._training: dict[int, tuple[Candidate, FrozenTrial]] = {}
        """What each worker is training."""
        self._busy: list[tuple[Candidate, FrozenTrial]] = []
        """Candidates whose runs other processes are training, such as workers of a driver that was killed just now."""
        self._waiting_since: float | None = None
        """Since when there is nothing else to do."""
        self._failed: set[str] = set()
        """Candidates that have no result, which this search does not try again."""
        self.rejected: Counter[str] = Counter()
        """Proposals in a row that led to no trained candidate, by reason."""

    def run(self, engine: Engine) -> End:
        """Train candidates until the study has enough or a limit is reached; return why the search stopped."""
        # The search for unreachable objects would go through all trials again and again.
        gc.freeze()
        try:
            if self.store.trained < self._plan.trials:
                engine.run(self, self._callback)
        except _TimeUpError:
            # The last candidate may have ended just before.
            if self.store.trained < self._plan.trials:
                return "time"
        finally:
            gc.unfreeze()
            for _, trial in self._busy:
                self.store.interrupt(trial)
            # After an error or an interrupt nothing waits for a storage that is away: its running trials are resumed.
            self.store.flush()
        self.store.flush(wait=True)
        if self.store.trained >= self._plan.trials:
            return "done"
        return "exhausted" if self._held is None else "train flops"

    def next_job(self, worker: int) -> Job | Waiting | None:
        """Propose a candidate; return `WAITING` if it is rejected, and None if no more are to be trained for now."""
        for place, (candidate, trial) in enumerate(self._busy):
            if self._is_free(trial):
                del self._busy[place]
                return self._job(worker, candidate, trial)
        if self.rejected.total() >= MAX_REJECTED or self.store.trained + len(self.store.running) >= self._plan.trials:
            return self._nothing()
        self._check_deadline()
        proposal = self._next()
        candidate = proposal.candidate
        if not candidate.verdict.fits:
            self._proposals.stored(proposal, self.store.reject(candidate))
            self._callback.on_trial_rejected(worker=worker)
            reason = "over budget"
        elif candidate.key in self.store.results:
            self._proposals.stored(proposal, self.store.duplicate(candidate))
            reason = "trained before"
        elif candidate.key in self.store.running or candidate.key in self._failed:
            self._proposals.dropped(proposal)
            reason = "in training" if candidate.key in self.store.running else "without a result"
        elif not self.operations.allow(candidate):
            self._held = proposal
            return self._nothing()
        else:
            return self._begin(worker, candidate, proposal)
        self.rejected[reason] += 1
        return WAITING

    def _next(self) -> Proposal:
        """Return the candidate that was held back, unless one was interrupted, which has used operations before."""
        if self._held is None or self.store.interrupted:
            return self._proposals.next()
        held, self._held = self._held, None
        return held

    def _nothing(self) -> Waiting | None:
        """Return that there is no job until a candidate in training has ended, here or in another process."""
        return self._wait() if self._busy and not self._training else None

    def _begin(self, worker: int, candidate: Candidate, proposal: Proposal) -> Job:
        config, context = self._settings.config, self._context
        spec = candidate.verdict.spec
        identity = identify(spec, context.data, candidate.recipe, seed=config.seed, device=context.device)
        run = self._folders.get(identity.short_digest, identity.run_id)
        trial = self.store.begin(candidate, run=run, seed=config.seed)
        self._proposals.stored(proposal, trial)
        return self._job(worker, candidate, trial)

    def _is_free(self, trial: FrozenTrial, *, within: float = 0.0) -> bool:
        # Another process may have begun the run under another label.
        digest = trial.user_attrs["run"].rpartition("-")[2]
        return all(RunFolder(path).is_free(within=within) for path in self._context.out.glob(f"*-{digest}"))

    def _wait(self) -> Waiting:
        """Wait a little for a candidate that another process is training, or give all of them up after some time."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since < _BUSY_SECONDS:
            self._is_free(self._busy[0][1], within=_LOOK_SECONDS)
            return WAITING
        for candidate, trial in self._busy:
            self.store.leave(trial)
            _log.warning("left %s: another process is training it", candidate.verdict.spec.label)
        self._busy.clear()
        return WAITING

    def _job(self, worker: int, candidate: Candidate, trial: FrozenTrial) -> Job:
        self._waiting_since = None
        self._training[worker] = candidate, trial
        config, context = self._settings.config, self._context
        return Job(
            PlannedRun(spec=candidate.verdict.spec, recipe=candidate.recipe, seed=config.seed),
            RunContext(worker, self.store.trained, context.study_name, trial=trial.number, sampled=candidate.params),
            reports=True,
            reported=self.store.reported_before(trial),
        )

    def report(self, worker: int, epoch: Epoch) -> bool:
        """Store a candidate's accuracy at the end of a cycle; return whether the candidate stops there."""
        _, trial = self._training[worker]
        stops = self.store.report(trial, value=epoch.validation_accuracy, step=epoch.epoch)
        if stops:
            # Before the run is stopped: it is trained on if a search that was killed has not stored why.
            self.store.flush()
        return stops

    def ended(self, worker: int, end: JobEnd) -> None:
        """Store the result of a candidate, or why it has none.

        Raises:
            BudgetnetError: the candidate failed, or was interrupted by what also concerns the others.
        """
        candidate, trial = self._training.pop(worker)
        if end.outcome == "busy":
            self._busy.append((candidate, trial))
            return
        if end.outcome == "trained":
            self._finish(trial, end)
            self.rejected.clear()
            return
        self.rejected["without a result"] += 1
        if end.outcome == "out of memory":
            self._failed.add(candidate.key)
            self.store.finish(trial, value=None, facts={"ended": OUT_OF_MEMORY})
        elif end.outcome == "taken over":
            self.store.leave(trial)
        elif end.outcome == "unreadable":
            # Only this candidate is affected: its folder is damaged, or of another version.
            self._skip(candidate, trial, reason=end.message)
        elif end.outcome == "interrupted":
            # A temporary cause, such as a full disk: the next search resumes the candidate.
            self.store.interrupt(trial)
            raise end.as_error()
        else:
            self.store.fail(trial, reason=end.message)
            raise end.as_error()

    def interrupted(self, worker: int, *, death: Ending | None, epochs: int | None) -> None:
        """Store that a candidate was interrupted, to be resumed first, or failed if it keeps killing workers."""
        candidate, trial = self._training.pop(worker)
        if death is None:
            self.store.interrupt(trial)
            return
        deaths = candidate.deaths.with_one(self._saved_epochs(trial) if epochs is None else epochs)
        if deaths.too_many:
            self._skip(candidate, trial, reason=f"{deaths.too_many}{death.last}")
            return
        self.store.interrupt(trial, deaths=deaths)
        label = f"#{trial.number} {candidate.verdict.spec.label}"
        _log.warning("worker %d %s while it trained %s; the candidate %s", worker, death, label, deaths.resumed)

    def _saved_epochs(self, trial: FrozenTrial) -> int:
        """Return the number of epochs in a candidate's run folder; 0 without a readable one here."""
        try:
            return len(RunFolder(self._context.out / trial.user_attrs["run"]).read_curves())
        except RecordError:
            return 0

    def _skip(self, candidate: Candidate, trial: FrozenTrial, *, reason: str) -> None:
        """Fail a candidate and go on with others."""
        self._failed.add(candidate.key)
        self.store.fail(trial, reason=reason)
        _log.warning("skipped %s: %s", candidate.verdict.spec.label, reason)

    def tick(self) -> None:
        """Write to the storage, and end the search after its deadline."""
        self.store.flush()
        self._check_deadline()

    def _check_deadline(self) -> None:
        if self._plan.deadline is not None and time.time() >= self._plan.deadline:
            raise _TimeUpError

    def _finish(self, trial: FrozenTrial, end: JobEnd) -> None:
        result = end.result
        if result is None:
            raise TypeError("a trained job has a result")
        accuracy = result.validation_accuracy
        facts: dict[str, Any] = {
            "trained": True,
            "run": end.run,
            "ended": result.reason,
            "status": result.status,
            "epochs": result.epochs,
            "cycles": result.cycles,
            "seconds": round(result.seconds, 3),
            "train_flops": end.train_flops,
        }
        if end.parts > 1:
            facts["batch_parts"] = end.parts
        if accuracy is not None:
            facts |= {
                "validation_accuracy": round(accuracy, 6),
                "validation_correct": result.validation_correct,
                "validation_images": result.validation_images,
            }
        self.store.finish(trial, value=accuracy if result.status == "complete" else None, facts=facts)
