"""Reproduction of the paper's ensemble: averaged predictions of independently trained members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from budgetnet.common.errors import BudgetnetError
from budgetnet.evaluation.results import EnsembleResult, ensemble_result
from budgetnet.experiments.reproduction.rows import RunRow, run_rows
from budgetnet.experiments.reproduction.verdict import tested_runs
from budgetnet.model.budget import Budget
from budgetnet.model.published import PublishedResult, get
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder


class EnsembleReproduction(NamedTuple):
    """Members and their ensemble on the test set."""

    rows: tuple[RunRow, ...]
    """Each member's run."""
    result: EnsembleResult
    published: PublishedResult
    """Published ensemble, only shown because its members and images are not known."""
    max_params: int | None
    """Limit on the parameters of all members together."""

    @property
    def fits(self) -> bool:
        """Whether the members are within the limit."""
        return self.max_params is None or self.result.params <= self.max_params

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "reproduction": "ensemble",
            "runs": [row.to_mapping() for row in self.rows],
            **self.result.to_mapping(),
            "published": {"accuracy": self.published.accuracy, "caveat": self.published.caveat},
            "outcome": "not comparable",
            "max_params": self.max_params,
            "fits": self.fits,
        }


def ensemble_reproduction(records: Sequence[RunRecord], *, budget: Budget) -> EnsembleReproduction:
    """Compute the ensemble of members with test results.

    Args:
        records: runs of the members; those without a test result are omitted.
        budget: limit on the parameters of all members together.

    Raises:
        BudgetnetError: fewer than two members have a test result, or the scores of one were not stored.
    """
    members = []
    for record in tested_runs(records):
        scores = RunFolder(record.folder).read_scores()
        if scores is None:
            raise BudgetnetError(f"{record.folder.name} has a test result without scores: remove its test.json")
        members.append((record, scores))
    if len(members) < 2:
        raise BudgetnetError(f"{len(members)} of {len(records)} members have a test result: an ensemble needs two")
    return EnsembleReproduction(run_rows(records), ensemble_result(members), get("ensemble"), budget.max_params)
