"""Effects of the changes of a study: each alone, and omitted from all options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from budgetnet.statistics import PooledDifference, holm, pooled_difference

if TYPE_CHECKING:
    from budgetnet.experiments.ablation.results import Row

LEVEL = 0.05
"""A corrected p-value below it calls a difference significant."""

Effect = Literal["pays", "costs", "mixed", "not settled"]
"""Effect of a change over all its comparisons."""

EFFECT_RULE = (
    "A change pays if over all networks together it gains accuracy alone, or all options lose accuracy without it, "
    "with a corrected p below 0.05, and costs with the signs the other way round; it is mixed where its two "
    "comparisons say both, and not settled where neither is below 0.05. 'But not on' names networks whose own mean "
    "difference has the other sign."
)
"""Explanation of `Effect` and `Change.verdict`, shown with the results."""

POOLED_RULE = (
    "All networks together: the mean of the networks' mean differences, with Student's interval from the spread within "
    "networks; p corrected for all comparisons over all networks (Holm), apart from those on single networks."
)
"""Explanation of `Pooled`, shown with the results."""


class Pooled(NamedTuple):
    """A comparison pooled over networks."""

    difference: PooledDifference
    """Mean of the networks' mean differences."""
    p_value: float | None
    """P-value of the difference, corrected for all pooled comparisons (Holm)."""
    networks: tuple[str, ...]
    """Networks with pairs, which are pooled."""

    @property
    def significant(self) -> bool | None:
        """Whether the difference is significant; None without a p-value."""
        return None if self.p_value is None else self.p_value < LEVEL

    def to_mapping(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        difference = self.difference
        return {
            "difference": difference.mean,
            "interval": list(difference.interval) if difference.interval else None,
            "p_value": difference.p_value,
            "holm_p_value": self.p_value,
            "significant": self.significant,
            "pairs": dict(zip(self.networks, difference.pairs, strict=True)),
            "degrees_of_freedom": difference.degrees_of_freedom,
        }


class Comparison(NamedTuple):
    """A comparison of a change, on every network and pooled."""

    kind: Literal["alone", "omitted"]
    """``alone``: the change against the base. ``omitted``: all options but this against all options."""
    rows: dict[str, Row]
    """The compared variants, by the network's name."""
    pooled: Pooled | None
    """Comparison over all networks; None in a study of one network and without pairs."""

    @property
    def label(self) -> str:
        """Label in tables."""
        return "alone" if self.kind == "alone" else "without it"

    @property
    def gain(self) -> float | None:
        """Significant gain of the change in accuracy, as a share; negative for a loss, None if not significant."""
        found: Pooled | Row | None = self.pooled
        if found is None and len(self.rows) == 1:
            found = next(iter(self.rows.values()))
        if found is None or found.difference is None or not found.significant:
            return None
        return self._sign * found.difference.mean

    @property
    def opposed(self) -> list[str]:
        """Networks whose own mean difference has the opposite sign of `gain`."""
        gain = self.gain
        if gain is None:
            return []
        means = {name: row.difference.mean for name, row in self.rows.items() if row.difference}
        return [name for name, mean in means.items() if gain * self._sign * mean < 0]

    @property
    def _sign(self) -> int:
        return 1 if self.kind == "alone" else -1


class Change(NamedTuple):
    """An option, a level or a combination of them, with its comparisons."""

    name: str
    comparisons: tuple[Comparison, ...]
    """Comparisons: alone, omitted, or both in this order."""
    networks: tuple[str, ...]
    """All networks of the study, by their names."""

    @property
    def effect(self) -> Effect:
        """Effect by `EFFECT_RULE`."""
        gains = {comparison.gain > 0 for comparison in self.comparisons if comparison.gain is not None}
        if not gains:
            return "not settled"
        return "mixed" if len(gains) > 1 else "pays" if True in gains else "costs"

    @property
    def verdict(self) -> str:
        """Effect with the networks that do not agree or have no pairs: ``pays, but not on preact``."""
        text: str = self.effect
        opposed = {name for comparison in self.comparisons for name in comparison.opposed}
        if opposed and self.effect in ("pays", "costs"):
            text += f", but not on {self._listed(opposed)}"
        compared = {name for each in self.comparisons if each.pooled for name in each.pooled.networks}
        if compared and len(compared) < len(self.networks):
            text += f"; not compared on {self._listed(set(self.networks) - compared)}"
        return text

    def _listed(self, names: set[str]) -> str:
        return ", ".join(name for name in self.networks if name in names)

    def to_mapping(self) -> dict[str, Any]:
        """Return the change as plain data."""
        rows = {each.kind: each.rows for each in self.comparisons}
        pooled = {each.kind: each.pooled.to_mapping() if each.pooled else None for each in self.comparisons}
        networks = {
            network: {kind: _numbers(rows.get(kind, {}).get(network)) for kind in ("alone", "omitted")}
            for network in self.networks
        }
        over_all = {"pooled": {kind: pooled.get(kind) for kind in ("alone", "omitted")}}
        return {
            "change": self.name,
            "networks": networks,
            **(over_all if len(self.networks) > 1 else {}),
            "effect": self.effect,
            "verdict": self.verdict,
        }


def _numbers(row: Row | None) -> dict[str, Any] | None:
    if row is None or row.difference is None:
        return None
    interval = list(row.difference.interval) if row.difference.interval else None
    return {"difference": row.difference.mean, "interval": interval, "holm_p_value": row.p_value}


def changes_of(rows: Sequence[Row], networks: Sequence[str]) -> tuple[Change, ...]:
    """Return the changes of a study in the order of its variants, all options together last.

    Args:
        rows: variants of all networks.
        networks: names of the networks.
    """
    found: dict[str, dict[Literal["alone", "omitted"], dict[str, Row]]] = {}
    compared = [row for row in rows if not row.variant.is_base]
    together = {row.variant.compared_with for row in compared if row.variant.is_omission}
    for row in sorted(compared, key=lambda row: row.variant.change in together):
        kinds = found.setdefault(row.variant.change, {"alone": {}, "omitted": {}})
        kinds["omitted" if row.variant.is_omission else "alone"][row.variant.network] = row
    chosen = [(name, kind, its) for name, kinds in found.items() for kind, its in kinds.items() if its]
    pooled = _pooled([its.values() for _, _, its in chosen]) if len(networks) > 1 else [None] * len(chosen)
    comparisons: dict[str, list[Comparison]] = {name: [] for name in found}
    for (name, kind, its), over_all in zip(chosen, pooled, strict=True):
        comparisons[name].append(Comparison(kind, its, over_all))
    return tuple(Change(name, tuple(its), tuple(networks)) for name, its in comparisons.items())


def _pooled(comparisons: Sequence[Iterable[Row]]) -> list[Pooled | None]:
    """Return each comparison pooled over its networks, with corrected p-values."""
    differences: list[tuple[PooledDifference, tuple[str, ...]] | None] = []
    for rows in comparisons:
        usable = [row for row in rows if row.pairs]
        groups = [([own for own, _ in row.pairs], [other for _, other in row.pairs]) for row in usable]
        names = tuple(row.variant.network for row in usable)
        differences.append((pooled_difference(groups), names) if groups else None)
    corrected = holm([each[0].p_value if each else None for each in differences], planned=len(differences))
    return [
        Pooled(each[0], p_value, each[1]) if each else None
        for each, p_value in zip(differences, corrected, strict=True)
    ]
