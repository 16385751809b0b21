"""Parsing of timeouts, and networks enqueued in a search."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import PAIR_SPACE, RunCommand, tiny_recipe, write_space

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
