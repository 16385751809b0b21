"""Published results beside a folder of records: whatever these bear on, is set beside what the paper claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from budgetnet.common.config import command
from budgetnet.common.errors import BudgetnetError, RecordError
from budgetnet.data.test_set import read_openings
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction, ensemble_reproduction
from budgetnet.experiments.reproduction.ladder import LadderResult, ladder_result, rungs
from budgetnet.experiments.reproduction.leakage import LeakageResult, leakage_result
from budgetnet.experiments.reproduction.reference import ReferenceResult, reference_result
from budgetnet.experiments.reproduction.stored import stored_reproductions
from budgetnet.model.budget import Budget
from budgetnet.model.zoo import get
from budgetnet.runs.records import DataRecord, RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.visualization.report.content import Reproduction
from budgetnet.visualization.report.formatting import data_words
from budgetnet.visualization.report.run_reader import Reader

Group = list[RunRecord]
"""Runs that differ in their seeds alone, by seed."""

_DECLARED = "declared to be CIFAR-10 by its user"
"""What the provenance of a data set ends with whose user vouched for it."""
_PAPERS_BUDGET = Budget(max_params=5_000_000)
"""What all members of an ensemble together may have, by the paper."""


def read_reproduction(folder: Path, reader: Reader) -> Reproduction:
    """What the records below a folder say of published results.

    Looked for are runs of the reference; pairs of recipes with one network, of which one leaks; the four rungs of the
    ladder by one recipe; and, where the folder's openings name one, the members of an ensemble.

    Args:
        folder: run folders, or a folder that has them in ``runs``.
        reader: reads the run folders.

    Raises:
        RecordError: no finished run is there, or none that was judged on the test set.
    """
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    records = reader.read_all(runs)
    groups = _groups(record for record in records if record.test is not None)
    if not groups:
        raise RecordError("reproduction", str(folder), "holds no run that was judged on the test set")
    data = {record.identity.data.fingerprint: record.identity.data for group in groups for record in group}
    unjudged = sum(record.test is None for record in records)
    remarks = [f"{unjudged} runs were not judged on the test set"] if unjudged else []
    ensembles, reasons = _ensembles(groups, folder)
    return Reproduction(
        folder=str(folder),
        references=tuple(_references(groups)),
        leaks=tuple(_leaks(groups)),
        ladders=tuple(_ladders(groups)),
        ensembles=tuple(ensembles),
        data="; ".join(data_words(each) for each in data.values()),
        remarks=(*remarks, *reasons),
        commands=tuple(map(command, stored_reproductions(runs))),
    )


def is_declared(data: DataRecord) -> bool:
    """Whether a user vouched for the images being CIFAR-10."""
    return data.provenance.endswith(_DECLARED)


def _groups(records: Iterator[RunRecord]) -> list[Group]:
    found: dict[str, Group] = {}
    for record in records:
        found.setdefault(record.identity.digest_without_seed, []).append(record)
    return [sorted(group, key=lambda record: record.identity.seed) for group in found.values()]


def _network(group: Group) -> str:
    """Identity of the network, whatever it is called."""
    return group[0].identity.spec.replace(name="").digest


def _setting(group: Group, *, with_recipe: bool) -> str:
    """What else than the network has to be alike for groups to be compared."""
    identity = group[0].identity
    recipe = identity.recipe.digest if with_recipe else ""
    return repr((identity.data.fingerprint, identity.device, identity.precision, identity.trainer, recipe))


def _references(groups: Sequence[Group]) -> Iterator[ReferenceResult]:
    known = get("reference").replace(name="").digest
    for group in groups:
        if _network(group) == known:
            yield reference_result(group, declared=is_declared(group[0].identity.data))


def _leaks(groups: Sequence[Group]) -> Iterator[LeakageResult]:
    """Pairs of groups of one network and data set, the one's recipe leaking; only the seeds that both have."""
    for leaking in groups:
        for sound in groups:
            pairs = leaking[0].identity.recipe.leaks and not sound[0].identity.recipe.leaks
            alike = _setting(leaking, with_recipe=False) == _setting(sound, with_recipe=False)
            if not (pairs and alike and _network(leaking) == _network(sound)):
                continue
            one, other = _paired([leaking, sound])
            if one:
                yield leakage_result(one, other)


def _ladders(groups: Sequence[Group]) -> Iterator[LadderResult]:
    wanted = [get(rung.known_spec).replace(name="").digest for rung in rungs()]
    settings: dict[str, dict[str, Group]] = {}
    for group in groups:
        settings.setdefault(_setting(group, with_recipe=True), {})[_network(group)] = group
    for found in settings.values():
        if not all(network in found for network in wanted):
            continue
        paired = _paired([found[network] for network in wanted])
        if paired[0]:
            yield ladder_result(paired, declared=is_declared(paired[0][0].identity.data))


def _paired(groups: Sequence[Group]) -> list[Group]:
    """Of each group the runs whose seeds all groups have."""
    common = set.intersection(*({record.identity.seed for record in group} for group in groups))
    return [[record for record in group if record.identity.seed in common] for group in groups]


def _ensembles(groups: Sequence[Group], folder: Path) -> tuple[list[EnsembleReproduction], list[str]]:
    """The ensembles of a folder in which one was reproduced, and why others could not be made."""
    found, reasons = [], []
    openings = [path for path in (folder / TEST_OPENINGS_FILE, folder / "runs" / TEST_OPENINGS_FILE) if path.exists()]
    if any(opening.get("by") == "reproduce ensemble" for path in openings for opening in read_openings(path)):
        for group in groups:
            if len(group) < 2:
                continue
            try:
                found.append(ensemble_reproduction(group, budget=_PAPERS_BUDGET))
            except BudgetnetError as error:
                reasons.append(f"no ensemble of {group[0].identity.spec.label}: {error}")
    return found, reasons
