"""The config of an ablation: read from texts, stored beside the runs, and written as the command that trained them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from strategies import ENGINE_FIELDS, many_examples, some_fields
from support import TINY, tiny_recipe
from typer.testing import CliRunner

import budgetnet as bn
from budgetnet.cli.fields import takes_options_of
from budgetnet.common.config import command
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.visualization.report.ablations import read_ablations
from budgetnet.visualization.report.run_reader import Reader

COUNT = st.integers(1, 10**6)
NAME = st.text("abc xyz=./'$-", min_size=1, max_size=8).map(lambda text: f"n{text}")
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    **ENGINE_FIELDS,
    **dict.fromkeys(("seeds", "epochs", "train_size", "validation_size"), COUNT),
    "data": NAME,
    "change": st.lists(NAME, max_size=3),
    "interval": st.sampled_from(("t", "bootstrap")),
    "out": NAME.map(Path),
    "device": st.sampled_from(("auto", "cuda", "mps", "cpu")),
    "threads": COUNT | st.just("auto"),
    "track": st.lists(st.just("tensorboard") | st.just("mlflow:some where"), max_size=2),
}
FILE: dict[str, Any] = {
    "name": "tiny",
    "spec": TINY.to_mapping(),
    "recipe": tiny_recipe().to_mapping(),
    "factors": {"recipe.learning_rate": [0.05, 0.2]},
    "seeds": 2,
}
SMALL: dict[str, Any] = {"train_size": 64, "validation_size": 40, "device": "cpu"}


OF_SEARCH: dict[str, st.SearchStrategy[Any]] = {"base": NAME, "storage": st.just("sqlite:///some where.db")}


def parsed(arguments: list[str]) -> AblationConfig:
    """The config that the command line makes of its arguments."""
    found: list[AblationConfig] = []
    app = typer.Typer()

    @app.command()
    @takes_options_of(AblationConfig)
    def ablate(config: AblationConfig) -> None:
        found.append(config)

    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    (config,) = found
    return config


def stored_again(config: AblationConfig) -> AblationConfig:
    return AblationConfig.from_mapping(json.loads(json.dumps(config.to_mapping())))


@many_examples
@given(NAME, some_fields(GIVEN))
def test_command_round_trips_the_config(study: str, given: dict[str, Any]) -> None:
    config = AblationConfig(study=study, **given)
    program, verb, *arguments = shlex.split(command(config))
    assert (program, verb, arguments[0]) == ("budgetnet", "ablate", study)
    assert parsed(arguments) == config == stored_again(config)
    assert set(AblationConfig.model_fields) == {*GIVEN, *OF_SEARCH, "study", "of"}


@many_examples
@given(NAME, some_fields({name: each for name, each in GIVEN.items() if name != "change"} | OF_SEARCH))
def test_command_of_a_winner_round_trips_the_config(search: str, given: dict[str, Any]) -> None:
    config = AblationConfig(of=search, **given)
    _, _, *arguments = shlex.split(command(config))
    assert parsed(arguments) == config == stored_again(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(FILE))
    return tmp_path


def test_runs_are_found_from_the_stored_config(folder: Path) -> None:
    runs = folder / "runs"
    # The study as its file has it, then with another base: of as many variants, what was trained last is shown.
    bn.ablate(folder, out=runs, seeds=1, epochs=1, **SMALL)
    config = AblationConfig(study=folder, out=runs, change=["recipe.weight_decay=0.001"], epochs=3, **SMALL)
    result = bn.ablate(config)
    read = read_ablations(folder, Reader())[0]
    assert read.result.to_mapping() == result.to_mapping()
    assert read.override == ("recipe.weight_decay=0.001", "epochs=3")
    assert read.command == (
        f"budgetnet ablate {folder} --change recipe.weight_decay=0.001 --epochs 3 --train-size 64 "
        f"--validation-size 40 --out {runs} --device cpu"
    )
    recipe = read.result.study.base_recipe
    assert (recipe.weight_decay, recipe.epochs) == (0.001, 3)


def test_only_training_stores_a_config(folder: Path) -> None:
    bn.ablate(folder, out=folder / "runs", partial=True, **SMALL)
    assert not (folder / "runs").exists()
    bn.ablate(folder, out=folder / "runs", epochs=1, **SMALL)
    (stored,) = (folder / "runs").glob("ablation-*.json")
    before = stored.stat().st_mtime_ns
    bn.ablate(folder, out=folder / "runs", epochs=1, **SMALL)
    assert stored.stat().st_mtime_ns == before, "the same is not written again"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"seeds": 0}, "seeds = 0: must be a whole number of at least 1"),
        ({"seeds": 1_001}, "seeds = 1001: must be at most 1,000"),
        ({"change": "recipe.epochs"}, "change = 'recipe.epochs': must be PATH=VALUE"),
        ({"change": "recipe.epochs=1:30"}, "recipe.epochs = '1:30': must be a whole number"),
        ({"change": "recipe.epochs=2024-13-45"}, "change = 'recipe.epochs=2024-13-45': must be well-formed YAML"),
        ({"change": "recipe.epochs=!!int x"}, "change = 'recipe.epochs=!!int x': must be well-formed YAML"),
        ({"change": f"recipe.epochs={'[' * 5_000}"}, "change = 'recipe.epochs=[[["),
        ({"change": "recipe.schedule={kind: cosine, kind: constant}"}, "change = 'recipe.schedule={kind: cosine"),
        ({"interval": "normal"}, "interval = 'normal': must be 't' or 'bootstrap'"),
        ({"train_size": 0}, "train_size = 0: must be a whole number"),
        ({"sedes": 2}, "sedes = 2: unknown field"),
    ],
)
def test_invalid_ablation_config_gives_one_line(given: dict[str, Any], line: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        bn.ablate(folder, out=folder / "runs", **given)
    assert str(caught.value).startswith(line)
    assert not (folder / "runs").exists()
