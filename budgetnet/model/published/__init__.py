"""Published results and their sources, read from data files on first use.

`results` returns all of them, `reference` the one that leaderboards compare with, `table1` the layers in the paper's
Table 1, `contradictions` the points on which the paper contradicts itself or its notebook.
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
    """A row of the paper's Table 1, which is for 28x28 images."""

    layer: str
    """Type and number, such as ``Conv2d-1``."""
    output_shape: tuple[int, ...]
    """Output shape (batch, channels, height, width) or (batch, classes); batch is -1."""
    params: int
    """Trainable parameters."""


def load_results(folder: Path) -> dict[str, PublishedResult]:
    """Load the results in a folder by name: the paper's ladder from the first rung, then the others.

    Args:
        folder: a folder with one YAML file for each result.

    Raises:
        InputError: a file is malformed or invalid, or its name differs from the result's.
    """
    loaded = []
    for path in sorted(folder.glob("*.yaml")):
        result = PublishedResult.load(path)
        if result.name != path.stem:
            raise InputError(f"{path}: name", result.name, f"must be the file's name, {path.stem}")
        loaded.append(result)
    # The sort is stable, so results without a rung stay sorted by name.
    loaded.sort(key=lambda result: (result.rung is None, result.rung or 0))
    return {result.name: result for result in loaded}


@cache
def results() -> Mapping[str, PublishedResult]:
    """Return all published results by name: the paper's ladder from the first rung, then the others."""
    return MappingProxyType(load_results(_DATA / "results"))


def get(name: str) -> PublishedResult:
    """Return the published result with a given name.

    Raises:
        InputError: no result has this name.
    """
    return look_up(name, results(), field="published result", missing="no such result")


def reference() -> PublishedResult:
    """Return the result that leaderboards compare with."""
    return get("reference")


@cache
def contradictions() -> tuple[Contradiction, ...]:
    """Return the points on which the paper contradicts itself or its notebook."""
    # Imported here because defining these documents is slow and leaderboards do not need them.
    from budgetnet.model.published.contradiction import Contradictions

    return Contradictions.load(_DATA / "contradictions.yaml").contradictions


@cache
def table1() -> tuple[LayerRow, ...]:
    """Return the rows of the paper's Table 1 from input to output, without the totals."""
    with (_DATA / "table1.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(
            LayerRow(row["layer"], tuple(json.loads(row["output_shape"])), int(row["params"]))
            for row in csv.DictReader(stream)
        )
