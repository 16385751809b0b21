"""Confidence intervals and significance tests for accuracies.

- `paired_difference`, `pooled_difference`: variants trained with the same seeds, for one or several networks.
- `holm`: correction for multiple comparisons.
- `compare_predictions`, `mcnemar`: two networks evaluated on the same images.
- `compare_with_published`: runs compared with a published accuracy.

No result is NaN: what cannot be estimated, such as a standard deviation from one run, is None.
"""

from budgetnet.statistics.pairs import Difference, holm, paired_difference
from budgetnet.statistics.pooled import PooledDifference, pooled_difference
from budgetnet.statistics.predictions import McNemar, PredictionComparison, compare_predictions, mcnemar
from budgetnet.statistics.published import PublishedComparison, compare_with_published

__all__ = [
    "Difference",
    "McNemar",
    "PooledDifference",
    "PredictionComparison",
    "PublishedComparison",
    "compare_predictions",
    "compare_with_published",
    "holm",
    "mcnemar",
    "paired_difference",
    "pooled_difference",
]
