"""budgetnet: find the best small image classifier under a hard parameter budget, and say why it is best.

    >>> import budgetnet as bn
    >>> spec = bn.ModelSpec.resnet(channels=[32, 64, 128], blocks=2)
    >>> spec.params
    696618
    >>> bn.check(spec, max_params="5M").fits
    True

Importing it loads no torch; building a network does. What reads or makes studies is loaded when it is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from budgetnet.common.errors import BudgetnetError, DataError, InputError, OverBudgetError, RecordError
from budgetnet.model import zoo
from budgetnet.model.budget import Budget, Verdict
from budgetnet.model.spec import Head, ModelSpec, Shortcut, Stage, Stem
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Mixing, Policy, Resizing
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import EarlyStopping, Schedule
from budgetnet.version import __version__ as __version__

if TYPE_CHECKING:
    from budgetnet.api.search import ablate as ablate
    from budgetnet.api.search import search as search
    from budgetnet.api.study import Study as Study
    from budgetnet.api.study import open_study as open_study
    from budgetnet.experiments.ablation import AblationStudy as AblationStudy
    from budgetnet.training.callbacks import Callback as Callback

_LATER = {
    "AblationStudy": "budgetnet.experiments.ablation",
    "Callback": "budgetnet.training.callbacks",
    "Study": "budgetnet.api.study",
    "ablate": "budgetnet.api.search",
    "open_study": "budgetnet.api.study",
    "search": "budgetnet.api.search",
}
"""Names that are found where they live when they are first asked for: what they need takes a second to load."""

__all__ = [
    "AblationStudy",
    "Augmentation",
    "Budget",
    "BudgetnetError",
    "Callback",
    "DataError",
    "EarlyStopping",
    "ExampleFilter",
    "Head",
    "InputError",
    "Mixing",
    "ModelSpec",
    "OverBudgetError",
    "Policy",
    "Recipe",
    "RecordError",
    "Resizing",
    "Schedule",
    "Shortcut",
    "Stage",
    "Stem",
    "Study",
    "Verdict",
    "ablate",
    "check",
    "open_study",
    "search",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def check(
    spec: ModelSpec | str,
    *,
    max_params: float | str | None = None,
    max_macs: float | str | None = None,
    max_activations: float | str | None = None,
) -> Verdict:
    """The verdict of a budget on a network, from its closed-form cost; builds nothing.

    Args:
        spec: the network, or the name of one that has one.
        max_params: most trainable parameters, such as 5e6 or "5M"; does not bind if left out.
        max_macs: most multiply-accumulates for one image.
        max_activations: most output elements of convolutions and the linear layer for one image.

    Raises:
        InputError: a limit is not a whole number of at least 1, or no network has that name.
    """
    limits = {"max_params": max_params, "max_macs": max_macs, "max_activations": max_activations}
    return Budget.from_mapping(limits).check(zoo.get(spec) if isinstance(spec, str) else spec)
