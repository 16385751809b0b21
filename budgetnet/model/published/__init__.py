"""Published results that budgetnet is measured against, as data files with their source.

`results` gives all of them, `reference` the one that candidates are ranked beside, `table1` the layers that the paper
prints, `contradictions` the points on which paper and notebook differ. Nothing is read before it is asked for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.common.documents import look_up
from budgetnet.common.errors import InputError
from budgetnet.model.published.result import FACTS, Claim, Fact, PublishedResult

if TYPE_CHECKING:
    from budgetnet.model.published.contradiction import Contradiction

__all__ = [
    "FACTS",
    "Claim",
    "Fact",
    "LayerRow",
    "PublishedResult",
    "contradictions",
    "get",
    "load_results",
    "reference",
    "results",
    "table1",
]

_DATA = Path(__file__).with_name("data")


class LayerRow(NamedTuple):
    """A layer as the paper's Table 1 prints it, for an input of 28x28."""

    layer: str
    """Its kind and number, such as ``Conv2d-1``."""
    output_shape: tuple[int, ...]
    """Batch size, as -1, then channels, height and width, or classes alone."""
    params: int
    """Trainable parameters."""


def load_results(folder: Path) -> dict[str, PublishedResult]:
    """The results in a folder by their names: the rungs of the ladder from the lowest, then the others.

    Args:
        folder: a folder with a YAML file for each.

    Raises:
        InputError: a file is malformed, breaks a rule, or has another name than its result.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        result = PublishedResult.load(path)
        if result.name != path.stem:
            raise InputError(f"{path}: name", result.name, f"must be the file's name, {path.stem}")
        found.append(result)
    # Sorting keeps those without a rung in the order of their names.
    found.sort(key=lambda result: (result.rung is None, result.rung or 0))
    return {result.name: result for result in found}


@cache
def results() -> Mapping[str, PublishedResult]:
    """Every published result by its name: the rungs of the paper's ladder from the lowest, then the others."""
    return MappingProxyType(load_results(_DATA / "results"))


def get(name: str) -> PublishedResult:
    """The published result of that name.

    Raises:
        InputError: no result has that name.
    """
    return look_up(name, results(), field="published result", missing="no such result")


def reference() -> PublishedResult:
    """The result that candidates are ranked beside."""
    return get("reference")


@cache
def contradictions() -> tuple[Contradiction, ...]:
    """The points on which the paper contradicts itself or its notebook."""
    # Here, because these documents take a while to make, and what ranks needs none of them.
    from budgetnet.model.published.contradiction import Contradictions

    return Contradictions.load(_DATA / "contradictions.yaml").contradictions


@cache
def table1() -> tuple[LayerRow, ...]:
    """The rows of the paper's Table 1, from the image to the classes; its totals are left out."""
    with (_DATA / "table1.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(
            LayerRow(row["layer"], tuple(json.loads(row["output_shape"])), int(row["params"]))
            for row in csv.DictReader(stream)
        )
