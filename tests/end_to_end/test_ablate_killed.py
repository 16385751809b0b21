"""An ablation and a reproduction that are killed again and again come to what they would have come to in one go."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from search_support import reached
from support import TINY, finished, start, tiny_recipe, wait_for

from budgetnet.data import read_openings
from budgetnet.runs.store import TEST_OPENINGS_FILE

SMALL = ["--train-size", "500", "--validation-size", "40", "--device", "cpu", "--data", "digits", "--json"]
DONE_AT_KILLS = (0, 1, 2)
"""Runs that are done, at the least, when each kill comes."""


def lay_out(folder: Path) -> None:
    folder.mkdir()
    TINY.save(folder / "spec.yaml")
    tiny_recipe(epochs=30).save(folder / "recipe.yaml")
    study = {
        "name": "tiny",
        "spec": "spec.yaml",
        "recipe": "recipe.yaml",
        "factors": {"recipe.learning_rate": [0.05, 0.01]},
        "seeds": 2,
        "judged_on": "test",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    del study["spec"], study["factors"]
    study |= {
        "networks": {"basic": "spec.yaml", "preact": TINY.replace(block="preact").to_mapping()},
        "options": {"slow": {"recipe.learning_rate": 0.01}},
        "seeds": 1,
    }
    (folder / "networks.yaml").write_text(yaml.safe_dump(study))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ablate", "study.yaml"], id="ablate"),
        pytest.param(["reproduce", "leakage", "--spec", "spec.yaml", "--epochs", "2", "--seeds", "2"], id="reproduce"),
    ],
)
def test_two_workers_come_to_the_same_as_one_process(tmp_path: Path, command: list[str]) -> None:
    answers, runs = [], []
    for workers in ("1", "2"):
        lay_out(tmp_path / workers)
        tiny_recipe(epochs=2).save(tmp_path / workers / "recipe.yaml")
        done = finished(*command, *SMALL, "--workers", workers, cwd=tmp_path / workers)
        assert (done.returncode, done.stderr) == (0, "")
        answers.append(json.loads(done.stdout))
        runs.append(reached(tmp_path / workers / "runs"))
    assert answers[0] == answers[1]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 4


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ablate", "study.yaml"], id="ablate"),
        pytest.param(["ablate", "networks.yaml"], id="networks", marks=pytest.mark.slow),
        pytest.param(
            ["reproduce", "leakage", "--spec", "spec.yaml", "--epochs", "30", "--seeds", "2"],
            id="reproduce",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path, command: list[str]) -> None:
    for name in ("whole", "killed"):
        lay_out(tmp_path / name)
    whole = finished(*command, *SMALL, cwd=tmp_path / "whole")
    assert (whole.returncode, whole.stderr) == (0, "")
    folder, chance = tmp_path / "killed", random.Random(5)
    runs = folder / "runs"
    done: dict[Path, int] = {}
    for least in DONE_AT_KILLS:
        process = start(*command, *SMALL, cwd=folder)
        before = sum(map(len, map(Path.read_text, runs.glob("*/curves.csv"))))

        def in_training(before: int = before, least: int = least) -> bool:
            trained = sum(map(len, map(Path.read_text, runs.glob("*/curves.csv")))) > before
            return trained and len(list(runs.glob("*/result.json"))) >= least

        wait_for(in_training, process=process)
        time.sleep(chance.uniform(0, 0.3))  # An instant like any other.
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for result in runs.glob("*/result.json"):
            assert done.setdefault(result, result.stat().st_mtime_ns) == result.stat().st_mtime_ns
    assert 0 < len(done) < 4, "the case needs runs that were done and runs that were not"
    again = finished(*command, *SMALL, cwd=folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == json.loads(whole.stdout)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not trained again"
    assert len(list(runs.glob("*/result.json"))) == 4
    assert len(read_openings(runs / TEST_OPENINGS_FILE)) == 1, "the test set is opened when all stand"
