"""optuna-dashboard, served to this machine alone."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from budgetnet.common.errors import InputError
from budgetnet.visualization.dashboard.artifacts import artifact_folder

HOST = "127.0.0.1"
"""Whoever can reach the dashboard can change and delete studies, so no other machine can."""


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print no line for a request."""


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Serve optuna-dashboard's WSGI application from several threads.

    Its own `run_server` answers one request at a time, prints a line for each, and does not tell its port where 0 is
    asked for.
    """

    daemon_threads = True

    def __init__(self, storage: RDBStorage, *, out: Path, port: int) -> None:
        """Take the port.

        Args:
            storage: whose studies are shown.
            out: folder of run folders, with that of artifacts.
            port: where to listen; 0 for any that is free.

        Raises:
            InputError: the port is taken, or not to be had.
        """
        from optuna_dashboard import wsgi

        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            rule = "is taken; name another, or 0 for any that is free" if taken else f"cannot be used: {error.strerror}"
            raise InputError("--port", port, rule) from None
        self.set_app(wsgi(storage, artifact_store=FileSystemArtifactStore(artifact_folder(out))))

    @property
    def address(self) -> str:
        """Address in a browser: ``http://127.0.0.1:8080``."""
        return f"http://{HOST}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong with a request, but not that a browser closed its connection early."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def serve(self) -> None:
        """Answer requests until an interrupt, without the dashboard's warnings about small studies."""
        logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.serve_forever(poll_interval=0.1)
