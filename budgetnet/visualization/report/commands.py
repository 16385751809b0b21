"""The commands that make a study again and show it, from the config that is stored with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from budgetnet.common.config import command
from budgetnet.study.commands import found_config, location_options, train_command
from budgetnet.study.settings import StudySettings
from budgetnet.visualization.report.content import Command


def commands(
    study: str,
    settings: StudySettings,
    *,
    out: Path,
    storage: str | None,
    best_run: str | None,
    shown: Sequence[str] = (),
) -> list[Command]:
    """Return the commands that made a study, show it and train its best network again.

    Args:
        study: its name.
        settings: its question and config.
        out: folder of its run folders.
        storage: URL of its storage; None where that is the SQLite file in that folder.
        best_run: name of the best candidate's run folder.
        shown: options that say what else the report shows.
    """
    config = found_config(settings, study, out=out, storage=storage)
    where = location_options(config)
    found = [
        Command("made it, and goes on where it stopped", command(config)),
        Command("shows it in a terminal", shlex.join(["budgetnet", "leaderboard", study, *where])),
        Command(
            "makes this page again",
            shlex.join(["budgetnet", "report", study, "-o", "report.html", *where, *shown]),
        ),
    ]
    if best_run is not None and (out / best_run / "spec.yaml").is_file():
        again = train_command(out / best_run, settings, seed=config.seed)
        found.append(Command("trains its best network again, in a folder of its own", again))
    return found
