"""Completion of option values in a shell: names of networks, recipes, spaces, studies and runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from budgetnet.common.errors import BudgetnetError

RUNS = Path("runs")
"""Default folder of run folders, in which studies and runs are looked for."""


def networks() -> list[str]:
    """Return the names of networks."""
    from budgetnet.model.zoo import ENTRIES

    return list(ENTRIES)


def recipes() -> list[str]:
    """Return the names of recipes."""
    from budgetnet.runs.named_recipes import NAMED

    return list(NAMED)


def spaces() -> list[str]:
    """Return the names of search spaces."""
    # Not from the spaces themselves, which need Optuna.
    from budgetnet.study.choices import SPACES

    return list(SPACES)


def data() -> list[str]:
    """Return the names of data sets, and the beginnings of those that take a path."""
    from budgetnet.data.names import DOWNLOADS

    return ["digits", *DOWNLOADS, *(f"{name}:" for name in DOWNLOADS), "folder:", "arrays:"]


def trackers() -> list[str]:
    """Return the names of trackers."""
    return ["tensorboard", "mlflow"]


def studies() -> list[str]:
    """Return the names of the studies in the default folder, none if it cannot be read."""
    from budgetnet.study.storage import default_storage, open_storage

    try:
        storage = open_storage(default_storage(RUNS), create=False)
        return [study.study_name for study in storage.get_all_studies()]
    except BudgetnetError:
        return []


def runs() -> list[str]:
    """Return the run folders in the default folder, and the name of the best run."""
    return ["best", *(str(path.parent) for path in sorted(RUNS.glob("*/run.json")))]


BY_METAVAR: dict[str, Callable[[], Iterable[str]]] = {
    "SPEC": networks,
    "RECIPE": recipes,
    "SPACE": spaces,
    "DATA": data,
    "TRACKER": trackers,
    "RUN": runs,
    "[STUDY]": studies,
    "SEARCH": studies,
    "[STUDY | RUN...]": lambda: [*studies(), *runs()],
}
"""Possible values by the metavar of an option or argument; those of ``fit|scale`` are its parts."""


def completing(metavar: str) -> Callable[[str], list[str]] | None:
    """Return the function that completes a value, given its beginning; None if its values are not known.

    Args:
        metavar: metavar of the option or argument, such as ``RECIPE`` or ``fit|scale|reject``.
    """
    if metavar in BY_METAVAR:
        values = BY_METAVAR[metavar]
    elif "|" in metavar and metavar.islower():
        values = functools.partial(metavar.split, "|")
    else:
        return None

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete
