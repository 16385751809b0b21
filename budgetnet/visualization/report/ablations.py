"""Ablations of a report, read from the study's file and its run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.config import command
from budgetnet.common.errors import RecordError
from budgetnet.experiments.ablation.config import STUDY_FILE, AblationConfig
from budgetnet.experiments.ablation.results import ablation_result
from budgetnet.experiments.ablation.stored import stored_ablations
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.visualization.report.content import Ablation
from budgetnet.visualization.report.formatting import data_text
from budgetnet.visualization.report.run_reader import Reader

Records = dict[tuple[str, str], dict[int, RunRecord]]
"""Runs by the digests of their network and recipe, and by their seeds."""


def read_ablation(folder: Path, reader: Reader) -> Ablation:
    """Return the result of an ablation from its records.

    The runs may have been trained with overrides of the base, such as a smaller network or fewer epochs. They are taken
    from the config stored with the runs; without one the study is used as in its file.

    Args:
        folder: folder with ``study.yaml``, and run folders in ``runs`` or next to it.
        reader: reader of run folders.

    Raises:
        InputError: the study's file is missing or invalid.
        RecordError: no run belongs to the study, or none to its base.
    """
    study = AblationStudy.load(folder / STUDY_FILE)
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    everything = reader.read_all(runs)
    records, others = _of_one_kind(everything)
    if not records:
        raise RecordError("ablation", str(folder), "has no readable finished run")
    by_key = _by_key(records)
    study, config, variants = _as_trained(study, runs, by_key, records[0].identity.spec)
    trained = [variant for variant in variants if variant.key in by_key]
    started = {variant.network for variant in trained}
    if any(variant.is_base and variant.network in started and variant not in trained for variant in variants):
        raise RecordError("ablation", str(folder), "has no run of the study's base, which variants are compared with")
    seeds = sorted(set.intersection(*(set(by_key[variant.key]) for variant in trained)))
    if not seeds:
        raise RecordError("ablation", str(folder), "has no seed that all of its variants were trained with")
    study = study.from_mapping({**study.to_mapping(), "seeds": seeds})
    chosen = {variant.key: [by_key[variant.key][seed] for seed in seeds] for variant in trained}
    used = len(chosen) * len(seeds)
    return Ablation(
        folder=str(folder),
        result=ablation_result(study, variants, chosen),
        override=() if config is None else tuple(config.changes),
        command=None if config is None else command(config),
        data=data_text(records[0].identity.data),
        remarks=tuple(_remarks(variants, trained, others=others, unused=len(records) - used)),
    )


def _remarks(variants: Sequence[Variant], trained: Sequence[Variant], *, others: int, unused: int) -> Iterator[str]:
    for variant in variants:
        if variant.fits and variant not in trained:
            yield f"{variant.title} has no run here"
    if others:
        yield f"{others} runs on other data, another kind of device or in another precision are omitted"
    if unused:
        yield f"{unused} runs are omitted: other networks or recipes, or seeds that not all variants have"


def _of_one_kind(records: Sequence[RunRecord]) -> tuple[list[RunRecord], int]:
    """Return the largest group of comparable records, and the number of other records."""

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


class _Trained(NamedTuple):
    """A study, the config that its runs were trained with, and its variants."""

    study: AblationStudy
    config: AblationConfig | None
    variants: list[Variant]


def _as_trained(study: AblationStudy, runs: Path, by_key: Records, spec: ModelSpec) -> _Trained:
    """Return the study as its runs were trained: the stored ablation of its file with the most variants here.

    Args:
        study: the study as in its file.
        runs: folder of run folders.
        by_key: the runs.
        spec: network of any run, for the image shape and number of classes.
    """
    image: dict[str, Any] = {"input_shape": spec.input_shape, "num_classes": spec.num_classes}
    candidates: list[tuple[AblationStudy, AblationConfig | None]] = [
        (stored.study, stored.config) for stored in stored_ablations(runs) if stored.file_digest == study.digest
    ]
    found = [_Trained(each, config, each.variants(**image)) for each, config in candidates or [(study, None)]]
    best = max(found, key=lambda each: sum(variant.key in by_key for variant in each.variants))
    if not any(variant.key in by_key for variant in best.variants):
        raise RecordError("ablation", str(runs), "has no run of the study")
    return best
