"""How studies look in a terminal: the list, their states, and how far the running one is."""

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
    """Show what the list holds, and which studies lack a file."""
    table = _table(
        "studies, in the order in which they are run", "study", "question", "core hours", "commands", "ready"
    )
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
    """Show what has become of each study."""
    status, at_work = place.status(), place.is_locked()
    states = status.studies if status else {}
    table = _table(f"studies in {place.folder}", "study", "state", "commit", "started", "time", "core hours", "")
    for study in order.studies:
        found = states.get(study.name)
        if found is None:
            ready = _readiness(study, place.checkout) if place.checkout.exists() else ""
            table.add_row(study.name, "pending", "", "", "", f"{study.core_hours:g}", "" if ready == "yes" else ready)
            continue
        # A runner that was killed could not say so.
        name = "interrupted" if found.state == "running" and not at_work else found.state
        told = [found.reason] if found.reason else []
        if name in ("running", "interrupted", "failed"):
            told += [part for part in (progress(place.runs(study)), last_line(place.log(study))) if part]
        table.add_row(
            study.name,
            name,
            found.commit[:10],
            f"{found.started.astimezone():%Y-%m-%d %H:%M}",
            _passed(found, running=name == "running"),
            f"{study.core_hours:g}",
            "\n".join(told),
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
    """Describe how far a study is: runs that are finished, and epochs of the one that was worked on last."""
    finished = len(list(runs.glob("*/result.json")))
    told = [f"{finished} runs finished"] if finished else []
    open_runs = [path for path in runs.glob("*/curves.csv") if not (path.parent / "result.json").exists()]
    if open_runs:
        folder = max(open_runs, key=lambda path: path.stat().st_mtime_ns).parent
        try:
            done, planned = len(RunFolder(folder).read_curves()), Recipe.load(folder / "recipe.yaml").epochs
            told.append(f"{folder.name}: {done} of at most {planned} epochs")
        except BudgetnetError:
            # Made by a version of the code that this one cannot read; the run itself is not in question.
            told.append(folder.name)
    return ", ".join(told)


def last_line(log: Path) -> str:
    """Give the last line of a log that holds text, shortened; empty where there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
    return next((line.strip()[:120] for line in reversed(lines) if line.strip()), "")


def code_line(repository: Path, checkout: Path) -> str:
    """Describe which commit the studies run, and whether the repository has another one."""
    if not checkout.exists():
        return "no study was started here yet"
    words = study_checkout.describe(checkout).partition(";")[0]
    newer = study_checkout.head_of(repository) != study_checkout.head_of(checkout)
    return f"code of the studies: {words}" + ("; --update takes the repository's HEAD" if newer else "")
