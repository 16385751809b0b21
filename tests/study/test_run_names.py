"""Runs given by a name: the best of a study, a trial's, and what is none."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support import PAIR_SPACE, TINY, RunCommand, tiny_recipe
from typer.main import get_command

import budgetnet as bn
from budgetnet.cli.main import app
from budgetnet.common.errors import RecordError
from budgetnet.study.run_names import run_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(folder: Path) -> bn.Study:
    """A study of two networks, with the worse one as its only finalist."""
    return bn.search(
        space=PAIR_SPACE,
        recipe=tiny_recipe(epochs=1),
        final_recipe=tiny_recipe(epochs=2),
        sizing="reject",
        sampler="tpe",
        trials=2,
        finalists=1,
        final_seeds=2,
        device="cpu",
        train_size=64,
        validation_size=40,
        study="mine",
        verbosity="quiet",
    )


def test_best_is_the_finalist_everywhere(study: bn.Study, tell: RunCommand, tmp_path: Path) -> None:
    (final,) = study.finals()
    best = max(final.records, key=lambda record: record.result.validation_accuracy or 0)
    searched = study.out / str(study.leaderboard()[0].run)
    assert best.folder.name in final.finalist.runs
    assert best.folder.name != searched.name, "the search trained it by another recipe"
    assert study.best().folder == best.folder
    for name in ("best", "mine#best", "runs/best", "runs/mine#best", str(tmp_path / "runs" / "best")):
        assert run_path(name).resolve() == best.folder.resolve()
    shown = tell("leaderboard").out
    assert f"best run: {best.folder} (finalist #{final.finalist.trial}, seed {best.identity.seed})" in shown
    assert f"best run of the search: {searched}" in shown
    assert str(best.folder) in tell("evaluate", "best", "--device", "cpu").out
    exported = tell("export", "best", "--format", "safetensors", "-o", "network.safetensors")
    assert (exported.code, exported.err) == (0, "")
    assert tell("time-to-accuracy", "best", "--targets", "1").code == 0
    assert tell("leaderboard", "best").out.split("\n")[0].strip() == "1 run"
    first, second = (trial.number for trial in study.trials() if trial.trained)
    assert "2 runs" in tell("leaderboard", f"#{first}", f"#{second}").out
    expected = tell("summary", str(best.folder / "spec.yaml")).out
    for name in (str(best.folder), "best", "mine#best"):
        assert tell("summary", name).out == expected
    assert tell("check", f"mine#{final.finalist.trial}").code == 0
    assert tell("summary", "mine#99").err.startswith("error: run = 'mine#99': study mine has no such trial")


WITH_RUN = {
    "ablate --base": ["ablate", "--of", "mine", "--base", "RUN", "--list"],
    "bench profile spec": ["bench", "profile", "RUN"],
    "bench start spec": ["bench", "start", "RUN"],
    "bench train spec": ["bench", "train", "RUN"],
    "check spec": ["check", "RUN"],
    "ensemble runs": ["ensemble", "RUN", "best"],
    "evaluate runs": ["evaluate", "RUN"],
    "export run": ["export", "RUN", "--format", "python"],
    "figures --spec": ["figures", "--spec", "RUN"],
    "figures runs": ["figures", "RUN"],
    "leaderboard source": ["leaderboard", "RUN"],
    "predict run": ["predict", "RUN", "image.png"],
    "quantize run": ["quantize", "RUN"],
    "reproduce ensemble --spec": ["reproduce", "ensemble", "--spec", "RUN", "--data", "digits"],
    "reproduce leakage --spec": ["reproduce", "leakage", "--spec", "RUN", "--data", "digits"],
    "summary spec": ["summary", "RUN"],
    "time-to-accuracy runs": ["time-to-accuracy", "RUN", "--targets", "1"],
    "train spec": ["train", "RUN"],
}
"""Every argument and option that takes a run or a specification, with a command that gives it one."""
OWN_RULE = {"search --enqueue"}
"""Options that take some names only."""


def takers_of_runs(command: Any, name: str = "") -> set[str]:
    """Return the commands' arguments and options that take a run, from their metavars."""
    found = set()
    for option in command.params:
        if re.search(r"\b(RUN|SPEC)\b", option.metavar or ""):
            found.add(f"{name} {option.name if option.param_type_name == 'argument' else option.opts[0]}".strip())
    for word, verb in getattr(command, "commands", {}).items():
        found |= takers_of_runs(verb, f"{name} {word}".strip())
    return found


def test_all_commands_that_take_a_run_take_its_name(study: bn.Study, tell: RunCommand) -> None:
    assert takers_of_runs(get_command(app)) == WITH_RUN.keys() | OWN_RULE
    for words in WITH_RUN.values():
        told = tell(*("mine#99" if word == "RUN" else word for word in words))
        assert (told.code, told.err.count("\n")) == (2, 1), (words, told)
        assert "mine#99': study mine has no such trial" in told.err, words


def test_figures_are_drawn_of_a_run_by_its_name(study: bn.Study, tell: RunCommand) -> None:
    trial = next(trial for trial in study.trials() if trial.trained)
    told = tell("figures", f"#{trial.number}", f"runs/{trial.run}", "--format", "json")
    assert (told.code, told.err) == (0, "")
    assert told.out.split() == [f"figures/{trial.run}-{kind}.json" for kind in ("outline", "accuracy", "loss")]


def test_trials_are_runs_by_number(study: bn.Study) -> None:
    for trial in study.trials():
        for name in (f"#{trial.number}", f"mine#{trial.number}", f"runs/mine#{trial.number}"):
            assert run_path(name) == Path("runs") / str(trial.run)


