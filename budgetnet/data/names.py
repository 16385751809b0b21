"""Names of data sets."""

from __future__ import annotations

import difflib
from pathlib import Path

from budgetnet.common.errors import DataError

_RULE = "must be digits, cifar10, cifar10:PATH, folder:PATH or arrays:PATH.npz"


def check_name(name: str) -> None:
    """Check the form of a data set's name, without looking for the data.

    Raises:
        DataError: it is not the name of a data set; the error suggests one, for a path the name of that path.
    """
    kind, colon, where = name.partition(":")
    if name == "digits" or (kind in ("folder", "arrays") and where) or (kind == "cifar10" and (where or not colon)):
        return
    near = difflib.get_close_matches(kind.strip().lower(), ("digits", "cifar10", "folder", "arrays"), n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != kind else ""
    if not colon and name.strip() and "\0" not in name:
        path = Path(name)
        if path.suffix == ".npz":
            hint = f"; did you mean arrays:{name}?"
        elif path.is_dir() and not near:
            hint = f"; did you mean folder:{name}?"
    raise DataError("data", name, _RULE + hint)
