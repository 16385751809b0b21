"""The winner of a search, read from its storage and run folder, to be ablated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.common.errors import InputError, RecordError
from budgetnet.experiments.ablation.winner import SearchWinner
from budgetnet.runs.store import RunFolder
from budgetnet.study.finalists import load_finals
from budgetnet.study.run_names import run_of_trial
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors, study_settings

if TYPE_CHECKING:
    from budgetnet.data import DataSet
    from budgetnet.experiments.ablation.config import AblationConfig


def find_winner(text: str, *, out: Path, storage: str | None) -> SearchWinner:
    """Return the network that a search recommends, or that of one of its trials.

    Args:
        text: name of the search's study, ``STUDY#3`` for the network of a trial, ``best`` for that of the latest, or
            ``#3`` for the network of a trial of the latest.
        out: folder of run folders.
        storage: URL of the search's storage. Default: the SQLite file in the folder.

    Raises:
        RecordError: there is no such study, it has no trained network, or the run's folder is missing or damaged.
        InputError: there is no such trial, or it was not fully trained.
    """
    name, _, number = ("", "", "best") if text == "best" else text.partition("#")
    if not text or (number not in ("", "best") and not number.isdecimal()):
        raise InputError("of", text, "must be the name of a search, best, SEARCH#3, or #3 of the latest")
    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(kept):
        try:
            study = find_study(kept, name or None)
        except RecordError as error:
            raise RecordError("of", text, error.rule) from None
        settings = study_settings(study)
        found = run_of_trial(study, number or "best", out=out, name=text, field="of")
        finals = load_finals(study)
    if found.outcome != "complete":
        raise InputError("of", text, f"must be fully trained, but is {found.outcome}")
    identity = RunFolder(out / found.run).load(weights=False).identity
    config = settings.config
    return SearchWinner(
        study=study.study_name,
        name=f"{study.study_name}{found.trial}" if number not in ("", "best") else study.study_name,
        trial=found.trial,
        spec=identity.spec,
        recipe=identity.recipe,
        # That of the candidates or of the finalists, without the values that were sampled for the network.
        search_recipe=settings.recipe if found.finalist is None or finals is None else finals.recipe,
        seed=identity.seed,
        budget=settings.budget,
        data=config.data,
        fingerprint=settings.data.fingerprint,
        train_size=config.train_size,
        validation_size=config.validation_size,
    )


def require_data_of_search(config: AblationConfig, dataset: DataSet) -> None:
    """Require the data set of the search whose winner is ablated.

    Raises:
        InputError: it is another one.
    """
    if isinstance(config.of, SearchWinner) and dataset.fingerprint != config.of.fingerprint:
        raise InputError("data", dataset.name, f"must be the images of {config.of.study}, {config.of.data}")
