"""optuna-dashboard, served to this machine alone."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from budgetnet.common.errors import InputError
from budgetnet.visualization.dashboard.artifacts import artifact_folder

HOST = "127.0.0.1"
"""Whoever can reach the dashboard can change and delete studies, so nobody else's machine can."""


class _Handler(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that leaves in the middle of an answer is no trouble.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class DashboardServer:
    """A server that listens, and answers once it is told to."""

    def __init__(self, storage: RDBStorage, *, out: Path, port: int) -> None:
        """Takes the port.

        Args:
            storage: whose studies are shown.
            out: folder of run folders, with that of artifacts.
            port: where to listen; 0 for any that is free.

        Raises:
            InputError: the port is taken, or not to be had.
        """
        from optuna_dashboard import wsgi

        app = wsgi(storage, artifact_store=FileSystemArtifactStore(artifact_folder(out)))
        try:
            self._server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            rule = "is taken; name another, or 0 for any that is free" if taken else f"cannot be used: {error.strerror}"
            raise InputError("--port", port, rule) from None

    @property
    def address(self) -> str:
        """Where it listens: ``http://127.0.0.1:8080``."""
        return f"http://{HOST}:{self._server.server_port}"

    def serve(self) -> None:
        """Answers until it is interrupted; what the dashboard has to remark on small studies is told to nobody."""
        logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Gives the port back."""
        self._server.server_close()
