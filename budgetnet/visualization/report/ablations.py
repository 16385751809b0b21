"""Ablations of a report, read from the study's file and its run folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.config import command
from budgetnet.common.errors import RecordError
from budgetnet.experiments.ablation.config import STUDY_FILE, AblationConfig
from budgetnet.experiments.ablation.results import ablation_result
from budgetnet.experiments.ablation.stored import StoredAblation, stored_ablations
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant
from budgetnet.runs.records import DataRecord, RunRecord
from budgetnet.visualization.report.content import Ablation
from budgetnet.visualization.report.formatting import data_text
from budgetnet.visualization.report.run_reader import Reader

Records = dict[tuple[str, str], dict[int, RunRecord]]
"""Runs by the digests of their network and recipe, and by their seeds."""


def read_ablations(folder: Path, reader: Reader) -> list[Ablation]:
    """Return the results of the ablations in a folder from their records.

    The runs may have been trained with overrides of the base, such as a smaller network or fewer epochs. They are taken
    from the config that `budgetnet ablate` stores with the runs; without one the study is used as in its file.

    Args:
        folder: folder with run folders in ``runs`` or in itself. With a ``study.yaml`` it has this one study, without
            one all whose configs are stored with the runs.
        reader: reader of run folders.

    Raises:
        InputError: the study's file is invalid.
        RecordError: there is no study, no run of it, or none of its base.
    """
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    stored = stored_ablations(runs)
    if (folder / STUDY_FILE).exists():
        study = AblationStudy.load(folder / STUDY_FILE)
        own = [each for each in stored if each.file_digest == study.digest]
        return [ablation_of(folder, study, own, reader.read_all(runs))]
    studies: dict[str, list[StoredAblation]] = {}
    for each in reversed(stored):
        studies.setdefault(each.file_digest, []).append(each)
    if not studies:
        rule = f"must have a {STUDY_FILE}, or runs of an ablation: `budgetnet ablate` leaves them in its --out"
        raise RecordError("ablation", str(folder), rule)
    everything = reader.read_all(runs)
    return [ablation_of(folder, group[0].study, group, everything) for group in studies.values()]


def ablation_of(
    folder: Path,
    study: AblationStudy,
    stored: Sequence[StoredAblation],
    everything: Sequence[RunRecord],
    *,
    beside_others: bool = False,
) -> Ablation:
    """Return the result of an ablation from records of runs.

    Args:
        folder: folder of the runs, for the page and for errors.
        study: the study as in its file.
        stored: ablations of that study, whose runs were trained with changes; may be empty.
        everything: records, also of other runs.
        beside_others: whether other runs are expected, and not worth a remark.

    Raises:
        RecordError: there is no run of the study, or none of its base.
    """
    if not everything:
        raise RecordError("ablation", str(folder), "has no readable finished run")
    found = [_as_trained(study, stored, records) for records in _kinds(everything, study)]
    study, config, variants, by_key = max(found, key=lambda each: each.trained)
    trained = [variant for variant in variants if variant.key in by_key]
    started = {variant.network for variant in trained}
    if any(variant.is_base and variant.network in started and variant not in trained for variant in variants):
        raise RecordError("ablation", str(folder), "has no run of the study's base, which variants are compared with")
    if not trained:
        raise RecordError("ablation", str(folder), f"has no run of the study {study.name}".rstrip())
    seeds = sorted(set.intersection(*(set(by_key[variant.key]) for variant in trained)))
    if not seeds:
        raise RecordError("ablation", str(folder), "has no seed that all of its variants were trained with")
    study = study.from_mapping({**study.to_mapping(), "seeds": seeds})
    chosen = {variant.key: [by_key[variant.key][seed] for seed in seeds] for variant in trained}
    records = [record for of_seed in by_key.values() for record in of_seed.values()]
    unused, others = len(records) - len(chosen) * len(seeds), len(everything) - len(records)
    if beside_others:
        unused = others = 0
    return Ablation(
        folder=str(folder),
        result=ablation_result(study, variants, chosen, method="t" if config is None else config.interval),
        override=() if config is None else tuple(config.changes),
        command=None if config is None else command(config),
        data=data_text(records[0].identity.data),
        remarks=tuple(_remarks(variants, trained, others=others, unused=unused)),
    )


def _remarks(variants: Sequence[Variant], trained: Sequence[Variant], *, others: int, unused: int) -> Iterator[str]:
    for variant in variants:
        if variant.fits and variant not in trained:
            yield f"{variant.title} has no run here"
    if others:
        yield f"{others} runs on other data, another kind of device or in another precision are omitted"
    if unused:
        yield f"{unused} runs are omitted: other networks or recipes, or seeds that not all variants have"


def _kinds(records: Sequence[RunRecord], study: AblationStudy) -> list[list[RunRecord]]:
    """Return groups of comparable records, the largest first."""
    groups = _grouped(records, lambda data: data.key)
    if study.judged_on == "test":
        # Recipes may then differ in their splits, but each is trained on as many images in all runs.
        alike = _grouped(records, lambda data: [data.fingerprint, data.mean, data.std])
        if all(_has_one_size_by_recipe(group) for group in alike):
            groups = alike
    return sorted(groups, key=len, reverse=True)


def _grouped(records: Sequence[RunRecord], of_data: Callable[[DataRecord], list[Any]]) -> list[list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        identity = record.identity
        kind = repr((of_data(identity.data), identity.device, identity.precision, identity.trainer))
        groups.setdefault(kind, []).append(record)
    return list(groups.values())


def _has_one_size_by_recipe(records: Sequence[RunRecord]) -> bool:
    identities = [record.identity for record in records]
    sizes = {(each.recipe.digest, each.data.train_images, each.data.validation_images) for each in identities}
    return len(sizes) == len({recipe for recipe, *_ in sizes})


def _by_key(records: Sequence[RunRecord]) -> Records:
    found: Records = {}
    for record in records:
        identity = record.identity
        found.setdefault((identity.spec.digest, identity.recipe.digest), {})[identity.seed] = record
    return found


class _Trained(NamedTuple):
    """A study, the config that its runs were trained with, its variants and comparable runs."""

    study: AblationStudy
    config: AblationConfig | None
    variants: list[Variant]
    runs: Records

    @property
    def trained(self) -> int:
        """Number of variants with a run."""
        return sum(variant.key in self.runs for variant in self.variants)


def _as_trained(study: AblationStudy, stored: Sequence[StoredAblation], records: Sequence[RunRecord]) -> _Trained:
    """Return the study as its runs were trained: the stored ablation with the most variants among them.

    Args:
        study: the study as in its file.
        stored: ablations of that file; may be empty.
        records: comparable runs.
    """
    by_key, spec = _by_key(records), records[0].identity.spec
    image: dict[str, Any] = {"input_shape": spec.input_shape, "num_classes": spec.num_classes}
    candidates: list[tuple[AblationStudy, AblationConfig | None]] = [(each.study, each.config) for each in stored]
    found = [_Trained(each, config, each.variants(**image), by_key) for each, config in candidates or [(study, None)]]
    return max(found, key=lambda each: each.trained)
