"""Times of the cells of a table, measured in rounds over all of them until they are known well enough."""

from __future__ import annotations

from collections.abc import Sequence

from budgetnet.devices.benches import Bench, covered
from budgetnet.devices.estimates import estimate
from budgetnet.devices.runtimes import Runtime
from budgetnet.model.deployed.calls import Call

_RUNS = 10
"""Executions of a graph in a round."""


class CellTimes:
    """Samples of every cell, and what is still to be measured."""

    def __init__(self, benches: Sequence[Bench], samples: dict[Call, list[float]]) -> None:
        """Begin, or go on.

        Args:
            benches: graphs with every cell.
            samples: seconds of each call that earlier measurements took; added to.
        """
        self._benches = list(benches)
        self.samples = samples

    def unmeasured(self) -> list[Bench]:
        """Return the graphs with cells that have no sample yet."""
        return [bench for bench in self._benches if any(call not in self.samples for call in bench.calls)]

    def due(self, *, least: int) -> list[Bench]:
        """Return the graphs with cells that have too few samples or are not precise, those that take least first.

        Args:
            least: fewest samples of a cell.
        """
        return [bench for bench in self._benches if any(self._is_due(call, least) for call in bench.calls)]

    def _is_due(self, call: Call, least: int) -> bool:
        times = self.samples.get(call, ())
        return len(times) < least or not estimate(times).precise

    def measure(self, bench: Bench, runtime: Runtime) -> None:
        """Measure a graph once more."""
        found = runtime.time_calls(bench.graph, bench.calls, runs=_RUNS)
        missing = [call for call in bench.calls if call not in found]
        if missing:
            raise LookupError(str(missing[0]))
        for call, times in found.items():
            self.samples.setdefault(call, []).extend(times)

    @property
    def precise_share(self) -> float:
        """Share of the cells whose time is known well enough."""
        calls = covered(self._benches)
        good = sum(call in self.samples and estimate(self.samples[call]).precise for call in calls)
        return good / max(1, len(calls))
