"""A study of two networks with results given by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from record_support import run_record

from budgetnet.experiments.ablation import AblationStudy
from budgetnet.experiments.ablation.results import AblationResult, ablation_result

CIFAR: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
SMALL: dict[str, Any] = {"stem": {"channels": 8}, "stages": [{"channels": 8}, {"channels": 16, "stride": 2}]}
STUDY: dict[str, Any] = {
    "name": "two",
    "networks": {"basic": SMALL, "preact": {**SMALL, "block": "preact"}},
    "recipe": {},
    "options": {
        "nesterov": {"recipe.nesterov": True},
        "smooth": {"recipe.label_smoothing": 0.1},
        "decay": {"recipe.weight_decay": 0.001},
    },
    "design": "alone-and-leave-one-out",
    "seeds": [3, 5, 8, 9],
}
NAMES = [
    "base",
    "nesterov",
    "smooth",
    "decay",
    "all",
    "all without nesterov",
    "all without smooth",
    "all without decay",
]
BASES = {"basic": [7_000, 7_050, 7_100, 7_020], "preact": [7_400, 7_420, 7_510, 7_480]}
"""Correct answers of each base out of 10,000, by seed."""
NOISE = [[0, 0, 0, 0], [3, -2, 1, 4], [-40, 55, -35, 30], [2, 1, -3, 2], [4, -1, 2, 0], [0, 3, 1, -2], [9, -9, 8, -7]]
SHIFTS = {
    # By how many right answers a variant is above its network's base, without noise.
    "basic": [0, 200, 5, -150, 250, 60, 250, 420],
    "preact": [0, 190, 5, 160, 300, 340, 300, 150],
}


def counts_of(network: str, name: str) -> list[int]:
    """Return the right answers of a network's variant, by seed."""
    number = NAMES.index(name)
    noise = NOISE[number % len(NOISE)]
    return [base + SHIFTS[network][number] + each for base, each in zip(BASES[network], noise, strict=True)]


def result_of(study: AblationStudy, counts: Callable[[str, str], Sequence[int | None]]) -> AblationResult:
    """Build the result of a study from the number of correct images of each run, by network and variant."""
    variants = study.variants(**CIFAR)
    records = {
        variant.key: [
            run_record(seed=seed, spec=variant.spec, recipe=variant.recipe, validation_correct=count)
            for seed, count in zip(study.seeds, counts(variant.network, variant.name), strict=True)
        ]
        for variant in variants
        if variant.fits
    }
    return ablation_result(study, variants, records)


def differences_of(name: str, other: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return the differences of two variants as shares, seed by seed, by network."""
    return {net: np.subtract(counts_of(net, name), counts_of(net, other)) / 10_000 for net in BASES}


COMPARISONS = {
    ("nesterov", "alone"): ("nesterov", "base"),
    ("nesterov", "omitted"): ("all without nesterov", "all"),
    ("smooth", "alone"): ("smooth", "base"),
    ("smooth", "omitted"): ("all without smooth", "all"),
    ("decay", "alone"): ("decay", "base"),
    ("decay", "omitted"): ("all without decay", "all"),
    ("all", "alone"): ("all", "base"),
}
"""Names of the compared variants, by change and kind of comparison."""
