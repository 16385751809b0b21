"""Reproduction of the published reference: layers of Table 1 and test accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from budgetnet.experiments.reproduction.rows import RunRow, run_rows
from budgetnet.experiments.reproduction.verdict import Verdict, tested_runs, verdict
from budgetnet.model.published import LayerRow, PublishedResult, table1
from budgetnet.model.published import reference as published_reference
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.records import RunRecord

_TABLE_SIZE = 28
"""Side of the images in Table 1, in pixels."""


class TableComparison(NamedTuple):
    """Comparison of a network's layers with Table 1 of the paper."""

    rows: int
    """Rows of the longer of the two."""
    equal: int
    """Rows with equal layer, shape and number of parameters."""
    params: int
    """Parameters of the network."""
    published_params: int
    """Sum of the table."""

    @property
    def agrees(self) -> bool:
        """Whether all rows and the sum are equal."""
        return self.rows == self.equal and self.params == self.published_params


def compare_with_table1(spec: ModelSpec) -> TableComparison:
    """Compare a network's layers, for images of 28x28, with Table 1 of the paper.

    Args:
        spec: the network.
    """
    published = table1()
    summary = spec.summary(input_size=_TABLE_SIZE)
    own = [LayerRow(row.layer, row.output_shape, row.cost.params) for row in summary.rows]
    equal = sum(one == other for one, other in zip(own, published, strict=False))
    # Surplus layers count as different rows.
    rows = max(len(own), len(published))
    return TableComparison(rows, equal, summary.total.params, sum(row.params for row in published))


class ReferenceResult(NamedTuple):
    """Results of the reference."""

    table: TableComparison
    rows: tuple[RunRow, ...]
    """Each run."""
    verdict: Verdict
    loss: float
    """Mean test loss of the runs, in nats."""

    @property
    def published(self) -> PublishedResult:
        """Published result that the runs are compared with."""
        return self.verdict.published

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "reproduction": "reference",
            "table1": {**self.table._asdict(), "agrees": self.table.agrees},
            "runs": [row.to_mapping() for row in self.rows],
            "test_loss": self.loss,
            "published_loss": self.published.loss,
            "verdict": self.verdict.to_mapping(),
        }


def reference_result(records: Sequence[RunRecord], *, declared: bool) -> ReferenceResult:
    """Compute the result of the reference from runs with test results.

    Args:
        records: one run per seed.
        declared: whether the user declares the images to be CIFAR-10.

    Raises:
        BudgetnetError: no run has a test result.
    """
    tests = [record.test for record in tested_runs(records) if record.test is not None]
    return ReferenceResult(
        compare_with_table1(get("reference")),
        run_rows(records),
        verdict(records, published_reference(), declared=declared),
        fmean(test.loss for test in tests),
    )
