"""Terminal tables of studies: the list, their states and progress."""

from __future__ import annotations

from pathlib import Path

import study_checkout
from rich.table import Table
from study_order import Order, Study
from study_runner import Place
from study_state import StudyState, now

from budgetnet.common.errors import BudgetnetError
from budgetnet.common.formatting import duration
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.store import RunFolder

_COLOURS = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def list_table(order: Order, checkout: Path) -> Table:
    """Return a table of the list, with the first missing file of each study."""
    table = _table("studies, in the order in which they run", "study", "question", "core hours", "commands", "ready")
    for study in order.studies:
        table.add_row(
            study.name,
            study.question,
            f"{study.core_hours:g}",
            str(len(study.commands)),
            _readiness(study, checkout),
        )
    return table


def status_table(order: Order, place: Place) -> Table:
    """Return a table of the state of each study."""
    status, running = place.status(), place.is_locked()
    states = status.studies if status else {}
    table = _table(f"studies in {place.folder}", "study", "state", "commit", "started", "time", "core hours", "")
    for study in order.studies:
        found = states.get(study.name)
        if found is None:
            ready = _readiness(study, place.checkout) if place.checkout.exists() else ""
            table.add_row(study.name, "pending", "", "", "", f"{study.core_hours:g}", "" if ready == "yes" else ready)
            continue
        # A killed runner leaves the state at "running".
        name = "interrupted" if found.state == "running" and not running else found.state
        details = [found.reason] if found.reason else []
        if name in ("running", "interrupted", "failed"):
            details += [part for part in (progress(place.runs(study)), last_line(place.log(study))) if part]
        table.add_row(
            study.name,
            name,
            found.commit[:10],
            f"{found.started.astimezone():%Y-%m-%d %H:%M}",
            _passed(found, running=name == "running"),
            f"{study.core_hours:g}",
            "\n".join(details),
            style=_COLOURS.get(name),
        )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in ("core hours", "commands") else "left")
    return table


def _readiness(study: Study, checkout: Path) -> str:
    missing = study.missing(checkout)
    return f"not ready: {missing[0]} is missing" if missing else "yes"


def _passed(state: StudyState, *, running: bool) -> str:
    end = now() if running else state.ended
    return "" if end is None else duration((end - state.started).total_seconds())


def progress(runs: Path) -> str:
    """Describe the progress of a study: finished runs, and epochs of the latest run."""
    finished = len(list(runs.glob("*/result.json")))
    parts = [f"{finished} runs finished"] if finished else []
    open_runs = [path for path in runs.glob("*/curves.csv") if not (path.parent / "result.json").exists()]
    if open_runs:
        folder = max(open_runs, key=lambda path: path.stat().st_mtime_ns).parent
        try:
            done, planned = len(RunFolder(folder).read_curves()), Recipe.load(folder / "recipe.yaml").epochs
            parts.append(f"{folder.name}: {done:,} of at most {planned:,} epochs")
        except BudgetnetError:
            # Written by a version of the code whose files this one cannot read.
            parts.append(folder.name)
    return ", ".join(parts)


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log, shortened; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
    return next((line.strip()[:120] for line in reversed(lines) if line.strip()), "")


def code_line(repository: Path, checkout: Path) -> str:
    """Describe the commit of the checkout, and whether the repository has another one."""
    if not checkout.exists():
        return "no study has been started here"
    commit = study_checkout.describe(checkout).partition(";")[0]
    newer = study_checkout.head_of(repository) != study_checkout.head_of(checkout)
    return f"code of the studies: {commit}" + ("; --update takes the repository's HEAD" if newer else "")
