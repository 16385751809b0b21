"""Limits of a budget: what each is on, what a network needs of it, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.latencies import short_latency
from budgetnet.model.deployed.latency import Predicted
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.model.spec import ModelSpec

if TYPE_CHECKING:
    from budgetnet.model.budget import Budget

LIMITS = ("params", "macs", "activations")
"""Costs that can be limited: the fields of `Cost`."""


UNKNOWN_MS = 1e9
"""What a network needs in milliseconds if its device's file lacks one of its operations: more than any limit."""


def _latency_ms(spec: ModelSpec, budget: Budget) -> float:
    latency = budget.device.latency
    seconds = latency.seconds(spec)
    return UNKNOWN_MS if seconds is None else 1e3 * Predicted(seconds, latency.error).at_most


class Deployed(NamedTuple):
    """A limit of the deployed network, which is computed from the whole spec and not from its `Cost`."""

    need: Callable[[ModelSpec, Budget], float]
    """Returns what a network needs."""
    words: str
    """What is limited, for people."""
    text: Callable[[float], str]
    """Formats a number of it."""
    unit: str
    """Unit of columns of numbers, which can be sorted."""
    scale: float
    """Size of the unit."""


DEPLOYED: dict[str, Deployed] = {
    "weights": Deployed(
        lambda spec, budget: weight_bytes(spec, budget.weight_precision), "weights", short_bytes, "KiB", 2**10
    ),
    "peak_memory": Deployed(lambda spec, _: peak_memory(spec), "peak memory", short_bytes, "KiB", 2**10),
    "latency_ms": Deployed(_latency_ms, "latency", short_latency, "ms", 1),
}
"""Limits of the deployed network, by the name of the budget's field without ``max_``."""


DEPLOYED_FIELDS = tuple((f"max_{name}", name) for name in DEPLOYED)
"""Fields of a budget with these limits, and their names."""
FIELDS_OF = {"weights": "weight_precision", "latency_ms": "device_file"}
"""Field of a budget that belongs to a limit."""


def limit_words(limit: str) -> str:
    """Return what a limit is on, for people: ``peak memory``."""
    return DEPLOYED[limit].words if limit in DEPLOYED else limit


def limit_text(limit: str, number: float) -> str:
    """Format a number of what a limit is on: ``4,662,346``, ``536.0 KiB``."""
    return DEPLOYED[limit].text(number) if limit in DEPLOYED else f"{number:,}"


class LimitVerdict(NamedTuple):
    """A network's cost compared with one limit."""

    limit: str
    """One of `LIMITS` or of `DEPLOYED`."""
    used: float
    allowed: float

    @property
    def words(self) -> str:
        """What is limited, for people."""
        return limit_words(self.limit)

    def text(self, number: float) -> str:
        """Format a number of what is limited."""
        return limit_text(self.limit, number)

    @property
    def headroom(self) -> float:
        """Allowed minus used; negative if the limit is exceeded."""
        return self.allowed - self.used

    @property
    def violation(self) -> float:
        """Constraint value: used / allowed - 1, at most 0 if the limit holds."""
        return self.used / self.allowed - 1