def test_a_path_that_exists_is_no_name(study: bn.Study) -> None:
    Path("best").mkdir()
    assert run_path("best") == Path("best")
    assert run_path("runs/other") == Path("runs/other")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("#7", "run = '#7': study mine has no such trial"),
        ("other#1", "study = 'other': "),
        ("elsewhere/best", "storage = "),
        ("a" * 300, "run folder = "),
    ],
)
def test_what_does_not_exist_is_one_line(study: bn.Study, tell: RunCommand, name: str, error: str) -> None:
    told = tell("evaluate", name)
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert told.err.startswith(f"error: {error}"), told.err


def test_a_search_and_an_ablation_begin_with_a_run(study: bn.Study, tell: RunCommand) -> None:
    trial = next(trial for trial in study.trials() if trial.trained)
    small = ["--train-size", "64", "--validation-size", "40", "--device", "cpu", "--quiet"]
    command = [
        "search",
        "--enqueue",
        f"mine#{trial.number}",
        "--study",
        "next",
        "--trials",
        "1",
        "--epochs",
        "1",
        *small,
    ]
    told = tell(*command)
    assert (told.code, told.err) == (0, "")
    assert f" --enqueue runs/{trial.run} " in told.out, "the command means the same in another folder of studies"
    (row,) = bn.open_study("next").leaderboard()
    assert row.params == trial.params
    assert tell(*command).out == told.out
    for name in ("best", "#0", "runs/best"):
        refused = tell("search", "--enqueue", name)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"--enqueue = '{name}': names a run of the most recent study, which will be this one" in refused.err
    assert "study mine has no such trial" in tell("search", "--enqueue", "mine#99").err
    Path("study.yaml").write_text(
        "spec: resnet20\nrecipe: digits\nfactors: {spec.stem.kernel_size: [1, 3]}\nseeds: 1\n"
    )
    listed = tell("ablate", "study.yaml", "--change", f"spec=mine#{trial.number}", "--list", "--json")
    assert listed.code == 0, listed.err
    assert trial.params in [row["params"] for row in json.loads(listed.out)["rows"]]
    result = bn.ablate("study.yaml", change="spec=best", epochs=1, train_size=64, validation_size=40, device="cpu")
    assert result.rows[0].variant.spec.digest == bn.open_study().best().spec.digest


def test_a_network_to_enqueue_is_looked_for_beside_the_runs_of_the_search(study: bn.Study, tell: RunCommand) -> None:
    trial = next(trial for trial in study.trials() if trial.trained)
    Path("runs").rename("elsewhere")
    small = ("--train-size", "64", "--validation-size", "40", "--device", "cpu", "--quiet", "--out", "elsewhere")
    command = ("search", "--study", "next", "--trials", "1", "--epochs", "1", "--enqueue", f"mine#{trial.number}")
    told = tell(*command, *small)
    assert (told.code, told.err) == (0, "")
    (row,) = bn.open_study("next", out="elsewhere").leaderboard()
    assert row.params == trial.params


def test_the_best_network_of_a_damaged_trial_is_one_line(study: bn.Study) -> None:
    number = study.best().trial.number
    with sqlite3.connect(study.out / "studies.db") as connection:
        damage = "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = ? AND key = 'params'"
        assert connection.execute(damage, (number + 1,)).rowcount == 1
    connection.close()
    with pytest.raises(RecordError, match=f"^study = 'mine': its best network is that of trial #{number}, which is d"):
        bn.open_study().best()


def test_a_study_is_readable_without_the_network_that_it_began_with(tell: RunCommand, folder: Path) -> None:
    TINY.save("best/spec.yaml")
    small = ("--train-size", "64", "--validation-size", "40", "--device", "cpu", "--quiet")
    command = ("search", "--enqueue", "best", "--trials", "1", "--epochs", "1", *small)
    assert tell(*command).code == 0, "a path that exists is no name"
    shutil.rmtree("best")
    assert bn.open_study().settings.config.enqueue == ("best",)
    assert tell("leaderboard").code == 0
    refused = tell(*command)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert refused.err.startswith("error: --enqueue = 'best': names a run of the most recent study")


def test_finalists_without_weights_are_ranked(study: bn.Study, tell: RunCommand) -> None:
    expected, ranked = tell("leaderboard").out, study.finals()
    for record in ranked[0].records:
        (record.folder / "best.safetensors").unlink()
    told = tell("leaderboard")
    assert (told.code, told.out, told.err) == (0, expected, "")
    assert bn.open_study("mine").finals() == ranked
    assert "contains no weights: best.safetensors is missing" in tell("evaluate", "best").err


def test_names_are_looked_for_in_the_folder_that_a_leaderboard_is_of(
    study: bn.Study, tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = next(trial for trial in study.trials() if trial.trained)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    out, url = tmp_path / "runs", f"sqlite:///{tmp_path / 'runs' / 'studies.db'}"
    for name in (trial.name, f"mine{trial.name}"):
        for options in (["--out", str(out)], ["--out", str(out), "--storage", url]):
            (row,) = json.loads(tell("leaderboard", name, *options, "--json").out)["rows"]
            assert row["run"] == trial.run
        assert [row.run for row in bn.leaderboard(name, out=out)] == [trial.run]
    assert tell("leaderboard", trial.name).code == 2
    footer = " ".join(tell("trials", "--out", str(out)).out.split())
    assert footer.endswith(f"; {out}/mine#N is accepted as a run")
    assert tell("evaluate", f"{out}/mine{trial.name}", "--device", "cpu").code == 0
