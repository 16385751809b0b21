"""The verb that serves optuna-dashboard for a study, with notes, files and figures that keep up with the search."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Out, Storage
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

_LOOK_AGAIN = 3.0
"""Seconds between two looks at what has ended."""


def dashboard(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name of the study; the last one worked on if left out.")
    ] = None,
    port: Annotated[
        str, typer.Option("--port", metavar="N", help="Where to listen on this machine; 0 for any that is free.")
    ] = "8080",
    out: Out = Path("runs"),
    storage: Storage = None,
) -> None:
    """Serve a study to the browser of this machine, while it is searched or later; Ctrl-C ends it."""
    number = _read_port(port)
    from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors, study_settings
    from budgetnet.visualization.dashboard import DashboardServer, annotate_shown

    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(kept):
        found = find_study(kept, study)
        study_settings(found)
    server = DashboardServer(kept, out=out, port=number)
    notes = _Notes(found, kept, out)
    with _ended_by_signals():
        try:
            if trouble := annotate_shown(found, kept, out, wait=False):
                typer.echo(trouble, err=True)
            notes.start()
            typer.echo(f"{found.study_name}: {server.address}/dashboard/studies/{found._study_id}")
            typer.echo("Ctrl-C ends it", err=True)
            server.serve()
        except KeyboardInterrupt:
            typer.echo("the dashboard has ended", err=True)
        finally:
            server.server_close()
            notes.stop()


class _Notes:
    """A thread that keeps notes, files and figures up to date; of trouble that lasts it tells once."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, out: Path) -> None:
        self._what = study, storage, out
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notes")

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        from budgetnet.visualization.dashboard import try_annotate

        told = None
        while not self._over.wait(_LOOK_AGAIN):
            trouble = try_annotate(*self._what, wait=False, stopped=self._over.is_set)
            if trouble is not None and trouble != told:
                typer.echo(trouble, err=True)
            told = trouble or told

    def stop(self) -> None:
        """Waits for the trial that is being written."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM end a block as Ctrl-C does, and Ctrl-C also where a script began it in the background.

    A shell that is no terminal's lets what it puts there ignore the interrupt, and Python keeps to that.
    """
    ends = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(end, signal.default_int_handler) for end in ends]
    try:
        yield
    finally:
        for end, handler in zip(ends, before, strict=True):
            signal.signal(end, handler)


def _read_port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise InputError("--port", text, "must be a whole number from 0 to 65535")
    return int(text)
