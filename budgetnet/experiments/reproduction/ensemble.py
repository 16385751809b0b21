"""The paper's ensemble: predictions averaged over members that were trained apart, beside what is published of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from budgetnet.common.errors import BudgetnetError
from budgetnet.evaluation.results import EnsembleResult, ensemble_result
from budgetnet.experiments.reproduction.rows import RunRow, run_rows
from budgetnet.experiments.reproduction.verdict import judged
from budgetnet.model.budget import Budget
from budgetnet.model.published import PublishedResult, get
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder


class EnsembleReproduction(NamedTuple):
    """Members, and their ensemble, on the test set."""

    rows: tuple[RunRow, ...]
    """Each member's run."""
    result: EnsembleResult
    published: PublishedResult
    """What the paper says of its own, of which neither members nor images are known: it is only shown."""
    max_params: int | None
    """What all members together may have."""

    @property
    def fits(self) -> bool:
        """Whether they are within that."""
        return self.max_params is None or self.result.params <= self.max_params

    def to_mapping(self) -> dict[str, Any]:
        """The result as plain data."""
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
    """What members that were judged on the test set come to together.

    Args:
        records: the members' runs; those that came to no result are left out.
        budget: its limit on parameters is for all members together.

    Raises:
        BudgetnetError: fewer than two members came to a result, or what one said of the test images was not kept.
    """
    members = []
    for record in judged(records):
        scores = RunFolder(record.folder).read_scores()
        if scores is None:
            raise BudgetnetError(f"{record.folder.name} was judged without its scores being kept: remove its test.json")
        members.append((record, scores))
    if len(members) < 2:
        raise BudgetnetError(f"{len(members)} of {len(records)} members came to a result: an ensemble needs two")
    return EnsembleReproduction(run_rows(records), ensemble_result(members), get("ensemble"), budget.max_params)
