"""What an ablation came to: every variant beside the base, seed by seed, from the records of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from budgetnet.ablation.study import AblationStudy
from budgetnet.ablation.variants import Variant
from budgetnet.records import RunRecord
from budgetnet.significance import Difference, holm, paired_difference

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["t", "bootstrap"]

LEVEL = 0.05
"""A corrected p-value below it calls a difference significant."""


class Cell(NamedTuple):
    """One run of a variant."""

    seed: int
    run: str
    """Name of its folder."""
    accuracy: float | None
    """Of what the study judges on, as a share; None where the run came to no result."""


class Row(NamedTuple):
    """One variant; accuracies are shares of the images that the study judges on."""

    variant: Variant
    cells: tuple[Cell, ...]
    """Its runs, in the order of the seeds; none where it was not trained."""
    mean: float | None
    standard_deviation: float | None
    """Over the seeds, with n - 1 in the denominator; None below two."""
    difference: Difference | None
    """To the base, over the seeds that both came to a result with; None for the base itself."""
    p_value: float | None
    """Of the difference, corrected for the number of variants (Holm)."""
    remark: str
    """Why there are fewer numbers than asked for; empty where there are not."""

    @property
    def n(self) -> int:
        """Runs with a result."""
        return sum(cell.accuracy is not None for cell in self.cells)

    @property
    def significant(self) -> bool | None:
        """Whether the difference is more than noise, all variants together; None where that cannot be said."""
        return None if self.p_value is None else self.p_value < LEVEL

    def to_mapping(self) -> dict[str, Any]:
        """The row as plain data."""
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
    """Every variant of a study, the base first."""

    study: AblationStudy
    rows: tuple[Row, ...]

    def to_mapping(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "ablation": self.study.name,
            "digest": self.study.digest,
            "design": self.study.design,
            "judged_on": self.study.judged_on,
            "seeds": list(self.study.seeds),
            "rows": [row.to_mapping() for row in self.rows],
        }

    def frame(self) -> pd.DataFrame:
        """One row for each variant: what `to_mapping` says of it, its runs in a column for each seed."""
        import pandas as pd

        return pd.DataFrame(self._flat())

    def _repr_html_(self) -> str:
        from budgetnet.display import ablation_html

        return ablation_html(self)

    def to_csv(self) -> str:
        """The table as comma-separated values, one row for each variant, accuracies and differences as shares."""
        return str(self.frame().to_csv(index=False, lineterminator="\n"))

    def _flat(self) -> list[dict[str, Any]]:
        left_out = {"also", "settings", "interval", "runs"}
        rows = []
        for row in self.rows:
            mapping = row.to_mapping()
            flat = {key: value for key, value in mapping.items() if key not in left_out}
            flat["low"], flat["high"] = mapping["interval"] or (None, None)
            accuracies = {cell.seed: cell.accuracy for cell in row.cells}
            flat |= {f"seed {seed}": accuracies.get(seed) for seed in self.study.seeds}
            rows.append(flat)
        return rows


def ablation_result(
    study: AblationStudy,
    variants: Sequence[Variant],
    records: Mapping[tuple[str, str], Sequence[RunRecord]],
    *,
    method: Method = "t",
) -> AblationResult:
    """What the runs of a study say.

    Args:
        study: the study.
        variants: what it comes to, the base first.
        records: of each variant that was trained, by its key, a run for each seed, in their order.
        method: how intervals are made, see `budgetnet.significance.paired_difference`.

    Raises:
        InputError: an unknown method.
    """
    cells = {
        variant.key: tuple(_cell(record, study) for record in records.get(variant.key, ())) for variant in variants
    }
    base = cells[variants[0].key]
    differences = [None if variant.is_base else _difference(cells[variant.key], base, method) for variant in variants]
    corrected = holm([difference.p_value if difference else None for difference in differences])
    rows = []
    for variant, difference, p_value in zip(variants, differences, corrected, strict=True):
        own = cells[variant.key]
        values = [cell.accuracy for cell in own if cell.accuracy is not None]
        mean = fmean(values) if values else None
        deviation = stdev(values) if len(values) > 1 else None
        rows.append(Row(variant, own, mean, deviation, difference, p_value, _remark(variant, own, values)))
    return AblationResult(study, tuple(rows))


def _cell(record: RunRecord, study: AblationStudy) -> Cell:
    if study.judged_on == "test":
        accuracy = record.test.accuracy if record.test else None
    else:
        accuracy = record.result.validation_accuracy if record.result.status == "complete" else None
    return Cell(record.identity.seed, record.folder.name, accuracy)


def _difference(own: Sequence[Cell], base: Sequence[Cell], method: Method) -> Difference | None:
    pairs = [
        (cell.accuracy, other.accuracy)
        for cell, other in zip(own, base, strict=False)
        if cell.accuracy is not None and other.accuracy is not None
    ]
    if not pairs:
        return None
    return paired_difference([one for one, _ in pairs], [other for _, other in pairs], method=method)


def _remark(variant: Variant, own: Sequence[Cell], values: Sequence[float]) -> str:
    if not variant.fits:
        over = next(limit for limit in variant.verdict.limits if limit.headroom < 0)
        return f"over budget, not trained: {over.used:,} of {over.allowed:,} {over.limit}"
    missing = len(own) - len(values)
    return f"{missing} of {len(own)} runs came to no result" if missing else ""
