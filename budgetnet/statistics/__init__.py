"""Whether a difference is more than noise: of seeds, of test images, or of a published number.

Each question has its own test, because each has its own noise. Two variants trained with the same seeds are compared
pair by pair, in several groups at once where there are several networks; several such rows are told apart from chance
only after Holm's correction. Two networks judged on the same images are compared on those where one is right and the
other is not. And what was measured here meets a published accuracy with the noise of both.

No test here turns an absent spread into certainty, or anything into a NaN: what cannot be said is None.
"""

from budgetnet.statistics.pairs import Difference, holm, paired_difference
from budgetnet.statistics.pooled import PooledDifference, pooled_difference
from budgetnet.statistics.predictions import McNemar, PredictionComparison, compare_predictions, mcnemar
from budgetnet.statistics.published import PublishedComparison, against_published

__all__ = [
    "Difference",
    "McNemar",
    "PooledDifference",
    "PredictionComparison",
    "PublishedComparison",
    "against_published",
    "compare_predictions",
    "holm",
    "mcnemar",
    "paired_difference",
    "pooled_difference",
]
