"""Verdict on a published accuracy: reproduced, not reproduced or not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from budgetnet.common.errors import BudgetnetError
from budgetnet.model.published import PublishedResult
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import PublishedComparison, compare_with_published

Outcome = Literal["reproduced", "not reproduced", "not comparable"]

LEVEL = 0.05
"""Significance level: with a smaller p-value the published accuracy was not reproduced."""
VOUCHED_FOR = "the images are CIFAR-10 only by --declare cifar10; their checksums were not verified"
SEED_UNKNOWN = (
    "the variance over seeds of the published number is not known: where seeds vary, equal trainings differ "
    "significantly in more than 5 % of cases"
)
_TRAINING_IMAGES = 50_000
"""Training and validation images of the published network."""


class Verdict(NamedTuple):
    """Outcome of the comparison with a published accuracy."""

    outcome: Outcome
    published: PublishedResult
    comparison: PublishedComparison
    """Comparison of the numbers, comparable or not."""
    reasons: tuple[str, ...]
    """Reasons why they are not comparable."""
    remarks: tuple[str, ...]
    """Limitations of the outcome."""

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 4 if the accuracy was not reproduced, else 0."""
        return 4 if self.outcome == "not reproduced" else 0

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data; accuracies as shares."""
        comparison = self.comparison._asdict()
        comparison["interval"] = list(self.comparison.interval)
        return {
            "outcome": self.outcome,
            "published": self.published.name,
            **comparison,
            "reasons": list(self.reasons),
            "remarks": list(self.remarks),
        }


def tested_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs with a test result.

    Raises:
        BudgetnetError: there is none.
    """
    found = [record for record in records if record.test is not None]
    if not found:
        raise BudgetnetError(f"none of {len(records)} runs has a test result: {records[0].result.reason}")
    return found


def obstacles(records: Sequence[RunRecord], published: PublishedResult, *, declared: bool) -> list[str]:
    """Return the reasons why runs cannot be compared with a published result.

    Args:
        records: the runs.
        published: published result.
        declared: whether the user declares the images to be CIFAR-10.
    """
    identity = records[0].identity
    data, recipe = identity.data, identity.recipe
    found = []
    if not (data.is_original_cifar10 or declared):
        found.append(f"the images are not original CIFAR-10 but {data.name}; --declare cifar10 vouches for a copy")
    if data.train_images + data.validation_images != _TRAINING_IMAGES:
        used = data.train_images + data.validation_images
        found.append(f"trained and validated on {used:,} images, not on {_TRAINING_IMAGES:,}")
    if published.spec is None:
        found.append("the layout of the published network is not known")
    elif identity.spec.replace(name="").digest != get(published.spec).digest:
        image = "x".join(map(str, identity.spec.input_shape))
        found.append(
            f"the network, for images of {image} in {identity.spec.num_classes} classes, is not the published one, "
            f"{published.spec}"
        )
    if recipe.digest not in {NAMED[name].digest for name in ("paper", "as-run")}:
        found.append("the recipe is neither paper nor as-run")
    if published.accuracy_is_approximate:
        found.append(f"the published accuracy is only known to be about {100 * published.accuracy:.0f} %")
    if published.images is None:
        found.append("the number of images of the published accuracy is not known")
    return found


def verdict(records: Sequence[RunRecord], published: PublishedResult, *, declared: bool) -> Verdict:
    """Compare the test accuracies of runs with a published one.

    Args:
        records: runs of one network, recipe and data set, with test results.
        published: published result.
        declared: whether the user declares the images to be CIFAR-10.

    Raises:
        BudgetnetError: no run has a test result.
    """
    runs = tested_runs(records)
    tests = [record.test for record in runs if record.test is not None]
    reasons = obstacles(runs, published, declared=declared)
    comparison = compare_with_published(
        [test.accuracy for test in tests],
        images=tests[0].images,
        published=published.accuracy,
        # If their number is not known, the outcome is not comparable and the numbers are only shown.
        published_images=published.images or tests[0].images,
    )
    remarks = []
    if declared and not runs[0].identity.data.is_original_cifar10:
        remarks.append(VOUCHED_FOR)
    if runs[0].identity.recipe.leaks:
        remarks.append(LEAKAGE_WARNING)
    if len(runs) < len(records):
        remarks.append(f"{len(records) - len(runs)} of {len(records)} runs have no result")
    if not reasons:
        remarks.append(SEED_UNKNOWN)
    same: Outcome = "reproduced" if comparison.p_value >= LEVEL else "not reproduced"
    return Verdict("not comparable" if reasons else same, published, comparison, tuple(reasons), tuple(remarks))
