"""Published results in text."""

from __future__ import annotations

from budgetnet.model.published import PublishedResult


def stated_accuracy(result: PublishedResult) -> str:
    """Format a published accuracy in per cent, with the decimals published: ``91.41``, or ``~79`` if approximate."""
    return f"{'~' if result.accuracy_is_approximate else ''}{100 * result.accuracy:g}"
