"""Whether a published accuracy was reproduced, and whether that can be asked at all."""

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
"""A p-value below it says that the published accuracy was not reproduced."""
VOUCHED_FOR = "the images are CIFAR-10 by the word of --declare cifar10 alone, not by their checksums"
SEED_UNKNOWN = (
    "how far another seed would have moved the published number is not known: where seeds scatter, equal trainings are "
    "called different more often than in 5 % of cases"
)
_TRAINING_IMAGES = 50_000
"""Images that the published network was trained on and validated by."""


class Verdict(NamedTuple):
    """What became of a published accuracy here."""

    outcome: Outcome
    published: PublishedResult
    comparison: PublishedComparison
    """The numbers beside each other, comparable or not."""
    reasons: tuple[str, ...]
    """Why they are not comparable."""
    remarks: tuple[str, ...]
    """What has to be known beside the outcome."""

    @property
    def exit_code(self) -> int:
        """What the command line ends with: 4 where the accuracy was not reproduced."""
        return 4 if self.outcome == "not reproduced" else 0

    def to_mapping(self) -> dict[str, Any]:
        """The verdict as plain data; accuracies as shares."""
        comparison = self.comparison._asdict()
        comparison["interval"] = list(self.comparison.interval)
        return {
            "outcome": self.outcome,
            "published": self.published.name,
            **comparison,
            "reasons": list(self.reasons),
            "remarks": list(self.remarks),
        }


def judged(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that came to a result on the test set.

    Raises:
        BudgetnetError: none did.
    """
    found = [record for record in records if record.test is not None]
    if not found:
        raise BudgetnetError(f"none of {len(records)} runs came to a result, such as {records[0].result.reason}")
    return found


def obstacles(records: Sequence[RunRecord], published: PublishedResult, *, declared: bool) -> list[str]:
    """Why what was measured cannot be set against a published result; nothing if it can.

    Args:
        records: the runs.
        published: the result.
        declared: whether the user vouches for the images.
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
        found.append("trained by neither of the recipes paper and as-run as they stand")
    if published.accuracy_is_approximate:
        found.append(f"the published accuracy is only known to be about {100 * published.accuracy:.0f} %")
    if published.images is None:
        found.append("how many images are behind the published accuracy is not known")
    return found


def verdict(records: Sequence[RunRecord], published: PublishedResult, *, declared: bool) -> Verdict:
    """Sets the runs' test accuracies against a published one.

    Args:
        records: the runs, all of one network, recipe and data set, judged on the test set.
        published: the result.
        declared: whether the user vouches for the images.

    Raises:
        BudgetnetError: no run came to a result.
    """
    runs = judged(records)
    tests = [record.test for record in runs if record.test is not None]
    reasons = obstacles(runs, published, declared=declared)
    comparison = compare_with_published(
        [test.accuracy for test in tests],
        images=tests[0].images,
        published=published.accuracy,
        # Where their number is not known the outcome is open anyway, and the numbers are only shown.
        published_images=published.images or tests[0].images,
    )
    remarks = []
    if declared and not runs[0].identity.data.is_original_cifar10:
        remarks.append(VOUCHED_FOR)
    if runs[0].identity.recipe.leaks:
        remarks.append(LEAKAGE_WARNING)
    if len(runs) < len(records):
        remarks.append(f"{len(records) - len(runs)} of {len(records)} runs came to no result")
    if not reasons:
        remarks.append(SEED_UNKNOWN)
    same: Outcome = "reproduced" if comparison.p_value >= LEVEL else "not reproduced"
    return Verdict("not comparable" if reasons else same, published, comparison, tuple(reasons), tuple(remarks))
