"""What was measured here, beside one published number.

Source:
    B. L. Welch (1947), "The Generalization of 'Student's' Problem when Several Different Population Variances are
    Involved", Biometrika 34(1-2), 28-35.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from budgetnet.common.errors import InputError
from budgetnet.statistics.checks import check_confidence, numbers, rounding_of, whole
from budgetnet.statistics.intervals import Interval, accuracy_count, difference_interval


class PublishedComparison(NamedTuple):
    """What was measured here, beside one published accuracy."""

    n: int
    """Runs."""
    mean: float
    """Mean of their accuracies, as a share."""
    standard_deviation: float | None
    """Of their accuracies, with n - 1 in the denominator; None for one run."""
    published: float
    """The published accuracy, as a share."""
    difference: float
    """Mean less published."""
    interval: Interval
    """Of the difference."""
    p_value: float
    """Two-sided."""
    test: str
    """The test, in words."""
    degrees_of_freedom: float | None
    """Of the t distribution; None where a normal one was used."""


def against_published(
    values: Sequence[float], *, images: int, published: float, published_images: int, confidence: float = 0.95
) -> PublishedComparison:
    """Whether runs differ from one published accuracy by more than the noise of both.

    Of two runs or more: a t test of their mean, whose squared standard error is s²/S + p(1 - p)/n, the spread of the S
    runs and the binomial noise of the published share p of n images. Its degrees of freedom are Welch's, with the
    binomial part as known; runs without any spread leave that part alone, and a normal distribution. One run shows no
    spread of seeds: then two independent proportions are compared, by Newcombe's interval and the pooled score test. So
    are runs without spread beside a published 0 or 1, where neither noise can be estimated.

    What nobody knows is how far another seed would have moved the published number. Its binomial noise has to stand in
    for that, and does not where seeds scatter as images do, or more. Three runs no different from a published one of
    91 % on 10,000 images had a p-value of at most 0.05 in 5.0 % of 200,000 draws where seeds scatter by 0.2 points, in
    5.9 % where by 0.5; but in 10.0 % and 19.7 % if the published one's seed was drawn as well, not its images alone.

    Args:
        values: test accuracies of the runs, as shares.
        images: how many images each run was judged on.
        published: the published accuracy, as a share.
        published_images: how many images that was measured on.
        confidence: the two-sided confidence level of the interval, between 0 and 1.

    Raises:
        InputError: no runs, an accuracy outside 0 and 1, no images, or a confidence level out of range.
    """
    check_confidence(confidence)
    shares = numbers("values", values)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InputError("values", values, "must be shares from 0 to 1")
    if not 0 <= published <= 1:
        raise InputError("published", published, "must be a share from 0 to 1")
    images = whole("images", images, least=1)
    published_images = whole("published_images", published_images, least=1)

    count, mean = len(shares), fmean(shares)
    deviation = None if count == 1 else 0.0 if np.ptp(shares) <= rounding_of(shares) else stdev(shares.tolist())
    own, theirs = (deviation or 0.0) ** 2 / count, published * (1 - published) / published_images
    if deviation is None or own + theirs == 0:
        interval, p_value = _two_proportions(mean, images, published, published_images, confidence)
        test, freedom = "score test of two independent proportions", None
    else:
        interval, p_value, freedom = _welch(mean - published, own, theirs, count, confidence)
        test = "normal test" if freedom is None else "t test"
        test = f"{test} of the runs' mean, with the published number's binomial noise"
    return PublishedComparison(
        n=count,
        mean=mean,
        standard_deviation=deviation,
        published=float(published),
        difference=mean - published,
        interval=interval,
        p_value=p_value,
        test=test,
        degrees_of_freedom=freedom,
    )


def _welch(
    difference: float, own: float, known: float, count: int, confidence: float
) -> tuple[Interval, float, float | None]:
    """Interval, p-value and degrees of freedom of a difference with one variance estimated and another known."""
    from scipy.stats import t

    ratio = (own + known) / own if own else math.inf
    freedom = (count - 1) * ratio * ratio
    error = math.sqrt(own + known)
    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(t.sf(abs(difference) / error, freedom))
    return Interval(difference - reach, difference + reach), p_value, freedom if math.isfinite(freedom) else None


def _two_proportions(
    share: float, images: int, published: float, published_images: int, confidence: float
) -> tuple[Interval, float]:
    """Newcombe's interval of the difference, and the p-value of the score test with a pooled proportion."""
    right, published_right = accuracy_count(share, images), accuracy_count(published, published_images)
    interval = difference_interval(right, images, published_right, published_images, confidence=confidence)
    pooled = (right + published_right) / (images + published_images)
    error = math.sqrt(pooled * (1 - pooled) * (1 / images + 1 / published_images))
    gap = abs(right / images - published_right / published_images)
    return interval, math.erfc(gap / error / math.sqrt(2)) if error else 1.0
