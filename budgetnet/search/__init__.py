"""The search: Optuna proposes, the budget decides, the trainer trains, and everything is written down."""

from budgetnet.search.driver import MAX_TURNED_AWAY, Observer, SearchOutcome, require_feasible, search
from budgetnet.search.settings import StudySettings
from budgetnet.search.study import (
    candidates,
    default_storage,
    find_study,
    open_storage,
    storage_errors,
    study_settings,
    tally,
)

__all__ = [
    "MAX_TURNED_AWAY",
    "Observer",
    "SearchOutcome",
    "StudySettings",
    "candidates",
    "default_storage",
    "find_study",
    "open_storage",
    "require_feasible",
    "search",
    "storage_errors",
    "study_settings",
    "tally",
]
