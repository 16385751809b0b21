"""Environments of a report: the distinct versions and hardware recorded in run folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.runs.environment import read_starts
from budgetnet.visualization.report.content import Environment

_FILE = "environment.json"


class Environments(NamedTuple):
    """Environments recorded in run folders."""

    environments: tuple[Environment, ...]
    """Distinct environments, the one with the most runs first."""
    unknown: int
    """Number of folders that are missing or have no recorded environment."""
    damaged: tuple[str, ...]
    """Files that cannot be read, with the reason."""


def read_environments(runs: Iterable[str], out: Path) -> Environments:
    """Read the environments of runs.

    Args:
        runs: names of run folders.
        out: folder of run folders.
    """
    found: dict[str, tuple[dict[str, Any], set[str]]] = {}
    unknown, damaged = 0, []
    for run in dict.fromkeys(runs):
        path = out / run / _FILE
        try:
            if not path.exists():
                unknown += 1
                continue
            starts = read_starts(path)
        except OSError as error:
            damaged.append(f"{run[:80]}/{_FILE}: {error.strerror}")
            continue
        except InputError as error:
            damaged.append(f"{run}/{_FILE}: {error.rule}")
            continue
        for start in starts:
            facts = {name: value for name, value in start.items() if name != "first_epoch"}
            key = json.dumps(facts, sort_keys=True)
            found.setdefault(key, (facts, set()))[1].add(run)
    environments = [Environment(facts, len(names)) for facts, names in found.values()]
    return Environments(tuple(sorted(environments, key=lambda each: -each.runs)), unknown, tuple(damaged))
