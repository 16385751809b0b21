"""Server of optuna-dashboard on localhost."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from budgetnet.common.errors import InputError
from budgetnet.visualization.dashboard.artifacts import artifact_folder
from budgetnet.visualization.dashboard.readable import ReadableStorage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
"""Listen on localhost only, because the dashboard lets users change and delete studies."""


_LOCAL_NAMES = {"127.0.0.1", "localhost"}


def refuse_foreign(application: WSGIApplication) -> WSGIApplication:
    """Return the application behind a check that a request comes from one of its own pages.

    A page of another site could otherwise change studies through the user's browser: by a request of its own, or by a
    host name of its own that it lets point to this machine (DNS rebinding).
    """

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        try:
            is_local = urlsplit(f"//{host}").hostname in _LOCAL_NAMES
        except ValueError:  # Not a host name at all.
            is_local = False
        if is_local and origin in (None, f"http://{host}"):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"only pages of this server at 127.0.0.1 or localhost may use it\n"]

    return checked


class _Handler(WSGIRequestHandler):
    """Request handler without a log."""

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Serve optuna-dashboard's WSGI application from several threads.

    Its own `run_server` answers one request at a time, prints a line for each, and does not tell its port where 0 is
    asked for.
    """

    daemon_threads = True
    _closed = False

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

        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            rule = "is in use; choose another, or 0 for any free port" if taken else f"cannot be used: {error.strerror}"
            raise InputError("--port", port, rule) from None
        artifacts = FileSystemArtifactStore(artifact_folder(out))
        self.set_app(refuse_foreign(wsgi(ReadableStorage(storage), artifact_store=artifacts)))

    @property
    def address(self) -> str:
        """Address in a browser: ``http://127.0.0.1:8080``."""
        return f"http://{HOST}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong with a request, but not that the browser or this server closed its connection early."""
        if not self._closed and not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Stop listening; errors of requests that are still being answered are not printed any more."""
        self._closed = True
        super().server_close()

    def serve(self) -> None:
        """Answer requests until an interrupt, without the dashboard's warnings about small studies."""
        logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.serve_forever(poll_interval=0.1)
