"""Connection of this process to a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from budgetnet.common.errors import InputError
from budgetnet.engines.ray_address import find_cluster


def connect() -> bool:
    """Connect to the cluster of ``RAY_ADDRESS``, or to a new one on this machine; return False if it was connected.

    Raises:
        InputError: the cluster cannot be used.
    """
    import ray

    if ray.is_initialized():
        return False
    # Ray would collect statistics where nothing is set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    address = find_cluster()
    try:
        if address is None:
            with _loopback_only(), _own_handler():
                ray.init("local", include_dashboard=False, **options)
        else:
            with _own_handler():
                ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError("RAY_ADDRESS", address, f"cannot be used: {' '.join(str(error).split())}") from None
    # Lost nodes are not for the user, and Ray would print them to standard output, where results go.
    ray._private.worker._worker_logs_enabled = False
    return True


def disconnect() -> None:
    """Undo what `connect` did."""
    import ray

    ray.shutdown()
    ray._private.worker._worker_logs_enabled = True


def last_line(error: BaseException) -> str:
    """Return what an error of Ray says at last, after the traceback of another process."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make an instance that Ray starts on this machine out of reach of others."""
    from ray._private import ray_constants

    # Ray has an option for it, but replaces the loopback address in it by that of the network.
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep this program's handler of SIGTERM, which Ray replaces by one that exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)
