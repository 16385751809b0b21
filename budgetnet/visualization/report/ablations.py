"""An ablation from its folder alone: the study's file and the records of the runs beside it; nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from budgetnet.common.errors import InputError, RecordError
from budgetnet.experiments.ablation.results import ablation_result
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant
from budgetnet.runs.records import RunRecord
from budgetnet.visualization.report.content import Ablation
from budgetnet.visualization.report.formatting import data_words
from budgetnet.visualization.report.run_reader import Reader

STUDY_FILE = "study.yaml"
"""The file that a study's folder holds beside its runs."""

Changes = dict[str, Any]
Records = dict[tuple[str, str], dict[int, RunRecord]]
"""Runs by the digests of their network and recipe, and by their seeds."""


def read_ablation(folder: Path, reader: Reader) -> Ablation:
    """What the records of an ablation say.

    A study may have been trained with values laid over its base on the command line, such as a smaller network or
    fewer epochs. Those are found again: of the networks and lengths that the records have, those are laid over the base
    with which most variants were trained.

    Args:
        folder: holds ``study.yaml``, and run folders in ``runs`` or beside it.
        reader: reads the run folders.

    Raises:
        InputError: the study's file is missing or breaks a rule.
        RecordError: no run there belongs to the study, or none to its base.
    """
    study = AblationStudy.load(folder / STUDY_FILE)
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    everything = reader.read_all(runs)
    records, others = _of_one_kind(everything)
    if not records:
        raise RecordError("ablation", str(folder), "holds no finished run that can be read")
    by_key = _by_key(records)
    study, changes, variants = _as_trained(study, records, by_key)
    trained = [variant for variant in variants if variant.key in by_key]
    begun = {variant.network for variant in trained}
    if any(variant.is_base and variant.network in begun and variant not in trained for variant in variants):
        raise RecordError("ablation", str(folder), "has no run of the study's base, which variants are compared with")
    seeds = sorted(set.intersection(*(set(by_key[variant.key]) for variant in trained)))
    if not seeds:
        raise RecordError("ablation", str(folder), "has no seed with which all of its variants were trained")
    study = study.from_mapping({**study.to_mapping(), "seeds": seeds})
    chosen = {variant.key: [by_key[variant.key][seed] for seed in seeds] for variant in trained}
    used = len(chosen) * len(seeds)
    return Ablation(
        folder=str(folder),
        result=ablation_result(study, variants, chosen),
        laid_over=tuple(f"{path}={_level_words(level)}" for path, level in changes.items()),
        data=data_words(records[0].identity.data),
        remarks=tuple(_remarks(variants, trained, others=others, unused=len(records) - used)),
    )


def _remarks(variants: Sequence[Variant], trained: Sequence[Variant], *, others: int, unused: int) -> Iterator[str]:
    for variant in variants:
        if variant.fits and variant not in trained:
            yield f"{variant.title} has no run here"
    if others:
        yield f"{others} runs on other data, another kind of device or in another precision are left out"
    if unused:
        yield f"{unused} runs are left out: of other networks or recipes, or of seeds that not all variants have"


def _of_one_kind(records: Sequence[RunRecord]) -> tuple[list[RunRecord], int]:
    """Those of the records that can be compared, where there are several kinds the most, and how many others."""

    def kind(record: RunRecord) -> str:
        identity = record.identity
        return repr((identity.data.key, identity.device, identity.precision, identity.trainer))

    kinds = Counter(map(kind, records))
    most = max(kinds, key=lambda each: kinds[each], default="")
    found = [record for record in records if kind(record) == most]
    return found, len(records) - len(found)


def _by_key(records: Sequence[RunRecord]) -> Records:
    found: Records = {}
    for record in records:
        identity = record.identity
        found.setdefault((identity.spec.digest, identity.recipe.digest), {})[identity.seed] = record
    return found


def _as_trained(
    study: AblationStudy, records: Sequence[RunRecord], by_key: Records
) -> tuple[AblationStudy, Changes, list[Variant]]:
    """The study with what was laid over its base, as far as records can tell; as it stands, where that does as well."""
    first = records[0].identity.spec
    image: dict[str, Any] = {"input_shape": first.input_shape, "num_classes": first.num_classes}
    best: tuple[int, AblationStudy, Changes, list[Variant]] | None = None
    for changed, changes in _possible_studies(study, records):
        try:
            laid = changed()
            variants = laid.variants(**image)
        except InputError:  # Such a base could not have been trained.
            continue
        trained = sum(variant.key in by_key for variant in variants)
        if best is None or trained > best[0]:
            best = trained, laid, changes, variants
    if best is None or best[0] == 0:
        raise RecordError("ablation", str(records[0].folder.parent), "holds no run of the study")
    return best[1:]


def _possible_studies(
    study: AblationStudy, records: Sequence[RunRecord]
) -> Iterator[tuple[Callable[[], AblationStudy], Changes]]:
    """The study as it stands, for each length that was trained, then with each network, alone and with each length."""
    specs = {record.identity.spec.digest: record.identity.spec for record in records}
    lengths: list[int | None] = [None, *sorted({record.identity.recipe.epochs for record in records})]
    networks: list[Changes] = [{}]
    if not study.networks:
        networks += [{"spec": spec.to_mapping()} for spec in specs.values()]
    for network in networks:
        for epochs in lengths:
            changes = dict(network)
            if epochs is not None:
                how = study.base_recipe.for_epochs(epochs)
                changes |= {"recipe.epochs": how.epochs, "recipe.schedule.first_cycle": how.schedule.first_cycle}
            yield partial(_changed, study, network, epochs), changes


def _changed(study: AblationStudy, network: Changes, epochs: int | None) -> AblationStudy:
    """The study with another network, of another length.

    Raises:
        InputError: they do not go together.
    """
    if network:
        study = study.from_mapping({**study.to_mapping(), "changes": {**study.changes, **network}})
    return study if epochs is None else study.for_epochs(epochs)


def _level_words(level: Any) -> str:
    """A level in a few words: a whole network by its name."""
    if not isinstance(level, dict):
        return str(level)
    from budgetnet.model.spec import ModelSpec

    return ModelSpec.from_mapping(level).label
