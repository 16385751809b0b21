"""Reproductions of a report: the records of a folder compared with published results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from budgetnet.common.config import command
from budgetnet.common.errors import BudgetnetError, RecordError
from budgetnet.data.test_set import read_openings
from budgetnet.experiments.reproduction.config import EnsembleConfig, ReproductionConfig
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction, ensemble_reproduction
from budgetnet.experiments.reproduction.ladder import LadderResult, ladder_result, rungs
from budgetnet.experiments.reproduction.leakage import LeakageResult, leakage_result
from budgetnet.experiments.reproduction.reference import ReferenceResult, reference_result
from budgetnet.experiments.reproduction.running import run_groups
from budgetnet.experiments.reproduction.stored import stored_reproductions
from budgetnet.model.budget import Budget
from budgetnet.model.zoo import get
from budgetnet.runs.records import DataRecord, RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.visualization.report.content import Reproduction
from budgetnet.visualization.report.formatting import data_text
from budgetnet.visualization.report.run_reader import Reader

Group = list[RunRecord]
"""Runs that differ only in the seed, ordered by seed."""

_DECLARED = "declared to be CIFAR-10 by its user"
"""In the provenance of a data set that its user declared to be CIFAR-10."""


def read_reproduction(folder: Path, reader: Reader) -> Reproduction:
    """Compare the records in a folder with published results.

    These are runs of the reference; pairs of a leaking and a sound recipe with the same network; the four networks of
    the ladder with one recipe; and the members of an ensemble, if the log of test set uses names one.

    Args:
        folder: folder of run folders, or a folder with ``runs``.
        reader: reader of run folders.

    Raises:
        RecordError: there is no finished run that was evaluated on the test set.
    """
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    records = reader.read_all(runs)
    groups = _groups(record for record in records if record.test is not None)
    if not groups:
        raise RecordError("reproduction", str(folder), "has no run that was evaluated on the test set")
    data = {record.identity.data.fingerprint: record.identity.data for group in groups for record in group}
    unevaluated = sum(record.test is None for record in records)
    remarks = [f"{unevaluated} runs were not evaluated on the test set"] if unevaluated else []
    stored = stored_reproductions(runs)
    ensembles, reasons = _ensembles(groups, folder, stored)
    return Reproduction(
        folder=str(folder),
        references=tuple(_references(groups)),
        leaks=tuple(_leaks(groups)),
        ladders=tuple(_ladders(groups)),
        ensembles=tuple(ensembles),
        data="; ".join(data_text(each) for each in data.values()),
        remarks=(*remarks, *reasons),
        commands=tuple(map(command, stored)),
    )


def is_declared(data: DataRecord) -> bool:
    """Return whether a user declared the images to be CIFAR-10."""
    return _DECLARED in data.provenance


def _groups(records: Iterator[RunRecord]) -> list[Group]:
    found: dict[str, Group] = {}
    for record in records:
        found.setdefault(record.identity.digest_without_seed, []).append(record)
    return [sorted(group, key=lambda record: record.identity.seed) for group in found.values()]


def _network(group: Group) -> str:
    """Return the network's digest, without its name."""
    return group[0].identity.spec.replace(name="").digest


def _setting(group: Group, *, with_recipe: bool) -> str:
    """Return the settings, apart from the network, that comparable groups share."""
    identity = group[0].identity
    data, recipe = identity.data, identity.recipe.digest if with_recipe else ""
    # Without the split, in which a leaking and a sound recipe differ.
    images = data.fingerprint, data.mean, data.std, data.train_images, data.validation_images
    return repr((images, identity.device, identity.precision, identity.trainer, recipe))


def _references(groups: Sequence[Group]) -> Iterator[ReferenceResult]:
    known = get("reference").replace(name="").digest
    for group in groups:
        if _network(group) == known:
            yield reference_result(group, declared=is_declared(group[0].identity.data))


def _leaks(groups: Sequence[Group]) -> Iterator[LeakageResult]:
    """Return comparisons of a leaking and a sound recipe with the same network and data, on common seeds."""
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
    networks = [get(rung.known_spec).replace(name="").digest for rung in rungs()]
    settings: dict[str, dict[str, Group]] = {}
    for group in groups:
        settings.setdefault(_setting(group, with_recipe=True), {})[_network(group)] = group
    for found in settings.values():
        if not all(network in found for network in networks):
            continue
        paired = _paired([found[network] for network in networks])
        if paired[0]:
            yield ladder_result(paired, declared=is_declared(paired[0][0].identity.data))


def _paired(groups: Sequence[Group]) -> list[Group]:
    """Return the runs of each group with the seeds that all groups have."""
    common = set.intersection(*({record.identity.seed for record in group} for group in groups))
    return [[record for record in group if record.identity.seed in common] for group in groups]


def _ensembles(
    groups: Sequence[Group], folder: Path, stored: Sequence[ReproductionConfig]
) -> tuple[list[EnsembleReproduction], list[str]]:
    """Return the ensembles of a folder, and the reasons why others could not be evaluated."""
    found, reasons = [], []
    logs = (folder / TEST_OPENINGS_FILE, folder / "runs" / TEST_OPENINGS_FILE)
    openings = [
        opening for log in logs for opening in read_openings(log) if opening.get("by") == EnsembleConfig.command
    ]
    members = {run for opening in openings for run in opening.get("runs", ())}
    for group in groups:
        if len(group) < 2 or members.isdisjoint(record.folder.name for record in group):
            continue
        config, is_own = _config_of(group, stored)
        # Other commands may have trained the network by the same recipe, with more seeds.
        own = [record for record in group if not is_own or record.identity.seed in config.seed_numbers]
        try:
            found.append(ensemble_reproduction(own, budget=Budget(max_params=config.max_params)))
        except BudgetnetError as error:
            reasons.append(f"no ensemble of {group[0].identity.spec.label}: {error}")
    return found, reasons


def _config_of(group: Group, stored: Sequence[ReproductionConfig]) -> tuple[EnsembleConfig, bool]:
    """Return the config of an ensemble and True; without one that can be told to be its own, the latest and False."""
    configs = [config for config in stored if isinstance(config, EnsembleConfig)]
    own = [config for config in configs if _trained(config, group)]
    return (own or configs or [EnsembleConfig()])[-1], bool(own)


def _trained(config: EnsembleConfig, group: Group) -> bool:
    """Return whether runs are of the network and the recipe of a config."""
    try:
        (planned,) = run_groups(config)
    except BudgetnetError:
        # Files that it names may be elsewhere by now.
        return False
    identity = group[0].identity
    spec = planned.spec.adapted(input_shape=identity.spec.input_shape, num_classes=identity.spec.num_classes)
    return (spec.replace(name="").digest, planned.recipe.digest) == (_network(group), identity.recipe.digest)
