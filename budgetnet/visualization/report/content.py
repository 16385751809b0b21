"""Data of a report, from which its page is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from budgetnet.experiments.ablation.results import AblationResult
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction
from budgetnet.experiments.reproduction.ladder import LadderResult
from budgetnet.experiments.reproduction.leakage import LeakageResult
from budgetnet.experiments.reproduction.reference import ReferenceResult
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.study.feature_effects import FeatureEffect
from budgetnet.study.finalists import FinalGap, FinalResult, final_gaps
from budgetnet.study.leaderboard import LeaderboardRow
from budgetnet.study.settings import StudySettings
from budgetnet.study.trials import Trial
from budgetnet.study.winner import Winner

RejectionKind = Literal[
    "over budget",
    "pruned",
    "diverged",
    "out of memory",
    "no result",
    "duplicate",
    "interrupted",
    "skipped",
]


class Standing(NamedTuple):
    """A row of the leaderboard with further columns of the report."""

    row: LeaderboardRow
    budget_used: float
    """Largest used share of a limit; 0 without limits."""
    cycles: int | None
    """Completed cycles of the schedule; None for the published row."""


class Rejection(NamedTuple):
    """A candidate that is not ranked, and why."""

    trial: Trial
    kind: RejectionKind
    why: str
    """Reason, such as by how much it exceeds which limit, or after which cycle it was pruned."""


class RejectionCount(NamedTuple):
    """Number of candidates rejected for one reason, and their training cost."""

    kind: RejectionKind
    detail: str
    """Detail of the reason, such as ``after cycle 2``; may be empty."""
    candidates: int
    epochs: int
    """Total number of epochs trained."""
    seconds: float
    """Wall time of these epochs."""


class Learning(NamedTuple):
    """Runs whose curves are drawn together; they differ only in the seed."""

    title: str
    records: tuple[RunRecord, ...]


class Confusion(NamedTuple):
    """Confusion matrix of the recommended network."""

    matrix: list[list[int]]
    """Counts of images by true class (row) and predicted class (column)."""
    class_names: tuple[str, ...]
    images: str
    """Description of the run and the images."""


class Ablation(NamedTuple):
    """An ablation, from its records."""

    folder: str
    result: AblationResult
    override: tuple[str, ...]
    """Overrides of the file's base that the runs were trained with."""
    command: str | None
    """Command that trained the runs; None if their config is not stored."""
    data: str
    """Description of the training and evaluation data."""
    remarks: tuple[str, ...]
    """Remarks on the records, such as omitted runs."""

    @property
    def bootstrap(self) -> bool:
        """Whether intervals are those of the bootstrap rather than of the paired t test."""
        return any(row.difference and row.difference.method == "bootstrap" for row in self.result.rows)


class Why(NamedTuple):
    """Ablations of a search's winner."""

    ablations: tuple[Ablation, ...]
    """Ablations with results, the latest first."""
    unfinished: tuple[str, ...]
    """Commands of those without results so far."""
    command: str
    """Command that ablates the winner."""


class Reproduction(NamedTuple):
    """Published results compared with the records of one folder."""

    folder: str
    references: tuple[ReferenceResult, ...]
    """One result for each recipe and data set that the reference was trained with."""
    leaks: tuple[LeakageResult, ...]
    ladders: tuple[LadderResult, ...]
    ensembles: tuple[EnsembleReproduction, ...]
    data: str
    remarks: tuple[str, ...]
    commands: tuple[str, ...]
    """Commands that trained the runs, as far as their configs are stored."""

    @property
    def is_empty(self) -> bool:
        """Whether no record can be compared with a published result."""
        return not (self.references or self.leaks or self.ladders or self.ensembles)


class Environment(NamedTuple):
    """Versions and hardware of runs."""

    facts: Mapping[str, Any]
    """Contents of ``environment.json``, without the epoch of the start."""
    runs: int
    """Number of runs started or resumed in this environment."""


class Command(NamedTuple):
    """A command and its purpose."""

    purpose: str
    line: str


class ExperimentReport(NamedTuple):
    """Data of a report without a search: ablations and reproductions."""

    written: datetime
    """Time of collection, with time zone."""
    ablations: tuple[Ablation, ...]
    reproductions: tuple[Reproduction, ...]
    unreadable: tuple[str, ...]
    """Run folders that could not be read, with the reason."""

    @property
    def title(self) -> str:
        """Names of the ablations, and whether there are reproductions."""
        names = [each.result.study.name or "ablation" for each in self.ablations]
        return ", ".join([*names, *(["reproduction"] if self.reproductions else [])])


class Report(NamedTuple):
    """All data of a study's report."""

    study: str
    settings: StudySettings
    written: datetime
    """Time of collection, with time zone."""
    trials: tuple[Trial, ...]
    """Trials of the study in order, one for each candidate (`budgetnet.study.trials.one_per_candidate`)."""
    counts: Mapping[str, int]
    """Counts of `budgetnet.study.trials.count_outcomes`."""
    standings: tuple[Standing, ...]
    """The leaderboard, including the published row; candidates over budget are excluded."""
    rejections: tuple[Rejection, ...]
    """Finished trials that are not ranked, in the order of trials."""
    finals: tuple[FinalResult, ...] | None
    """Finalists by mean validation accuracy; None if no finalists were trained."""
    final_seeds: tuple[int, ...]
    """Seeds that each finalist is trained with."""
    learning: tuple[Learning, ...]
    """Curves of the finalists and of the best candidate of the search."""
    best: Winner | None
    """The recommended network: the best finalist's, or else the best candidate's."""
    best_spec: ModelSpec | None
    """Its specification; None if its run folder cannot be read."""
    confusion: Confusion | None
    """Its confusion matrix; None if its run does not record one."""
    importance: Mapping[str, float]
    """Importance of each sampled parameter as a share; empty with too few candidates."""
    effects: tuple[FeatureEffect, ...]
    """Effect of each closed-form feature; empty with too few candidates."""
    why: Why | None
    """Ablations of the recommended network; None without one."""
    ablations: tuple[Ablation, ...]
    reproductions: tuple[Reproduction, ...]
    environments: tuple[Environment, ...]
    """Distinct environments, the one with the most runs first."""
    without_environment: int
    """Number of runs without a recorded environment."""
    commands: tuple[Command, ...]
    unreadable: tuple[str, ...]
    """Run folders that could not be read, with the reason."""

    @property
    def comparable(self) -> bool:
        """Whether the data are the original CIFAR-10 images, so that the published result is comparable."""
        return self.settings.data.is_original_cifar10

    @property
    def published(self) -> LeaderboardRow | None:
        """The published row; None on other data than original CIFAR-10."""
        return next((standing.row for standing in self.standings if standing.row.is_reference), None)

    @property
    def compared_with(self) -> str | None:
        """What the gaps of the leaderboard are to; None without a candidate."""
        return self.standings[0].row.compared_with if self.standings else None

    @property
    def fully_trained(self) -> int:
        """Number of candidates trained for all epochs."""
        return sum(trial.outcome == "complete" for trial in self.trials)

    @property
    def best_used(self) -> float:
        """Share of the budget that the recommended network uses."""
        trials = [trial.budget_used for trial in self.trials if self.best and trial.name == self.best.trial]
        return trials[0] if trials else 0.0

    @property
    def final_gaps(self) -> list[FinalGap | None]:
        """Gaps of the finalists' test accuracy."""
        return final_gaps(self.finals or (), comparable=self.comparable)
