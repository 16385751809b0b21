"""The public names, and that counting needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import budgetnet

PUBLIC = [
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


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_public_names_are_these_and_exist() -> None:
    assert sorted(budgetnet.__all__) == sorted(PUBLIC)
    assert all(hasattr(budgetnet, name) for name in PUBLIC)
    assert dir(budgetnet) == sorted(PUBLIC)


def test_every_error_is_documented_with_its_exit_code() -> None:
    codes = {"BudgetnetError": 1, "InputError": 2, "DataError": 2, "RecordError": 2, "OverBudgetError": 3}
    assert {name: getattr(budgetnet, name).exit_code for name in codes} == codes
    assert issubclass(budgetnet.InputError, ValueError)


COMMANDS = [
    ["check", "reference", "--max-params", "5M"],
    ["check", "reference", "--max-params", "4M", "--json"],
    ["summary", "reference"],
    ["specs"],
    ["schema", "spec"],
    ["schema", "ablation"],
    ["space", "paper", "--max-params", "5M"],
    ["reproduce", "list"],
]


@pytest.mark.parametrize(
    "code",
    [
        "import budgetnet",
        "import budgetnet.cli.main",
        "import budgetnet.bench.check",
        "from numpy import random; from budgetnet.study import space;"
        "space.SearchSpace().sample(count=9, generator=random.default_rng(0))",
        "import budgetnet; budgetnet.zoo.reference._repr_html_(); budgetnet.zoo.reference.summary()._repr_html_()",
        "import budgetnet; assert budgetnet.check(budgetnet.zoo.reference, max_params='4M').edits",
        # One process for all, which has not loaded torch when the next begins.
        "from budgetnet.cli.main import main; import sys\n"
        f"for each in {COMMANDS}: assert main(each) in (0, 3) and 'torch' not in sys.modules, each",
    ],
)
def test_counting_never_imports_torch(code: str) -> None:
    done = run(f"{code}\nimport sys\nassert not {{'torch', 'torchvision', 'thop'}} & set(sys.modules), 'torch'")
    assert done.returncode == 0, done.stderr


def test_importing_loads_nothing_that_takes_long() -> None:
    done = run("import budgetnet, sys; print(*{name.partition('.')[0] for name in sys.modules})")
    slow = {
        "torch",
        "optuna",
        "pandas",
        "plotly",
        "scipy",
        "sklearn",
        "sqlalchemy",
        "mlflow",
        "tensorboard",
        "ray",
        "fsspec",
    }
    assert not slow & set(done.stdout.split())
    assert "pydantic" in done.stdout.split()


def test_training_loads_no_tracker_and_local_workers_no_ray(tmp_path: Path) -> None:
    few = ["--data", "digits", "--epochs", "1", "--train-size", "20", "--validation-size", "20", "--device", "cpu"]
    few += ["--out", str(tmp_path)]
    train = ["train", "resnet20", *few]
    search = ["search", "--max-params", "20k", "--trials", "1", "--workers", "2", *few]
    code = "from budgetnet.cli.main import main; import sys\n"
    for command in (train, search):
        code += f"assert main({command}) == 0\n"
        code += "assert not {'tensorboard', 'mlflow', 'budgetnet.training.trackers', 'ray'} & set(sys.modules)\n"
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options",
    [["search", "--help"], ["search", "--store", "s3://bucket/runs"], ["search", "--engine", "ray", "--space", "none"]],
    ids=lambda options: options[-1],
)
def test_help_and_early_refusals_load_no_package_of_clusters(options: list[str], tmp_path: Path) -> None:
    code = f"from budgetnet.cli.main import main; code = main({options})"
    done = run(f"{code}\nimport sys; assert not {{'ray', 'fsspec'}} & set(sys.modules); sys.exit(code)")
    assert done.returncode == (0 if "--help" in options else 2), done.stderr


def test_naming_the_trackers_loads_neither_of_their_packages() -> None:
    done = run(
        "import budgetnet.training.trackers, sys; assert not {'tensorboard', 'mlflow', 'torch'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_opening_a_study_loads_no_torch() -> None:
    done = run(
        "import budgetnet, sys; budgetnet.open_study; assert 'optuna' in sys.modules; assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_names_that_are_loaded_later_stay_what_they_are() -> None:
    code = "import budgetnet, budgetnet.study.driver; assert budgetnet.search.__module__ == 'budgetnet.api.search'"
    assert run(code).returncode == 0
    assert {"search", "zoo"} <= set(dir(budgetnet))
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        _ = budgetnet.serch


def test_building_does_import_torch() -> None:
    code = "import budgetnet, sys; budgetnet.zoo.resnet20.build(); sys.exit('torch' not in sys.modules)"
    assert run(code).returncode == 0


@pytest.mark.parametrize(("limit", "code"), [("5M", 0), ("4662346", 0), ("4662345", 3), ("none", 2)])
def test_check_ends_with_the_documented_code(limit: str, code: int) -> None:
    command = [sys.executable, "-m", "budgetnet", "check", "reference", "--max-params", limit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_wrong_values_are_refused_before_anything_large_is_loaded(tmp_path: Path) -> None:
    commands = [
        *(
            "search --sizing foo",
            "search --data foo",
            "search --recipe foo",
            "search --space foo",
            "search --track foo",
        ),
        *("search --enqueue foo", "search --max-params 0", "search --device gpu", "search --timeout soon"),
        *("train foo", "train resnet20 --data foo", "train resnet20 --recipe foo", "train resnet20 --device gpu"),
        *("export best --format pt", "ablate foo", "reproduce reference --recipe foo", "evaluate foo --on everything"),
        *("quantize best --calibration-images 0", "quantize best --data foo"),
        *("check foo", "check reference --max-params five", "space foo"),
    ]
    code = f"""
import os, sys
from budgetnet.cli.main import main
os.chdir({str(tmp_path)!r})
for command in {commands}:
    assert main(command.split()) == 2, command
    assert not {{'torch', 'torchvision', 'optuna', 'ray', 'scipy', 'sklearn', 'plotly'}} & set(sys.modules), command
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
