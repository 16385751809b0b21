"""Commands of a report, from the config stored with the study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from budgetnet.common.config import command
from budgetnet.study.commands import found_config, location_options, train_command
from budgetnet.study.settings import StudySettings
from budgetnet.study.winner import Winner
from budgetnet.visualization.report.content import Command


def commands(
    study: str,
    settings: StudySettings,
    *,
    out: Path,
    storage: str | None,
    best: Winner | None,
    shown: Sequence[str] = (),
) -> list[Command]:
    """Return the commands that run a search, show its leaderboard, write its report and retrain its best network.

    Args:
        study: name of the study.
        settings: its settings.
        out: folder of its run folders.
        storage: URL of its storage. Default: the SQLite file in `out`.
        best: the recommended network.
        shown: further options of ``budgetnet report``.
    """
    config = found_config(settings, study, out=out, storage=storage)
    where = location_options(config)
    found = [
        Command("Run or resume the search", command(config)),
        Command("Show the leaderboard in a terminal", shlex.join(["budgetnet", "leaderboard", study, *where])),
        Command(
            "Write this report again",
            shlex.join(["budgetnet", "report", study, "-o", "report.html", *where, *shown]),
        ),
    ]
    if best is not None and best.run and (out / best.run / "spec.yaml").is_file():
        again = train_command(out / best.run, settings, seed=best.seed)
        found.append(Command("Train the best network again, in a new folder", again))
    return found
