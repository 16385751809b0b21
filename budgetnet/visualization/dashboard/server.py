"""Server of optuna-dashboard on localhost."""

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
"""Listen on localhost only, because the dashboard lets users change and delete studies."""


class _Handler(WSGIRequestHandler):
    """Request handler without a log."""

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that closes the connection early is not an error.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class DashboardServer:
    """Server of optuna-dashboard; `serve` handles requests until interrupted."""

    def __init__(self, storage: RDBStorage, *, out: Path, port: int) -> None:
        """Bind the port.

        Args:
            storage: storage of the studies.
            out: folder of run folders, which contains that of artifacts.
            port: port to listen on; 0: any free port.

        Raises:
            InputError: the port is in use or not available.
        """
        from optuna_dashboard import wsgi

        app = wsgi(storage, artifact_store=FileSystemArtifactStore(artifact_folder(out)))
        try:
            self._server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            rule = "is in use; choose another, or 0 for any free port" if taken else f"cannot be used: {error.strerror}"
            raise InputError("--port", port, rule) from None

    @property
    def address(self) -> str:
        """URL of the server: ``http://127.0.0.1:8080``."""
        return f"http://{HOST}:{self._server.server_port}"

    def serve(self) -> None:
        """Handle requests until interrupted; warnings of the dashboard about small studies are suppressed."""
        logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Release the port."""
        self._server.server_close()
