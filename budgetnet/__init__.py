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

from budgetnet.api.checking import check
from budgetnet.common.errors import BudgetnetError, DataError, InputError, OverBudgetError, RecordError
from budgetnet.model import zoo
from budgetnet.model.budget import Budget
from budgetnet.model.parts import Head, Shortcut, SqueezeExcitation, Stage, Stem
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import Verdict
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Mixing, Policy, Resizing
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import EarlyStopping, Schedule
from budgetnet.version import __version__ as __version__

if TYPE_CHECKING:
    from budgetnet.api.device import check_device as check_device
    from budgetnet.api.device import measure_device as measure_device
    from budgetnet.api.evaluation import evaluate as evaluate
    from budgetnet.api.evaluation import predict as predict
    from budgetnet.api.leaderboard import leaderboard as leaderboard
    from budgetnet.api.report import report as report
    from budgetnet.api.reproduction import Reproduction as Reproduction
    from budgetnet.api.reproduction import reproduce as reproduce
    from budgetnet.api.run import TrainedRun as TrainedRun
    from budgetnet.api.search import ablate as ablate
    from budgetnet.api.search import search as search
    from budgetnet.api.study import Study as Study
    from budgetnet.api.study import open_study as open_study
    from budgetnet.api.training import train as train
    from budgetnet.experiments.ablation import AblationStudy as AblationStudy
    from budgetnet.experiments.ablation.config import AblationConfig as AblationConfig
    from budgetnet.exporting.exporting import export as export
    from budgetnet.exporting.quantizing import quantize as quantize
    from budgetnet.model.deployed.device_file import DeviceFile as DeviceFile
    from budgetnet.study.config import SearchConfig as SearchConfig
    from budgetnet.training.callbacks import Callback as Callback

_LATER = {
    "AblationConfig": "budgetnet.experiments.ablation.config",
    "AblationStudy": "budgetnet.experiments.ablation",
    "Callback": "budgetnet.training.callbacks",
    "DeviceFile": "budgetnet.model.deployed.device_file",
    "Reproduction": "budgetnet.api.reproduction",
    "SearchConfig": "budgetnet.study.config",
    "Study": "budgetnet.api.study",
    "TrainedRun": "budgetnet.api.run",
    "ablate": "budgetnet.api.search",
    "check_device": "budgetnet.api.device",
    "evaluate": "budgetnet.api.evaluation",
    "export": "budgetnet.exporting.exporting",
    "leaderboard": "budgetnet.api.leaderboard",
    "measure_device": "budgetnet.api.device",
    "open_study": "budgetnet.api.study",
    "predict": "budgetnet.api.evaluation",
    "quantize": "budgetnet.exporting.quantizing",
    "report": "budgetnet.api.report",
    "reproduce": "budgetnet.api.reproduction",
    "search": "budgetnet.api.search",
    "train": "budgetnet.api.training",
}
"""Names that are found where they live when they are first asked for: what they need takes a second to load."""

__all__ = [
    "AblationConfig",
    "AblationStudy",
    "Augmentation",
    "Budget",
    "BudgetnetError",
    "Callback",
    "DataError",
    "DeviceFile",
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
    "Reproduction",
    "Resizing",
    "Schedule",
    "SearchConfig",
    "Shortcut",
    "SqueezeExcitation",
    "Stage",
    "Stem",
    "Study",
    "TrainedRun",
    "Verdict",
    "ablate",
    "check",
    "check_device",
    "evaluate",
    "export",
    "leaderboard",
    "measure_device",
    "open_study",
    "predict",
    "quantize",
    "report",
    "reproduce",
    "search",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
