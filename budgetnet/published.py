"""Published results that budgetnet ranks against, as data with their source."""

from __future__ import annotations

from typing import NamedTuple


class PublishedResult(NamedTuple):
    """A result as its authors state it."""

    name: str
    spec: str
    """Name in the zoo of the network it belongs to."""
    params: int
    test_accuracy: float
    """Share of test images classified rightly."""
    test_loss: float
    """Mean cross-entropy on the test images, in nats."""
    test_images: int
    """Number of test images behind the accuracy."""
    data: str
    source: str


REFERENCE = PublishedResult(
    name="published",
    spec="reference",
    params=4_662_346,
    test_accuracy=0.9141,
    test_loss=0.315,
    test_images=10_000,
    data="CIFAR-10",
    source="Inouye, Shah, Xhelollari: Deep Learning Mini Project, NYU Tandon; one run, Table 1 and the public notebook",
)
