"""Searches in processes of their own: their workers, as Linux lists them, their trials and their runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from budgetnet.engines import worker as worker_program
from budgetnet.study.storage import default_storage, find_study, open_storage


def command_line(pid: int) -> str:
    """Return a process's command line, or its title; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, in the order of their start; none if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a command in the order of their start, without its other child processes."""
    return [child for child in children_of(pid) if worker_program.__name__ in command_line(child).split()]


def are_gone(pids: Iterable[int]) -> bool:
    """Return whether processes have ended; a zombie counts as ended."""
    return all(_state(pid) in "Z" for pid in pids)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Return the processes below one that are alive, of the same session or not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def trials_in(folder: Path) -> list[Any]:
    """Return the trials of the latest study in the default storage of a working folder."""
    storage = open_storage(default_storage(folder / "runs"), create=False)
    try:
        return find_study(storage, None).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def answers(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return the curves and the result of every run, without times, read without the package."""
    found = {}
    for path in sorted((folder / "runs").glob("*/result.json")):
        result = json.loads(path.read_text())
        assert result.pop("seconds") > 0
        with (path.parent / "curves.csv").open() as file:
            curves = [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]
        assert not (path.parent / "checkpoint.safetensors").exists()
        found[path.parent.name] = curves, result
    return found
