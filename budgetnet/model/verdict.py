"""The verdict of a budget on a network, and the smallest edits that make the network fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from budgetnet.common.errors import OverBudgetError
from budgetnet.model.cost import Cost
from budgetnet.model.deployed.latency import Predicted
from budgetnet.model.deployed.limits import UNKNOWN_MS, limit_text, limit_words
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.deployed.weights import Precision, weight_bytes
from budgetnet.model.edits import Edit, smallest_edits
from budgetnet.model.spec import ModelSpec

if TYPE_CHECKING:
    from budgetnet.model.budget import Budget

NO_NEEDS: Mapping[str, float] = MappingProxyType({})


class LimitVerdict(NamedTuple):
    """A network's cost compared with one limit."""

    limit: str
    """A field of `Cost`, or one of `DEPLOYED`."""
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
    def is_unknown(self) -> bool:
        """Whether it is not known what is used: the device's file lacks an operation of the network."""
        return self.limit == "latency_ms" and self.used >= UNKNOWN_MS

    @property
    def headroom(self) -> float:
        """Allowed minus used; negative if the limit is exceeded."""
        return self.allowed - self.used

    @property
    def violation(self) -> float:
        """Constraint value: used / allowed - 1, at most 0 if the limit holds."""
        return self.used / self.allowed - 1


class Verdict:
    """A network's cost compared with every limit of a budget."""

    frozen_params: int = 0
    """Parameters that are not trained, and count."""

    def __init__(self, budget: Budget, cost: Cost, *, name: str, needs: Mapping[str, float] = NO_NEEDS) -> None:
        self.budget = budget
        self.cost = cost
        self.needs = needs
        self.name = name
        self.limits = budget.limits(cost, needs)

    @property
    def fits(self) -> bool:
        """Whether every limit holds."""
        return all(limit.headroom >= 0 for limit in self.limits)

    @property
    def word(self) -> str:
        """``fits``, ``over budget`` or ``no limit given``."""
        return ("fits" if self.fits else "over budget") if self.limits else "no limit given"

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The smallest edits that make the network fit; none are known of a network without a spec."""
        return ()

    @property
    def deployed(self) -> dict[str, int]:
        """Bytes of the deployed network by what they are of; nothing is known without a spec."""
        return {}

    def __repr__(self) -> str:
        limits = (f"{limit.text(limit.used)} of {limit.text(limit.allowed)} {limit.words}" for limit in self.limits)
        return f"Verdict({', '.join([f'{self.name}: {self.word}', *limits])}{f', {self.note}' if self.note else ''})"

    @property
    def note(self) -> str:
        """A remark on the counts; empty if there is none."""
        frozen = f"{self.frozen_params:,} of {self.cost.params:,} counted params are frozen"
        return "; ".join(([frozen] if self.frozen_params else []) + ["counted by torch: a module, not a spec"])

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import verdict_html

        return verdict_html(self)

    def require(self) -> None:
        """Raise OverBudgetError unless the network fits.

        Raises:
            OverBudgetError: a limit is exceeded; the message names each one with used and allowed counts.
        """
        over = [limit for limit in self.limits if limit.headroom < 0]
        if over:
            parts = [
                f"{limit.text(limit.used)} {limit.words} exceed the {limit.text(limit.allowed)} allowed"
                for limit in over
            ]
            raise OverBudgetError(f"{self.name}: {'; '.join(parts)}")

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data; ``fits`` is None without a limit."""
        return {
            "name": self.name,
            "fits": self.fits if self.limits else None,
            **self.cost._asdict(),
            **self.needs,
            "frozen_params": self.frozen_params,
            "limits": [{**limit._asdict(), "headroom": limit.headroom} for limit in self.limits],
            "edits": [
                {"description": edit.description, **edit.cost._asdict(), **edit.needs, "spec": edit.spec.to_mapping()}
                for edit in self.edits
            ],
        }


class SpecVerdict(Verdict):
    """The cost of a spec's network compared with every limit of a budget."""

    def __init__(self, budget: Budget, spec: ModelSpec, cost: Cost) -> None:
        super().__init__(budget, cost, name=spec.label, needs=budget.needs(spec))
        self.spec = spec
        self.frozen_params = spec.frozen_params

    @cached_property
    def predicted(self) -> Predicted | None:
        """Predicted time, if there is a limit of the latency and the device's file has every operation."""
        unknown = self.needs.get("latency_ms", UNKNOWN_MS) >= UNKNOWN_MS
        return None if unknown else self.budget.predicted(self.spec)

    def require(self) -> None:
        """Raise an error unless the network fits.

        Raises:
            OverBudgetError: a limit is exceeded; the message names each one with used and allowed counts.
            InputError: the device's file lacks an operation of the network.
        """
        if any(limit.is_unknown for limit in self.limits):
            self.budget.predicted(self.spec)
        super().require()

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """The smallest edits that make the network fit, one of each kind, by decreasing used share of the budget.

        Widths become multiples of 8 where one fits. Each edit's cost is computed and fits; the next smaller edit of the
        same kind does not, unless peak memory is limited, which can jump up where a width shrinks: then one between may
        fit too. Empty if the network fits or no single edit is enough.
        """
        return () if self.fits else tuple(smallest_edits(self.spec, self.budget))

    @property
    def deployed(self) -> dict[str, int]:
        """Bytes of the deployed network by what they are of: weights at each precision, and maps at once."""
        weights = {f"{precision} weights": weight_bytes(self.spec, precision) for precision in get_args(Precision)}
        return {**weights, "peak memory": peak_memory(self.spec)}

    @property
    def note(self) -> str:
        """A remark on the counts; empty if there is none."""
        notes = []
        if self.frozen_params:
            notes.append(f"{self.frozen_params:,} of {self.cost.params:,} counted params are frozen whitening weights")
        if "weights" in self.needs:
            notes.append(f"weights in {self.budget.weight_precision}")
        if self.predicted is not None:
            device = self.budget.device
            notes.append(
                f"latency predicted as {self.predicted} on {device.hardware.cpu} with {device.runtime}; the limit is "
                "compared with the upper end"
            )
        return "; ".join(notes)

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data, with the image shape and number of classes that were counted."""
        image = {"input_shape": list(self.spec.input_shape), "num_classes": self.spec.num_classes}
        times: dict[str, Any] = {}
        if self.predicted is not None:
            times = {"predicted_ms": 1e3 * self.predicted.seconds, "prediction_error": self.predicted.error}
        return {**super().to_mapping(), **times, **image}
