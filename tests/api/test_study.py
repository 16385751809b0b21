"""`budgetnet.Study` compared with Optuna on the same storage and with the run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from html_support import read
from optuna.trial import TrialState
from optuna_dashboard._note import get_note_from_system_attrs
from search_support import Watcher
from support import TINY, TINY_SPACE, tiny_recipe

from budgetnet import Study, ablate, open_study, search, train
from budgetnet.common.errors import InputError, OverBudgetError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.space import SearchSpace
from budgetnet.training.callbacks import Callback, RunInfo
from budgetnet.training.progress import Verbosity

OPTIONS: dict[str, Any] = {
    "space": SearchSpace(**TINY_SPACE),
    "sizing": "reject",
    "sampler": "tpe",
    "pruner": "none",
    "recipe": tiny_recipe(epochs=2),
    "study": "mine",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def study(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("runs")
    return search(data=digits, max_params=20_000, trials=4, enqueue=[TINY], out=out, **OPTIONS)


def kept(study: Study) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{study.out.resolve() / 'studies.db'}"
    return optuna.load_study(study_name=study.name, storage=storage).get_trials()


def test_the_frame_holds_every_trial(study: Study) -> None:
    frame, trials = study.frame(), kept(study)
    assert list(frame.index) == [trial.number for trial in trials]
    assert list(frame["params"]) == [trial.user_attrs["params"] for trial in trials]
    complete = frame[frame["outcome"] == "complete"]
    assert list(complete["accuracy"]) == [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    assert (frame["outcome"] == "over budget").sum() == sum(trial.user_attrs["params"] > 20_000 for trial in trials)
    drawn = {name for trial in trials for name in trial.params}
    assert {name.removeprefix("sampled.") for name in frame.columns if name.startswith("sampled.")} == drawn
    assert study.count_outcomes()["trained"] == 4


def test_the_best_has_the_highest_accuracy_and_its_network_says_what_was_recorded(
    study: Study, digits: DataSet
) -> None:
    best = study.best()
    complete = [trial for trial in kept(study) if trial.state == TrialState.COMPLETE]
    assert best.trial.accuracy == max(float(trial.value or 0) for trial in complete)
    network = best.load()
    assert not network.training
    data = TrainingData.prepare(digits, best.recipe, device=torch.device("cpu"))
    pixels = data.validation.images.float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.record.mean, data.record.std))
    with torch.no_grad():
        answers = network((pixels - mean) / std).argmax(dim=1)
    assert int((answers == data.validation.labels).sum()) == best.trial.correct
    assert len(answers) == best.trial.images
    assert sum(weights.numel() for weights in best.build().parameters()) == best.trial.params
    assert best.spec.params == best.trial.params
    assert best.folder.name == best.trial.run


def test_the_leaderboard_is_the_ranking_of_the_candidates(study: Study) -> None:
    board = study.leaderboard()
    assert list(board) == rank(candidates(study.trials()), comparable=False, among=4)
    frame = board.frame()
    assert list(frame["name"]) == [row.name for row in board]
    assert list(frame["rank"]) == list(range(1, len(board) + 1)), "nothing published on other images than CIFAR-10"


def test_the_front_and_each_candidate_can_be_reached(study: Study) -> None:
    front = study.front()
    costs = [each.trial.params for each in front]
    assert costs == sorted(costs)
    assert front[-1].trial == study.best().trial
    assert [each.trial for each in study] == [study[f"#{each.trial.number}"].trial for each in study]
    assert study[0].spec == TINY.replace(num_classes=10)


@pytest.mark.parametrize("name", ["front", "macs", "budget", "rungs", "importance", "curves"])
def test_figures_are_drawn_by_name(study: Study, name: str) -> None:
    assert name in study.figures
    assert study.figure(name).layout.meta["alt"]


def test_use_of_a_budget_without_limits_is_no_figure(digits: DataSet, tmp_path: Path) -> None:
    unlimited = search(data=digits, max_params="unlimited", trials=1, enqueue=[TINY], out=tmp_path, **OPTIONS)
    with pytest.raises(InputError, match="figure = 'budget': must be one of front, macs"):
        unlimited.figure("budget")


def test_missing_trials_and_figures_are_rejected(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="figure = 'pie': must be one of front, macs"):
        study.figure("pie")
    with pytest.raises(InputError, match="trial = 99: must be a trial of study mine"):
        study[99]
    over = next(trial for trial in study.trials() if trial.outcome == "over budget")
    with pytest.raises(InputError, match="must be fully trained, but is over budget"):
        study[over.number]
    with pytest.raises(RecordError, match="the storage has no study"):
        open_study(out=tmp_path)


def test_a_study_is_opened_again_and_shows_itself(study: Study) -> None:
    again = open_study("mine", out=study.out)
    assert again.trials() == study.trials()
    shown = read(again._repr_html_())
    assert "study mine" in shown.text
    assert "at most 20,000 params" in shown.text
    assert study.best().trial.name in shown.cells
    assert "4 trained" in repr(again)
    candidate = read(study.best()._repr_html_())
    assert f"{100 * (study.best().trial.accuracy or 0):.1f} [" in candidate.text
    assert "script" not in {*shown.tags, *candidate.tags}
    board = study.leaderboard()
    cells = read(board._repr_html_()).cells
    assert f"gap to {board[0].compared_with}" in cells
    assert "published" not in cells


def test_a_search_leaves_notes_for_the_dashboard(study: Study) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{study.out.resolve() / 'studies.db'}")
    identity = storage.get_study_id_from_name(study.name)
    attributes = storage.get_study_system_attrs(identity)
    for trial in kept(study):
        assert get_note_from_system_attrs(attributes, trial._trial_id)["body"].startswith(f"### #{trial.number} ")


def test_same_call_resumes_and_calls_callbacks(study: Study, digits: DataSet) -> None:
    watcher = Watcher()
    again = search(data=digits, max_params="20k", trials=5, out=study.out, callbacks=[watcher], **OPTIONS)
    assert len(watcher.results) == 1
    assert again.count_outcomes()["trained"] == 5


def test_infeasible_budget_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OverBudgetError):
        search(max_params=10, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"trials": 0}, "trials = 0: must be"),
        ({"trials": -1}, "trials = -1: must be"),
        ({"finalists": 1, "final_seeds": 0}, "final_seeds = 0: must be"),
        ({"finalists": 1, "final_recipe": "as-run"}, "final_recipe = "),
        ({"workers": 0}, "workers = 0: must be"),
        ({"callbacks": [3]}, "callbacks = 3: must be instances"),
        ({"callbacks": [Watcher]}, "must be instances of budgetnet.Callback"),
    ],
)
def test_invalid_call_writes_nothing(arguments: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rule):
        search(max_params="30k", out=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_finalists_are_trained_in_full(digits: DataSet, tmp_path: Path) -> None:
    study = search(
        data=digits,
        max_params=20_000,
        trials=2,
        space=SearchSpace(**TINY_SPACE),
        recipe=tiny_recipe(epochs=1),
        finalists=1,
        final_seeds=2,
        final_recipe=tiny_recipe(epochs=1),
        out=tmp_path,
        device="cpu",
    )
    (final,) = study.finals()
    assert len(final.test) == 2
    assert open_study(out=tmp_path).finals() == [final]


SPLIT_OF_SEARCH = "final_recipe: finalists are trained on the search's split"


@pytest.mark.parametrize(
    ("split", "notice"),
    [
        ({}, []),
        (
            {"validation_fraction": 0.25, "split_seed": 3},
            [f"{SPLIT_OF_SEARCH}, validation_fraction 0.2 in place of 0.25 and split_seed 0 in place of 3"],
        ),
        ({"split_seed": 3}, [f"{SPLIT_OF_SEARCH}, split_seed 0 in place of 3"]),
    ],
)
@pytest.mark.parametrize("finalists", [0, 1])
def test_a_final_recipe_with_another_split_is_told_before_the_search(
    digits: DataSet,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    split: dict[str, Any],
    notice: list[str],
    finalists: int,
) -> None:
    told: list[list[str]] = []

    class Listener(Callback):
        """Keeps what was told when the first run starts, and ends the search."""

        def on_run_start(self, run: RunInfo, *, worker: int) -> None:
            del run, worker
            told.append(caplog.messages)
            raise KeyboardInterrupt

    verbosities: list[Verbosity] = ["normal", "quiet"]
    for verbosity in verbosities:
        caplog.clear()
        with pytest.raises(KeyboardInterrupt):
            search(
                data=digits,
                max_params=20_000,
                trials=1,
                space=SearchSpace(**TINY_SPACE),
                recipe=tiny_recipe(epochs=1),
                finalists=finalists,
                final_recipe=tiny_recipe(epochs=1, **split),
                out=tmp_path,
                device="cpu",
                callbacks=[Listener()],
                verbosity=verbosity,
            )
    assert told == [notice if finalists else [], []]


@pytest.mark.parametrize("field", ["train_size", "validation_size"])
@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_sizes_that_are_no_numbers_of_images_are_refused(tmp_path: Path, field: str, size: Any) -> None:
    fields: dict[str, Any] = {"out": tmp_path / "runs", field: size}
    message = f"^{field} = {size}: must be a whole number of at least 1"
    with pytest.raises(InputError, match=message):
        search(max_params="20k", **fields)
    with pytest.raises(InputError, match=message):
        train(TINY, **fields)
    with pytest.raises(InputError, match=message):
        ablate(tmp_path / "study.yaml", **fields)
    assert not (tmp_path / "runs").exists()
