"""Parsing of timeouts, networks enqueued in a search, and completion in a shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_support import WrittenStudy
from support import PAIR_SPACE, RunCommand, finished, tiny_recipe, write_space

from budgetnet.common.documents import parse_duration
from budgetnet.common.errors import InputError
from budgetnet.model.zoo import ENTRIES, get
from budgetnet.study.storage import default_storage, find_study, open_storage


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 H ", 7200), ("1d", 86_400)]
)
def test_timeout_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text, field="timeout") == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "5x", "1e3", "inf", "nan", "-1", "1m30s", "9" * 400])
def test_invalid_timeout_is_rejected(text: str) -> None:
    with pytest.raises(InputError, match="timeout"):
        parse_duration(text, field="timeout")


def test_enqueue_zoo_enqueues_all_networks_that_fit(
    tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_space(tmp_path / "space.yaml", PAIR_SPACE)
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    options = ["--space", "space.yaml", "--recipe", "recipe.yaml", "--train-size", "64", "--validation-size", "40"]
    answer = tell("search", "--max-params", "900k", "--enqueue", "zoo", "--trials", "2", "--device", "cpu", *options)
    assert (answer.code, answer.err) == (0, "")
    trials = find_study(open_storage(default_storage(Path("runs")), create=False), None).get_trials()
    names = [trial.user_attrs["architecture"] for trial in trials]
    # Grey images and as many classes change few parameters.
    assert names == [name for name in ENTRIES if get(name).params <= 900_000] == ["resnet20", "resnet56"]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("trials ", ["cats", "dogs"]),
        ("report ", ["cats", "dogs"]),
        ("dashboard d", ["dogs"]),
        ("leaderboard ", ["cats", "dogs", "best"]),
        ("space ", ["resnet", "paper", "mobile", "regnet"]),
    ],
)
def test_names_of_studies_and_spaces_are_completed_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, completed: list[str]
) -> None:
    for name in ("cats", "dogs"):
        WrittenStudy(tmp_path / "runs", name=name)
    monkeypatch.setenv("_BUDGETNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"budgetnet {words}")
    monkeypatch.setenv("COMP_CWORD", "2")
    done = finished(cwd=tmp_path, fresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == completed
