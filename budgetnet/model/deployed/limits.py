"""Limits of the deployed network, each computed from a whole specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.latencies import short_latency
from budgetnet.model.deployed.latency import Predicted
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.deployed.weights import weight_bytes

if TYPE_CHECKING:
    from budgetnet.model.budget import Budget
    from budgetnet.model.spec import ModelSpec


UNKNOWN_MS = 1e9
"""What a network needs in milliseconds if its device's file lacks one of its operations: more than any limit."""


def _latency_ms(spec: ModelSpec, budget: Budget) -> float:
    latency = budget.device.latency
    seconds = latency.seconds(spec)
    return UNKNOWN_MS if seconds is None else 1e3 * Predicted(seconds, latency.error).at_most


def _latency_text(milliseconds: float) -> str:
    # What is left of a limit, or missing, is as unknown as what is needed.
    return "unknown" if abs(milliseconds) > UNKNOWN_MS / 2 else short_latency(milliseconds)


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
    "latency_ms": Deployed(_latency_ms, "latency", _latency_text, "ms", 1),
}
"""Limits of the deployed network, by the name of the budget's field without ``max_``."""


FIELDS = tuple((f"max_{name}", name) for name in DEPLOYED)
FIELDS_OF = {"weights": "weight_precision", "latency_ms": "device_file"}
"""Field of a budget that belongs to a limit."""


def limit_words(limit: str) -> str:
    """Return what a limit is on, for people: ``peak memory``."""
    return DEPLOYED[limit].words if limit in DEPLOYED else limit


def limit_text(limit: str, number: float) -> str:
    """Format a number of what a limit is on: ``4,662,346``, ``536.0 KiB``."""
    return DEPLOYED[limit].text(number) if limit in DEPLOYED else f"{number:,}"
