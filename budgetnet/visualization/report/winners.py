"""Ablations of a search's winner, found beside the runs of the search by the name of its study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from budgetnet.common.config import command
from budgetnet.common.errors import BudgetnetError
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.ablation.stored import StoredAblation, stored_ablations
from budgetnet.experiments.ablation.winner import SearchWinner
from budgetnet.runs.records import RunRecord
from budgetnet.study.config import SearchConfig
from budgetnet.study.winner import Winner
from budgetnet.visualization.report.ablations import ablation_of
from budgetnet.visualization.report.content import Ablation, Why
from budgetnet.visualization.report.run_reader import Reader


def read_why(study: str, config: SearchConfig, best: Winner | None, reader: Reader) -> Why | None:
    """Return the ablations of a search's winner from the records beside its runs; None without a winner.

    Args:
        study: name of the search's study.
        config: config of the search, with its current folder and storage.
        best: the network that the search recommends now.
        reader: reader of run folders.
    """
    if best is None:
        return None
    found: list[Ablation] = []
    unfinished: list[str] = []
    for group in _groups(study, config.out):
        line = command(group[0].config)
        try:
            records = _records(group, config.out, reader)
            ablation = ablation_of(config.out, group[0].study, group, records, beside_others=True)
        except BudgetnetError:
            unfinished.append(line)
        else:
            found.append(ablation._replace(remarks=(*ablation.remarks, *_remarks(group[0], best))))
    options = {"device": config.device, "threads": config.threads, "out": config.out, "storage": config.storage}
    return Why(tuple(found), tuple(unfinished), command(AblationConfig(of=study, **options)))


def _groups(study: str, out: Path) -> list[list[StoredAblation]]:
    """Return the stored ablations of a search's winner, those of one study with other epochs or seeds together."""
    groups: dict[str, list[StoredAblation]] = {}
    for each in stored_ablations(out):
        if isinstance(each.config.of, SearchWinner) and each.config.of.study == study:
            groups.setdefault(each.file_digest, []).append(each)
    return list(groups.values())


def _records(stored: Sequence[StoredAblation], out: Path, reader: Reader) -> list[RunRecord]:
    """Return the finished runs of the variants' networks, found by their names among those of the search."""
    of, spec = stored[0].config.of, stored[0].study.bases[""].spec
    images = of.fingerprint if isinstance(of, SearchWinner) else ""
    names = {
        variant.spec.label[:48]
        for each in stored
        for variant in each.study.variants(input_shape=spec.input_shape, num_classes=spec.num_classes)
    }
    folders = (path.parent for path in sorted(out.glob("*/run.json")))
    records = [reader.read(folder) for folder in folders if folder.name.rpartition("-s")[0] in names]
    return [record for record in records if record is not None and record.identity.data.fingerprint == images]


def _remarks(stored: StoredAblation, best: Winner) -> tuple[str, ...]:
    trial = stored.config.of.trial if isinstance(stored.config.of, SearchWinner) else ""
    if trial == best.trial:
        return ()
    return (f"{trial} was the winner when this was trained, and {best.trial} is now",)
