"""What each change of a study is worth on each network: alone, and when it is omitted from all options together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from budgetnet.ablation.results import Row

Effect = Literal["pays", "costs", "mixed", "not settled"]
"""What the comparisons of one change on one network say."""

_SAID: tuple[Effect, ...] = ("pays", "costs", "mixed")
"""The effects that a verdict names, in its order."""

EFFECT_RULE = (
    "A change pays on a network if it gains accuracy alone, or all options lose accuracy without it, with a corrected "
    "p below 0.05; it costs with the signs the other way round. It is mixed where one comparison says the one and one "
    "the other, and not settled where neither is below 0.05."
)
"""How `Effect` is found, in words: for every place that shows it."""


class Change(NamedTuple):
    """An option, a level or a combination of them, on every network of a study."""

    name: str
    alone: dict[str, Row]
    """The variant with this change beside the one without it, by the network's name."""
    omitted: dict[str, Row]
    """The variant with all options but this beside all options, by the network's name."""
    networks: tuple[str, ...]
    """All networks of the study, by their names."""

    @property
    def comparisons(self) -> list[tuple[str, dict[str, Row]]]:
        """Those of `alone` and `omitted` that there are, with their names."""
        return [(name, rows) for name, rows in (("alone", self.alone), ("omitted", self.omitted)) if rows]

    def effect(self, network: str) -> Effect:
        """What the comparisons on one network say, by `EFFECT_RULE`."""
        gains = [
            sign * row.difference.mean > 0
            for row, sign in ((self.alone.get(network), 1), (self.omitted.get(network), -1))
            if row is not None and row.difference is not None and row.significant
        ]
        if not gains:
            return "not settled"
        return "mixed" if len(set(gains)) > 1 else "pays" if gains[0] else "costs"

    @property
    def verdict(self) -> str:
        """The effects on all networks in words: ``pays on basic, preact only``, ``not settled``."""
        found: dict[Effect, list[str]] = {}
        for network in self.networks:
            found.setdefault(self.effect(network), []).append(network)
        said: list[str] = []
        for effect in _SAID:
            where = found.get(effect, [])
            if where and len(self.networks) == 1:
                said.append(effect)
            elif where:
                names = "all" if len(where) == len(self.networks) else ", ".join(where)
                said.append(f"{effect} on {names}{' only' if effect == 'pays' and names != 'all' else ''}")
        return "; ".join(said) or "not settled"

    def to_mapping(self) -> dict[str, Any]:
        """The change as plain data."""

        def numbers(row: Row | None) -> dict[str, Any] | None:
            if row is None or row.difference is None:
                return None
            interval = list(row.difference.interval) if row.difference.interval else None
            return {"difference": row.difference.mean, "interval": interval, "holm_p_value": row.p_value}

        networks = {
            network: {
                "alone": numbers(self.alone.get(network)),
                "omitted": numbers(self.omitted.get(network)),
                "effect": self.effect(network),
            }
            for network in self.networks
        }
        return {"change": self.name, "networks": networks, "verdict": self.verdict}


def changes_of(rows: Sequence[Row], networks: Sequence[str]) -> tuple[Change, ...]:
    """The changes of a study, in the order of its variants; all options together stand last.

    Args:
        rows: the variants of all networks.
        networks: the networks' names.
    """
    found: dict[str, Change] = {}
    compared = [row for row in rows if not row.variant.is_base]
    together = {row.variant.compared_with for row in compared if row.variant.is_omission}
    for row in sorted(compared, key=lambda row: row.variant.change in together):
        name = row.variant.change
        change = found.setdefault(name, Change(name, {}, {}, tuple(networks)))
        (change.omitted if row.variant.is_omission else change.alone)[row.variant.network] = row
    return tuple(found.values())
