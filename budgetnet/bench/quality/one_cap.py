"""The table of networks at one cap on parameters, all of this project's own spaces; see ``studies/one-cap``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from budgetnet.bench.quality.problem import Curves, Problem
from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.columns import choices_of

ONE_CAP = "one-cap"
_FIELD = "one_cap"
_IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
_COSTS = ("params", "macs", "activations", "blocks")
_LEAST = 2
"""Networks without which there is nothing to choose."""


def load(folder: Path) -> Problem:
    """Return the table of a folder: the networks that were trained to the end with every seed.

    Those with one seed only are left out: there, the same training would be judge and truth.

    Args:
        folder: has ``study.yaml``, ``networks.csv`` and ``trainings.csv``.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others; or there are too few networks.
    """
    study = read_mapping(folder / "study.yaml", field=_FIELD)
    try:
        space, recipe = SearchSpace.from_mapping(study["space"]), Recipe.from_mapping(study["recipe"])
        seeds = [int(seed) for seed in study["seeds"]]
    except (KeyError, TypeError, ValueError) as error:
        missing = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(_FIELD, str(folder / "study.yaml"), f"must be the study of a table: {missing}") from None
    where = dict(space.proposed("fit"))
    path = folder / "networks.csv"
    networks = _rows(path, ["network", *where, "widths", "depths", *_COSTS, "digest"])
    indexes = np.array([_checked(path, place, row, space) for place, row in enumerate(networks)], dtype=np.int64)
    curves = _curves(folder / "trainings.csv", recipe.epochs, count=len(networks), seeds=seeds)
    known = np.flatnonzero(np.isfinite(curves).all(axis=(1, 2)))
    if len(known) < _LEAST:
        rule = (
            f"has {len(known)} networks that were trained to the end with seeds {seeds}: at least {_LEAST} are needed"
        )
        raise InputError(_FIELD, str(folder / "trainings.csv"), rule)
    costs = {name: np.array([int(networks[place][name]) for place in known], dtype=np.float64) for name in _COSTS}
    return Problem(
        table=ONE_CAP,
        name=f"{len(known)} networks",
        distributions={name: _by_index(each) for name, each in where.items()},
        indexes=indexes[known],
        accuracy=curves[known, :, -1],
        size=costs["params"],
        limit=math.inf,
        macs=costs["macs"],
        cost=costs["macs"],
        features={"log activations": costs["activations"], "log blocks": costs["blocks"]},
        curves=Curves(recipe, curves[known]),
        is_sample=True,
    )


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table with these columns.

    Raises:
        InputError: it cannot be read, or has other columns, or rows of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows, header = list(reader), list(reader.fieldnames or [])
    except FileNotFoundError:
        raise InputError(_FIELD, str(path), "no such file") from None
    except OSError as error:
        raise InputError(_FIELD, str(path), f"cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(_FIELD, str(path), f"must be a CSV file: {error}") from None
    if header != list(columns):
        missing, foreign = (
            ", ".join(name for name in one if name not in other)
            for one, other in ((columns, header), (header, columns))
        )
        faults = [f"lacks {missing}"] * bool(missing) + [f"has {foreign}"] * bool(foreign)
        raise InputError(_FIELD, str(path), f"must have the columns of its study: {'; '.join(faults) or 'other order'}")
    for number, row in enumerate(rows, 2):
        # None is a key if there are too many cells, and a value if there are too few.
        if None in row or None in row.values():
            raise InputError(_FIELD, str(path), f"line {number} must have {len(columns)} cells")
    return rows


def _checked(path: Path, place: int, row: Mapping[str, str], space: SearchSpace) -> list[int]:
    """Return the place of each value of a network's sample among the choices; its costs must be those of its network.

    Raises:
        InputError: a value is not of the space, or the network costs something else.
    """
    params: dict[str, Any] = {}
    indexes = []
    for name, where in space.proposed("fit").items():
        choices = {str(choice): index for index, choice in enumerate(choices_of(where).tolist())}
        if row[name] not in choices:
            raise InputError(_FIELD, str(path), f"line {place + 2}: {name} must be of the space, not {row[name]!r}")
        indexes.append(choices[row[name]])
        params[name] = choices_of(where).tolist()[indexes[-1]]
    try:
        widths, depths = ([int(part) for part in row[name].split("-")] for name in ("widths", "depths"))
        sample = {**params, **{f"blocks_{number}": depth for number, depth in enumerate(depths, 1)}}
        spec = space.spec_of_widths(sample, widths, **_IMAGE)
    except (KeyError, ValueError) as error:
        raise InputError(
            _FIELD, str(path), f"line {place + 2}: widths and depths must be a network's: {error}"
        ) from None
    found = {"network": place, **spec.cost._asdict(), "blocks": sum(depths)}
    for name, value in found.items():
        if row[name] != str(value):
            raise InputError(_FIELD, str(path), f"line {place + 2}: {name} must be {value}, not {row[name]!r}")
    return indexes


def _curves(path: Path, epochs: int, *, count: int, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Return accuracies in percent, `(networks, seeds, epochs)`; NaN where there is no training or it diverged.

    Raises:
        InputError: the table cannot be read, or has rows of no network, no seed or no accuracy.
    """
    numbers = range(1, epochs + 1)
    columns = [f"{what}_{number}" for what in ("accuracy", "loss") for number in numbers]
    curves = np.full((count, len(seeds), epochs), np.nan)
    seen = set()
    for line, row in enumerate(_rows(path, ["network", "seed", "status", *columns, "pflop", "seconds"]), 2):
        try:
            network, place = range(count).index(int(row["network"])), seeds.index(int(row["seed"]))
            cells = [float(row[f"accuracy_{number}"] or "nan") for number in numbers]
        except ValueError:
            rule = "must have a network of networks.csv, a seed of study.yaml, and numbers"
            raise InputError(_FIELD, str(path), f"line {line} {rule}") from None
        if (network, place) in seen:
            raise InputError(_FIELD, str(path), f"line {line} must not repeat a training")
        seen.add((network, place))
        if row["status"] == "complete":
            if not all(0 <= cell <= 1 for cell in cells):
                raise InputError(_FIELD, str(path), f"line {line} must have accuracies from 0 to 1")
            curves[network, place] = cells
    return 100 * curves


def _by_index(where: BaseDistribution) -> BaseDistribution:
    """Return a distribution of the places of values."""
    count = len(choices_of(where))
    if isinstance(where, IntDistribution):
        return IntDistribution(0, count - 1)
    return CategoricalDistribution(range(count))
