"""Results of an ablation: every variant compared seed by seed, from records of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.experiments.ablation.changes import EFFECT_RULE, LEVEL, POOLED_RULE, Change, changes_of
from budgetnet.experiments.ablation.config import Method
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import Difference, holm, paired_difference

if TYPE_CHECKING:
    import pandas as pd


class Cell(NamedTuple):
    """One run of a variant."""

    seed: int
    run: str
    """Name of its folder."""
    accuracy: float | None
    """Accuracy on the images that the study evaluates on, as a share; None without a result."""


class Row(NamedTuple):
    """A variant and its results; accuracies are shares of the images that the study evaluates on."""

    variant: Variant
    cells: tuple[Cell, ...]
    """Its runs in the order of the seeds; empty if it was not trained."""
    mean: float | None
    standard_deviation: float | None
    """Over the seeds, with n - 1 in the denominator; None below two."""
    difference: Difference | None
    """Difference to the variant that it is compared with, over the seeds with results of both; None for a base."""
    pairs: tuple[tuple[float, float], ...]
    """Accuracies of the variant and of the one that it is compared with, for each of these seeds."""
    p_value: float | None
    """P-value of the difference, corrected for all rows on all networks (Holm)."""
    remark: str
    """Reason for missing results; empty if there are none."""

    @property
    def n(self) -> int:
        """Runs with a result."""
        return sum(cell.accuracy is not None for cell in self.cells)

    @property
    def significant(self) -> bool | None:
        """Whether the difference is significant after correction; None without a p-value."""
        return None if self.p_value is None else self.p_value < LEVEL

    def to_mapping(self) -> dict[str, Any]:
        """Return the row as plain data."""
        variant, difference = self.variant, self.difference
        interval = difference.interval if difference else None
        return {
            "variant": variant.name,
            "also": list(variant.also),
            "is_base": variant.is_base,
            "refitted": variant.refitted,
            "settings": variant.settings,
            "architecture": variant.spec.label,
            "params": variant.spec.params,
            "macs": variant.spec.macs,
            "fits": variant.fits,
            "n": self.n,
            "mean": self.mean,
            "standard_deviation": self.standard_deviation,
            "difference": difference.mean if difference else None,
            "interval": list(interval) if interval else None,
            "pairs": difference.n if difference else 0,
            "method": difference.method if difference else None,
            "p_value": difference.p_value if difference else None,
            "holm_p_value": self.p_value,
            "significant": self.significant,
            "remark": self.remark,
            "runs": [cell._asdict() for cell in self.cells],
        }


class AblationResult(NamedTuple):
    """Results of a study, by network, the base of each first."""

    study: AblationStudy
    rows: tuple[Row, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        """Short names of the networks; one empty name in a study of one network."""
        return tuple(self.study.bases)

    def rows_of(self, network: str) -> list[Row]:
        """Return the variants of a network, its base first."""
        return [row for row in self.rows if row.variant.network == network]

    @property
    def changes(self) -> tuple[Change, ...]:
        """Effects of the changes; empty for one network with one base, where the rows are enough."""
        if not self.study.networks and self.study.design != "alone-and-leave-one-out":
            return ()
        return changes_of(self.rows, self.networks)

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data; fields of options and networks are omitted without these."""
        mapping = {
            "ablation": self.study.name,
            "digest": self.study.digest,
            "design": self.study.design,
            "judged_on": self.study.judged_on,
            "seeds": list(self.study.seeds),
            "rows": [self._mapping_of(row) for row in self.rows],
        }
        if self.study.remarks:
            mapping["remarks"] = list(self.study.remarks)
        if self.changes:
            mapping["changes"] = [change.to_mapping() for change in self.changes]
            mapping["rule"] = EFFECT_RULE
        if self.changes and len(self.networks) > 1:
            mapping["pooled_rule"] = POOLED_RULE
        return mapping

    def _mapping_of(self, row: Row) -> dict[str, Any]:
        network = {"network": row.variant.network} if self.study.networks else {}
        compared = {"compared_with": row.variant.compared_with or None} if self.study.has_options else {}
        return {**network, **row.to_mapping(), **compared}

    def frame(self) -> pd.DataFrame:
        """Return a data frame with one row per variant, the fields of `to_mapping`, and one column per seed.

        If there are `changes`, each row has its change and the verdict on it as well.
        """
        import pandas as pd

        return pd.DataFrame(self._flat())

    def __repr__(self) -> str:
        runs = sum(len(row.cells) for row in self.rows)
        beyond = sum(row.significant is True for row in self.rows)
        name = self.study.name or "ablation"
        return f"AblationResult({name}: {len(self.rows)} variants, {runs} runs, {beyond} beyond noise)"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import ablation_html

        return ablation_html(self)

    def to_csv(self) -> str:
        """Return `frame` as comma-separated values; accuracies and differences as shares."""
        return str(self.frame().to_csv(index=False, lineterminator="\n"))

    def _flat(self) -> list[dict[str, Any]]:
        not_flat = {"also", "settings", "interval", "runs"}
        changes = {change.name: change for change in self.changes}
        rows = []
        for row in self.rows:
            mapping = self._mapping_of(row)
            flat = {key: value for key, value in mapping.items() if key not in not_flat}
            flat["low"], flat["high"] = mapping["interval"] or (None, None)
            accuracies = {cell.seed: cell.accuracy for cell in row.cells}
            flat |= {f"seed {seed}": accuracies.get(seed) for seed in self.study.seeds}
            if changes:
                change = changes.get(row.variant.change)
                flat |= {"change": row.variant.change, "verdict": change.verdict if change else None}
                flat |= self._flat_pooled(row, change)
            rows.append(flat)
        return rows

    def _flat_pooled(self, row: Row, change: Change | None) -> dict[str, Any]:
        """Return the columns of the row's pooled comparison; empty in a study of one network."""
        if len(self.networks) < 2:
            return {}
        kind = "omitted" if row.variant.is_omission else "alone"
        pooled = next((each.pooled for each in change.comparisons if each.kind == kind), None) if change else None
        mapping = pooled.to_mapping() if pooled else {}
        low, high = mapping.get("interval") or (None, None)
        return {
            "pooled_difference": mapping.get("difference"),
            "pooled_low": low,
            "pooled_high": high,
            "pooled_pairs": sum(pooled.difference.pairs) if pooled else None,
            **{f"pooled_{key}": mapping.get(key) for key in ("degrees_of_freedom", "p_value", "holm_p_value")},
        }


