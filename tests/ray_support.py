"""A Ray cluster of several nodes on this machine, each at a loopback address of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from support import until
from worker_support import command_line, descendants

RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "127.0.0.2"

# A node that hangs is given up after seconds rather than a minute.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "2",
}


def _start_time(pid: int) -> float:
    return Path(f"/proc/{pid}").stat().st_ctime


class Cluster:
    """Nodes with one CPU each; the first one, at `HEAD`, is the head."""

    def __init__(self) -> None:
        # The paths of Ray's sockets must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        with socket.create_server((HEAD, 0)) as probe:
            self.address = f"{HEAD}:{probe.getsockname()[1]}"
        root = Path(__file__).parents[1]
        self._environment = {
            **os.environ,
            **_HEALTH,
            "RAY_TMPDIR": str(self._folder),
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        }
        self._raylets: dict[str, int] = {}
        self._used = 2

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands that use the cluster."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(self._folder)}

    def start_head(self) -> None:
        self._start(HEAD, "--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false")

    def add_node(self) -> str:
        """Start a node at a new address, which no node before had, and return the address."""
        self._used += 1
        node = f"127.0.0.{self._used}"
        self._start(node, f"--address={self.address}")
        return node

    def _start(self, node: str, *options: str) -> None:
        command = [RAY, "start", *options, f"--node-ip-address={node}", "--num-cpus=1", "--disable-usage-stats"]
        command += ["--object-store-memory=100000000"]
        # A start takes Ray's constant limit of 30 seconds at most, which a busy machine may need more than once.
        for _ in range(2):
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
            found = [pid for pid in _raylets() if f"--node_ip_address={node} " in f"{command_line(pid)} "]
            if done.returncode == 0 and found:
                self._raylets[node] = found[0]
                return
        raise AssertionError(f"node {node} did not start: {done.stdout[-2000:]} {done.stderr[-2000:]}")

    @property
    def nodes(self) -> list[str]:
        """Addresses of the nodes besides the head."""
        return [node for node in self._raylets if node != HEAD]

    def training(self, node: str | None = None) -> list[int]:
        """Return the worker processes that are training, on a node or on all."""
        chosen = [self._raylets[node]] if node else list(self._raylets.values())
        below = [pid for raylet in chosen for pid in descendants(raylet)]
        return [pid for pid in below if command_line(pid).startswith("ray::Worker.train")]

    def busy_node(self) -> str | None:
        """Return a node besides the head that trains."""
        return next((node for node in self.nodes if self.training(node)), None)

    def send(self, node: str, number: signal.Signals) -> list[int]:
        """Send a signal to all processes of a node, and return them."""
        raylet = self._raylets[node]
        processes = [raylet, *descendants(raylet)]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return processes

    def kill(self, node: str) -> None:
        """End a node as a loss of power does."""
        self.send(node, signal.SIGKILL)
        del self._raylets[node]

    def forget(self, node: str) -> None:
        """Make sure that a node that ends by itself has ended."""
        processes = self.send(node, signal.SIGCONT)
        until(lambda: not any(command_line(pid) for pid in processes))
        del self._raylets[node]

    def remove(self) -> None:
        for node in list(self._raylets):
            self.kill(node)
        # What is no child of a raylet: the head's GCS and the agents of nodes.
        for path in Path("/proc").glob("[0-9]*"):
            if str(self._folder) in command_line(int(path.name)):
                with suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)


def _raylets() -> list[int]:
    found = [
        int(path.name) for path in Path("/proc").glob("[0-9]*") if "/raylet/raylet " in command_line(int(path.name))
    ]
    return sorted(found, key=_start_time, reverse=True)
