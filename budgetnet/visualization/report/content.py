"""What a report holds: plain data, from which its page is made."""

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
from budgetnet.study.finalists import FinalResult
from budgetnet.study.leaderboard import LeaderboardRow
from budgetnet.study.settings import StudySettings
from budgetnet.study.trials import Trial

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
    """A line of the leaderboard with what a page says of it besides."""

    row: LeaderboardRow
    budget_used: float
    """The largest share of a limit that it uses; 0 where there is no limit."""
    cycles: int | None
    """Cycles of the schedule completed; none for the published row."""


class Rejection(NamedTuple):
    """A candidate that is not ranked, and why."""

    trial: Trial
    kind: RejectionKind
    why: str
    """In words: by how much it is over which limit, behind which cycle it was pruned."""


class RejectionCount(NamedTuple):
    """How many candidates went one way, and what that cost."""

    kind: RejectionKind
    detail: str
    """Which of them, such as ``after cycle 2``; may be empty."""
    candidates: int
    epochs: int
    """Epochs trained, all together."""
    seconds: float
    """Wall time of those epochs."""


class Learning(NamedTuple):
    """Runs whose curves are drawn together: they differ in their seed alone."""

    title: str
    records: tuple[RunRecord, ...]


class Ablation(NamedTuple):
    """An ablation as its records show it."""

    folder: str
    result: AblationResult
    override: tuple[str, ...]
    """What was changed in the file's base when its runs were trained."""
    command: str | None
    """The command that trained its runs; None where its config is not stored with them."""
    data: str
    """What its networks were trained and judged on, in words."""
    remarks: tuple[str, ...]
    """What has to be known of the records."""


class Reproduction(NamedTuple):
    """Published results beside the records of one folder."""

    folder: str
    references: tuple[ReferenceResult, ...]
    """One for each way that the reference was trained."""
    leaks: tuple[LeakageResult, ...]
    ladders: tuple[LadderResult, ...]
    ensembles: tuple[EnsembleReproduction, ...]
    data: str
    remarks: tuple[str, ...]
    commands: tuple[str, ...]
    """The commands that trained the runs, as far as their configs are stored with them."""

    @property
    def is_empty(self) -> bool:
        """Whether the records bear on nothing that is published."""
        return not (self.references or self.leaks or self.ladders or self.ensembles)


class Environment(NamedTuple):
    """Versions and hardware that runs were started on."""

    facts: Mapping[str, Any]
    """As a run folder keeps them, without the epoch of the start."""
    runs: int
    """Runs that were started, or taken up again, there."""


class Command(NamedTuple):
    """A command, and what it is for."""

    purpose: str
    line: str


class Report(NamedTuple):
    """Everything that is known of a study."""

    study: str
    settings: StudySettings
    written: datetime
    """When it was collected, with its time zone."""
    trials: tuple[Trial, ...]
    """Every trial of the study, in their order."""
    counts: Mapping[str, int]
    """As `budgetnet.study.trials.count_outcomes`, and ``running`` and ``complete`` besides."""
    standings: tuple[Standing, ...]
    """The leaderboard, the published row included; nothing over budget stands on it."""
    rejections: tuple[Rejection, ...]
    """Everything that has ended and is not ranked, in the order of trials."""
    finals: tuple[FinalResult, ...] | None
    """Finalists by mean validation accuracy; none where the study has held no finals."""
    final_seeds: tuple[int, ...]
    """Seeds that each finalist is trained with."""
    learning: tuple[Learning, ...]
    """Curves of the best candidate and of the finalists."""
    best_spec: ModelSpec | None
    """The best candidate's network, as far as its run folder can be read."""
    importance: Mapping[str, float]
    """Share of each drawn parameter in what tells good candidates from others; empty where that cannot be said."""
    ablations: tuple[Ablation, ...]
    reproductions: tuple[Reproduction, ...]
    environments: tuple[Environment, ...]
    """Every distinct one, the one with the most runs first."""
    without_environment: int
    """Runs of which nothing is known."""
    commands: tuple[Command, ...]
    left_out: tuple[str, ...]
    """Run folders that could not be read, and why."""

    @property
    def comparable(self) -> bool:
        """Whether the data are original CIFAR-10, so that the published result means anything here."""
        return self.settings.data.is_original_cifar10

    @property
    def best(self) -> Standing | None:
        """The best candidate that fits the budget."""
        return next((standing for standing in self.standings if standing.row.rank == 1), None)

    @property
    def published(self) -> LeaderboardRow:
        """The published row."""
        return next(standing.row for standing in self.standings if standing.row.is_reference)
