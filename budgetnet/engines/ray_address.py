"""Whether Ray is installed, and which cluster to connect to, without loading Ray."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra

_CONNECT_SECONDS = 5.0
"""Seconds to wait for a cluster's address to answer."""
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""An empty settings frame, with which both sides of HTTP/2, and so of gRPC, begin; its fourth byte is the type."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS
"""Opening of a connection by an HTTP/2 client."""


def require_ray() -> None:
    """Require Ray, and an answer at ``RAY_ADDRESS`` if it is set, as Ray itself waits for one for minutes.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    require_extra("ray", "ray", field="engine", value="ray")
    find_cluster()


def find_cluster() -> str | None:
    """Return the address of the cluster to connect to, as `ray.init` takes it; None to start one on this machine.

    Raises:
        InputError: nothing answers at ``RAY_ADDRESS``.
    """
    address = os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        return None
    if address in (None, "auto"):
        # Where Ray keeps the address of the cluster that was started last on this machine, also after it was killed.
        file = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")  # noqa: S108
        with suppress(OSError):
            if _answers(file.read_text().strip()):
                return "auto"
        if address is None:
            return None
    elif "://" in address:
        rule = "must be HOST:PORT; start the command on a machine of the cluster, or by ray job submit"
        raise InputError("RAY_ADDRESS", address, rule)
    elif _answers(address):
        return address
    raise InputError("RAY_ADDRESS", address, "no Ray cluster answers there; ray start --head starts one")


def _answers(address: str) -> bool:
    """Return whether a server of Ray's protocol, gRPC, answers; with TLS, whether any server does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True
            connection.sendall(_HELLO)
            return connection.recv(len(_SETTINGS))[3:4] == _SETTINGS[3:4]
    except (OSError, OverflowError, ValueError):
        return False
