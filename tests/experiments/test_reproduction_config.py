"""Configs of reproductions: parsing, storage and commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from strategies import ENGINE_FIELDS, many_examples, some_fields
from support import TINY, RunCommand, tiny_recipe
from typer.testing import CliRunner

from budgetnet.cli.fields import takes_options_of
from budgetnet.common.config import command
from budgetnet.common.errors import InputError
from budgetnet.experiments.reproduction.config import (
    EnsembleConfig,
    LadderConfig,
    LeakageConfig,
    ReferenceConfig,
    ReproductionConfig,
)
from budgetnet.experiments.reproduction.stored import store_reproduction, stored_reproductions
from budgetnet.visualization.report.reproductions import read_reproduction
from budgetnet.visualization.report.run_reader import Reader

KINDS: dict[str, type[ReproductionConfig]] = {
    "reference": ReferenceConfig,
    "leakage": LeakageConfig,
    "ladder": LadderConfig,
    "ensemble": EnsembleConfig,
}
COUNT = st.integers(1, 10**6)
NAME = st.text("abc xyz=./'$-", min_size=1, max_size=8).map(lambda text: f"n{text}")
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    **ENGINE_FIELDS,
    "data": NAME,
    "declare": st.just("cifar10"),
    "epochs": COUNT,
    "seed": st.integers(0, 2**31),
    "train_size": COUNT,
    "validation_size": COUNT,
    "out": NAME.map(Path),
    "device": st.sampled_from(("auto", "cuda", "mps", "cpu")),
    "threads": COUNT | st.just("auto"),
    "track": st.lists(st.just("tensorboard"), max_size=2),
    "recipe": NAME,
    "spec": NAME,
    "seeds": st.integers(1, 1_000),
    "members": st.integers(2, 1_000),
    "max_params": COUNT | st.none(),
}


@many_examples
@given(st.sampled_from(sorted(KINDS)), some_fields(GIVEN))
def test_command_round_trips_the_config(name: str, given: dict[str, Any]) -> None:
    kind = KINDS[name]
    assert set(kind.model_fields) <= set(GIVEN)
    config = kind(**{field: value for field, value in given.items() if field in kind.model_fields})
    found: list[ReproductionConfig] = []
    app = typer.Typer()

    @app.command()
    @takes_options_of(kind)
    def reproduce(config: ReproductionConfig) -> None:
        found.append(config)

    program, verb, what, *arguments = shlex.split(command(config))
    assert (program, verb, what) == ("budgetnet", "reproduce", name)
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert found == [config] == [kind.from_mapping(json.loads(json.dumps(config.to_mapping())))]


def test_configs_are_stored_once_each_and_read_as_they_were(tmp_path: Path) -> None:
    configs = [kind(out=tmp_path, data="digits", epochs=2) for kind in KINDS.values()]
    for config in [*configs, *configs]:
        store_reproduction(config)
    (tmp_path / "reproduction-0.json").write_text('{"schema_version": 1, "command": "search", "config": {}}')
    (tmp_path / "reproduction-1.json").write_text("nothing")
    assert len(list(tmp_path.glob("reproduction-*.json"))) == 6
    found = stored_reproductions(tmp_path)
    assert sorted(found, key=repr) == sorted(configs, key=repr)
    assert [type(each) for each in sorted(found, key=repr)] == [type(each) for each in sorted(configs, key=repr)]


def test_a_report_shows_the_command_that_trained_what_it_shows(tell: RunCommand, tmp_path: Path) -> None:
    TINY.save(tmp_path / "spec.yaml")
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    asked = ["--spec", str(tmp_path / "spec.yaml"), "--data", "digits", "--epochs", "1", "--seeds", "1"]
    asked += ["--train-size", "64", "--validation-size", "40", "--device", "cpu", "--out", str(tmp_path / "runs")]
    assert tell("reproduce", "leakage", *asked).code == 0
    (line,) = read_reproduction(tmp_path / "runs", Reader()).commands
    assert line.startswith("budgetnet reproduce leakage ")
    words = shlex.split(line)
    assert sorted(words[3:]) == sorted(asked)


@pytest.mark.parametrize(
    ("kind", "given", "line"),
    [
        (ReferenceConfig, {"seeds": 0}, "seeds = 0: must be a whole number of at least 1"),
        (LadderConfig, {"seeds": 1_001}, "seeds = 1001: must be at most 1,000"),
        (EnsembleConfig, {"members": 1}, "members = 1: must be two or more"),
        (LeakageConfig, {"seed": 2**32 - 1}, "seed = 4294967295: must leave room for 3 seeds"),
        (LadderConfig, {"declare": "mnist"}, "declare = 'mnist': must be 'cifar10'"),
        (LadderConfig, {"members": 3}, "members = 3: unknown field"),
    ],
)
def test_invalid_reproduction_config_gives_one_line(
    kind: type[ReproductionConfig], given: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind(**given)
    assert str(caught.value).startswith(line)


def test_seeds_follow_the_first() -> None:
    assert ReferenceConfig(seed=7, seeds=3).seed_numbers == [7, 8, 9]
    assert EnsembleConfig(seed=2, members=2).seed_numbers == [2, 3]