def ablation_result(
    study: AblationStudy,
    variants: Sequence[Variant],
    records: Mapping[tuple[str, str], Sequence[RunRecord]],
    *,
    method: Method = "t",
) -> AblationResult:
    """Compute the results of a study from the records of its runs.

    Args:
        study: the study.
        variants: its variants, the base of each network first.
        records: runs of each trained variant in the order of the seeds, by the variant's key; a comparison uses the
            seeds that both of its variants have.
        method: method of intervals, see `budgetnet.statistics.paired_difference`.

    Raises:
        InputError: an unknown method.
    """
    cells = {
        variant.key: tuple(_cell(record, study) for record in records.get(variant.key, ())) for variant in variants
    }
    by_name = {(variant.network, name): variant for variant in variants for name in (variant.name, *variant.also)}
    others = [by_name.get((variant.network, variant.compared_with)) for variant in variants]
    pairs = [
        _pairs(cells[variant.key], cells[other.key]) if other else ()
        for variant, other in zip(variants, others, strict=True)
    ]
    differences = [
        paired_difference([own for own, _ in its], [base for _, base in its], method=method) if its else None
        for its in pairs
    ]
    planned = sum(
        other is not None and variant.fits and other.fits for variant, other in zip(variants, others, strict=True)
    )
    corrected = holm([difference.p_value if difference else None for difference in differences], planned=planned)
    rows = []
    for variant, other, its, difference, p_value in zip(variants, others, pairs, differences, corrected, strict=True):
        own = cells[variant.key]
        values = [cell.accuracy for cell in own if cell.accuracy is not None]
        mean = fmean(values) if values else None
        deviation = stdev(values) if len(values) > 1 else None
        remark = _remark(variant, other, own)
        rows.append(Row(variant, own, mean, deviation, difference, its, p_value, remark))
    return AblationResult(study, tuple(rows))


def _cell(record: RunRecord, study: AblationStudy) -> Cell:
    if study.judged_on == "test":
        accuracy = record.test.accuracy if record.test else None
    else:
        accuracy = record.result.validation_accuracy if record.result.status == "complete" else None
    return Cell(record.identity.seed, record.folder.name, accuracy)


def _pairs(own: Sequence[Cell], base: Sequence[Cell]) -> tuple[tuple[float, float], ...]:
    """Return the accuracies of two variants for each seed with results of both."""
    others = {cell.seed: cell.accuracy for cell in base}
    found = [(cell.accuracy, others.get(cell.seed)) for cell in own]
    return tuple((one, other) for one, other in found if one is not None and other is not None)


def _remark(variant: Variant, other: Variant | None, own: Sequence[Cell]) -> str:
    if not variant.fits:
        over = next(limit for limit in variant.verdict.limits if limit.headroom < 0)
        if over.is_unknown:
            return "not trained: the device's file lacks one of its operations, so its latency is unknown"
        return f"over budget, not trained: {over.text(over.used)} of {over.text(over.allowed)} {over.words}"
    if other is not None and not other.fits:
        return f"not compared: {other.name} is over budget"
    missing = sum(cell.accuracy is None for cell in own)
    return f"{missing} of {len(own)} runs have no result" if missing else ""
