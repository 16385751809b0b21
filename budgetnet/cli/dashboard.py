"""The ``budgetnet dashboard`` command: optuna-dashboard with notes, files and figures that follow the search."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.completion import completing
from budgetnet.cli.options import Out, Storage
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

_POLL_INTERVAL = 3.0
"""Seconds between two updates of the notes."""


def dashboard(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            autocompletion=completing("[STUDY]"),
            help="Name of the study. Default: the most recent one.",
        ),
    ] = None,
    port: Annotated[str, typer.Option("--port", metavar="N", help="Port on localhost; 0: any free port.")] = "8080",
    out: Out = Path("runs"),
    storage: Storage = None,
) -> None:
    """Serve a study in optuna-dashboard on localhost, also during a search; stop with Ctrl-C."""
    port_number = _read_port(port)
    from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors, study_settings
    from budgetnet.visualization.dashboard import DashboardServer, annotate_shown

    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(kept):
        found = find_study(kept, study)
        study_settings(found)
    server = DashboardServer(kept, out=out, port=port_number)
    notes = _Notes(found, kept, out)
    with _interruptible():
        try:
            if problem := annotate_shown(found, kept, out, wait=False):
                typer.echo(problem, err=True)
            notes.start()
            typer.echo(f"{found.study_name}: {server.address}/dashboard/studies/{found._study_id}")
            typer.echo("press Ctrl-C to stop", err=True)
            server.serve()
        except KeyboardInterrupt:
            typer.echo("dashboard stopped", err=True)
        finally:
            server.server_close()
            notes.stop()


class _Notes:
    """Thread that keeps notes, files and figures up to date; a repeated problem is printed once."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, out: Path) -> None:
        self._arguments = study, storage, out
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notes")

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        from budgetnet.visualization.dashboard import try_annotate

        reported = None
        while not self._stop.wait(_POLL_INTERVAL):
            problem = try_annotate(*self._arguments, wait=False, stopped=self._stop.is_set)
            if problem is not None and problem != reported:
                typer.echo(problem, err=True)
            reported = problem or reported

    def stop(self) -> None:
        """Stop the thread after the trial that it is writing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT, which non-interactive shells have background processes ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read_port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > 65_535:
        raise InputError("--port", text, "must be a whole number from 0 to 65535")
    return int(text)
