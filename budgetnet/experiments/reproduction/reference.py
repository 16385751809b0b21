"""The published reference: its layers beside Table 1, its test accuracy beside the published one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from budgetnet.experiments.reproduction.rows import RunRow, run_rows
from budgetnet.experiments.reproduction.verdict import Verdict, judged, verdict
from budgetnet.model.published import LayerRow, PublishedResult, table1
from budgetnet.model.published import reference as published_reference
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.records import RunRecord

_TABLE_SIZE = 28
"""Side of the images that Table 1 was printed for."""


class TableComparison(NamedTuple):
    """A network's layers beside the paper's Table 1."""

    rows: int
    """Rows of the table."""
    equal: int
    """Those of them that the network has in the same place, with the same shape and count."""
    params: int
    """Parameters of the network."""
    published_params: int
    """Sum of the table."""

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return self.rows == self.equal and self.params == self.published_params


def compare_with_table1(spec: ModelSpec) -> TableComparison:
    """A network's layers, for images of 28x28, beside the paper's Table 1.

    Args:
        spec: the network.
    """
    published = table1()
    summary = spec.summary(input_size=_TABLE_SIZE)
    own = [LayerRow(row.layer, row.output_shape, row.cost.params) for row in summary.rows]
    equal = sum(one == other for one, other in zip(own, published, strict=False))
    # A layer too many counts as a row that differs.
    rows = max(len(own), len(published))
    return TableComparison(rows, equal, summary.total.params, sum(row.params for row in published))


class ReferenceResult(NamedTuple):
    """What training the reference came to."""

    table: TableComparison
    rows: tuple[RunRow, ...]
    """Each run."""
    verdict: Verdict
    loss: float
    """Mean test loss of the runs, in nats."""

    @property
    def published(self) -> PublishedResult:
        """What they are compared with."""
        return self.verdict.published

    def to_mapping(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "reproduction": "reference",
            "table1": {**self.table._asdict(), "agrees": self.table.agrees},
            "runs": [row.to_mapping() for row in self.rows],
            "test_loss": self.loss,
            "published_loss": self.published.loss,
            "verdict": self.verdict.to_mapping(),
        }


def reference_result(records: Sequence[RunRecord], *, declared: bool) -> ReferenceResult:
    """What runs of the reference, judged on the test set, say of the published result.

    Args:
        records: one run for each seed.
        declared: whether the user vouches for the images.

    Raises:
        BudgetnetError: no run came to a result.
    """
    tests = [record.test for record in judged(records) if record.test is not None]
    return ReferenceResult(
        compare_with_table1(get("reference")),
        run_rows(records),
        verdict(records, published_reference(), declared=declared),
        fmean(test.loss for test in tests),
    )
