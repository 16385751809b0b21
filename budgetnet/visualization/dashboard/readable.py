"""Storage whose studies have readable attributes, for the dashboard's table of a study's attributes."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import optuna
from optuna.storages._cached_storage import _CachedStorage
from optuna.study._frozen import FrozenStudy

from budgetnet.common.config import command
from budgetnet.common.errors import BudgetnetError
from budgetnet.study.finalists import FINALS_KEY, load_finals
from budgetnet.study.storage import SETTINGS_KEY, study_settings


class ReadableStorage(_CachedStorage):
    """Optuna's cache of a storage, with which the dashboard reads studies.

    It shows a study's settings as the command of its search, and its finals by their names and seeds, instead of as
    JSON of several thousand characters. What is stored stays as it is.
    """

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, with readable attributes."""
        studies = super().get_all_studies()
        for study in studies:
            # Studies of others, or of other versions of budgetnet, are shown as they are stored.
            with suppress(BudgetnetError):
                study.user_attrs = {**study.user_attrs, **_readable(study)}
        return studies


def _readable(frozen: FrozenStudy) -> dict[str, str]:
    # Both have the attributes and the name.
    study = cast(optuna.Study, frozen)
    found, finals = {SETTINGS_KEY: command(study_settings(study).config)}, load_finals(study)
    if finals is not None:
        names = ", ".join(each.name for each in finals.finalists)
        found[FINALS_KEY] = f"{names}; seeds {', '.join(map(str, finals.seeds))}"
    return found
