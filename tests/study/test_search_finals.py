"""Finals: choice, training and test evaluation of finalists, against plain arithmetic and torch."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from search_support import Watcher, reached
from statsmodels.stats.proportion import proportion_confint
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import BudgetnetError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.test_set import read_openings
from budgetnet.engines.choice import EngineChoice
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import Plan, SearchContext, make_settings
from budgetnet.study.driver import SearchOutcome, search
from budgetnet.study.finalists import (
    FinalResult,
    Finals,
    best_record,
    final_gaps,
    load_finals,
    read_results,
    readable_results,
)
from budgetnet.study.finals import choose_finalists, run_finals
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.reading import read_trials
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.study.winner import Winner, winner

SPACE = {
    "stages": [1, 2],
    "blocks": [1, 2],
    "full_size_stages": [1, 1],
    "first_kernel_sizes": [3],
    "recipe": {"learning_rate": {"low": 0.02, "high": 0.1, "log": True}},
}


class Case:
    """A small study that has come to its end."""

    def __init__(self, digits: DataSet, out: Path, **plan: Any) -> None:
        recipe = tiny_recipe(epochs=2)
        data = prepare(digits, recipe)
        settings = make_settings(
            data, SearchConfig(recipe=recipe, max_params=4_000, seed=5, space=SearchSpace(**SPACE))
        )
        storage = open_storage(default_storage(out), create=True)
        self.digits, self.out = digits, out
        self.context = SearchContext(settings, data, "study", storage, out)
        self.outcome: SearchOutcome = search(self.context, Plan(4, **plan), Watcher())

    def hold(
        self,
        *,
        number: int = 2,
        seeds: int = 2,
        name: str = "study",
        workers: int = 1,
        watcher: Watcher | None = None,
        store: Path | None = None,
    ) -> list[FinalResult]:
        recipe = tiny_recipe(epochs=3, label_smoothing=0.1)
        engine = EngineChoice("local", workers, store=None if store is None else str(store))
        context = self.context._replace(study_name=name, engine_choice=engine)
        options: dict[str, Any] = {"number": number, "seeds": seeds, "recipe": recipe}
        return run_finals(self.outcome.study, context, self.digits, watcher or Sealed(self.out), **options)


class Sealed(Watcher):
    """Callback that requires the test set to be sealed while anything trains."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._log = out / TEST_OPENINGS_FILE

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        super().on_epoch_end(epoch, worker=worker)
        assert not read_openings(self._log)


@pytest.fixture
def case(digits: DataSet, tmp_path: Path) -> Case:
    return Case(digits, tmp_path)


def plain_test_accuracy(case: Case, run: str) -> float:
    """The share of test images that a run's weights classify rightly, worked out with nothing but torch and numpy."""
    from safetensors.torch import load_file

    folder = case.out / run
    network = RunFolder(folder).load().identity.spec.build().eval()
    network.load_state_dict(load_file(folder / "best.safetensors"))
    digits = case.digits
    images, labels = digits.test.open(reason="an oracle", by="a test", log=case.out / "oracle.jsonl")
    scaled = (images / 255 - np.reshape(digits.mean, (-1, 1, 1))) / np.reshape(digits.std, (-1, 1, 1))
    with torch.no_grad():
        guesses = network(torch.tensor(scaled, dtype=torch.float32)).argmax(dim=1).numpy()
    return float((guesses == labels).mean())


def test_finalists_are_trained_with_all_seeds_and_ranked_by_mean(case: Case) -> None:
    results = case.hold()
    complete = [trial for trial in case.outcome.study.get_trials() if trial.value is not None]
    best = sorted(complete, key=lambda trial: (-(trial.value or 0), trial.user_attrs["params"], trial.number))[:2]
    assert {result.finalist.name for result in results} == {f"#{trial.number}" for trial in best}
    assert [fmean(result.validation) for result in results] == sorted(
        (fmean(result.validation) for result in results), reverse=True
    )
    for result in results:
        trial = case.outcome.study.get_trials()[result.finalist.trial]
        assert [record.identity.seed for record in result.records] == [5, 6]
        for record in result.records:
            assert record.identity.spec.digest == trial.user_attrs["spec"]
            recipe = record.identity.recipe
            assert (recipe.epochs, recipe.label_smoothing, record.result.epochs) == (3, 0.1, 3)
            assert recipe.learning_rate == trial.params["recipe.learning_rate"], "what the search chose for it"


def test_test_set_is_opened_once_per_finalist_after_training(case: Case) -> None:
    results = case.hold()
    openings = read_openings(case.out / TEST_OPENINGS_FILE)
    assert [opening["by"] for opening in openings] == [result.finalist.name for result in results]
    assert "finalist 1 of 2 of study study, trained with seeds 5, 6" in openings[0]["reason"]
    for result in results:
        assert result.test == [plain_test_accuracy(case, run) for run in result.finalist.runs]
        for record in result.records:
            assert record.test is not None
            assert (record.test.images, record.test.reason) == (360, openings[results.index(result)]["reason"])


def test_repeated_finals_train_and_open_nothing(case: Case) -> None:
    first, watcher = case.hold(), Watcher()
    openings = (case.out / TEST_OPENINGS_FILE).read_bytes()
    assert case.hold(watcher=watcher) == first
    assert (watcher.networks, (case.out / TEST_OPENINGS_FILE).read_bytes()) == ([], openings)
    kept = load_finals(case.outcome.study)
    assert kept is not None
    assert read_results(kept, case.out) == first
    assert Finals.from_mapping(json.loads(json.dumps(kept.to_mapping()))) == kept


@pytest.mark.slow
def test_finals_with_two_workers_give_the_records_of_one_process(digits: DataSet, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        case = Case(digits, tmp_path / str(workers))
        results = case.hold(workers=workers)
        found.append(([(result.finalist, result.validation, result.test) for result in results], reached(case.out)))
    assert found[0] == found[1]
    assert len(found[0][1]) == 4 + 4


def test_existing_test_results_are_kept(case: Case) -> None:
    case.hold(seeds=1)
    results = case.hold(seeds=2, watcher=Watcher())
    reasons = [opening["reason"] for opening in read_openings(case.out / TEST_OPENINGS_FILE)]
    assert [reason.rpartition("seeds ")[2] for reason in reasons] == ["5", "5", "6", "6"]
    assert all(len(result.test) == 2 for result in results)


def test_a_reason_of_any_length_keeps_the_result(case: Case) -> None:
    for _ in range(2):
        (result,) = case.hold(number=1, seeds=1, name="long" * 200, watcher=Watcher())
    (record,) = result.records
    assert record.test is not None
    assert (len(record.test.reason), record.test.reason[:31]) == (500, "finalist 1 of 1 of study longlo")
    assert len(read_openings(case.out / TEST_OPENINGS_FILE)) == 1


def test_test_set_stays_sealed_while_a_finalist_trains(case: Case) -> None:
    finals = choose_finalists(case.outcome.study, case.context, number=2, seeds=1, recipe=tiny_recipe(epochs=3))
    busy = RunFolder(case.out / finals.finalists[1].runs[0])
    options: dict[str, Any] = {"number": 2, "seeds": 1, "recipe": tiny_recipe(epochs=3)}
    with busy.locked(), pytest.raises(BudgetnetError, match="1 trainings of finalists are incomplete"):
        run_finals(case.outcome.study, case.context, case.digits, Watcher(), **options)
    assert not read_openings(case.out / TEST_OPENINGS_FILE)


def test_best_enqueued_network_is_a_finalist(digits: DataSet, tmp_path: Path) -> None:
    case = Case(digits, tmp_path, enqueued=(TINY.replace(name="mine"),))
    results = case.hold(number=1, seeds=1)
    enqueued = [result.finalist for result in results if result.finalist.enqueued]
    assert [finalist.name for finalist in enqueued] == ["mine"]
    assert enqueued[0].recipe.digest == tiny_recipe(epochs=3, label_smoothing=0.1).digest
    assert len(results) == len({result.finalist.trial for result in results}) in (1, 2)


def test_finals_use_the_split_of_the_search(case: Case) -> None:
    recipe = tiny_recipe(epochs=3, validation_fraction=0.5, split_seed=9)
    finals = choose_finalists(case.outcome.study, case.context, number=1, seeds=1, recipe=recipe)
    (finalist,) = finals.finalists
    assert (finalist.recipe.validation_fraction, finalist.recipe.split_seed) == (0.2, 0)


def test_finalist_intervals_match_student_and_gap(case: Case) -> None:
    (result,) = case.hold(number=1, seeds=3)
    mean, spread = float(np.mean(result.test)), float(np.std(result.test, ddof=1))
    low, high = result.test_interval or (0, 0)
    # The 97.5 % point of Student's distribution with two degrees of freedom, from a printed table.
    reach = 4.302653 * spread / 3**0.5
    assert (low, high) == pytest.approx((max(0, mean - reach), min(1, mean + reach)), abs=1e-6)
    (found,) = final_gaps([result], comparable=True)
    assert found is not None
    gap, interval = found.difference, found.interval
    assert gap == pytest.approx(mean - 0.9141)
    assert found.compared_with == "published"
    # The published interval on 10,000 images is 90.84 to 91.94 %.
    expected = gap - np.hypot(mean - low, 0.9194 - 0.9141), gap + np.hypot(high - mean, 0.9141 - 0.9084)
    assert interval == pytest.approx(expected, abs=1e-4)


def test_gaps_of_several_finalists_hold_together(case: Case) -> None:
    results = case.hold(number=2, seeds=3)
    for comparable, count in ((True, 2), (False, 1)):
        gaps = final_gaps(results, comparable=comparable)
        assert [gap is not None for gap in gaps] == [comparable, True]
        confidence = 0.95 ** (1 / count)
        # The quantile of Student's distribution with two degrees of freedom in closed form.
        tail = (1 + confidence) / 2
        quantile = (2 * tail - 1) * (2 / (1 - (2 * tail - 1) ** 2)) ** 0.5
        first, second = (np.array(result.test) for result in results)
        reach = [quantile * float(np.std(each, ddof=1)) / 3**0.5 for each in (first, second)]
        gap = gaps[1]
        assert gap is not None
        if comparable:
            base = 0.9141
            base_low, base_high = proportion_confint(9_141, 10_000, alpha=1 - confidence, method="wilson")
        else:
            base = float(first.mean())
            base_low, base_high = max(0, base - reach[0]), min(1, base + reach[0])
        mean = float(second.mean())
        low, high = max(0, mean - reach[1]), min(1, mean + reach[1])
        expected = (
            mean - base - np.hypot(mean - low, base_high - base),
            mean - base + np.hypot(high - mean, base - base_low),
        )
        assert gap.difference == pytest.approx(mean - base)
        assert gap.interval == pytest.approx(expected, abs=1e-9)
        assert gap.compared_with == ("published" if comparable else results[0].finalist.name)


def test_best_record_is_the_best_seed_of_the_best_finalist_by_validation(case: Case) -> None:
    results = case.hold(number=2, seeds=3)
    record = best_record(results)
    assert record is not None
    assert record.folder.name in results[0].finalist.runs
    assert record.result.validation_accuracy == max(results[0].validation)
    assert best_record([]) is None
    assert best_record([results[0]._replace(records=())]) is None


class Interrupts(Watcher):
    """Callback that interrupts after the first run."""

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        raise KeyboardInterrupt


def test_the_best_candidate_is_the_winner_until_all_finalists_are_trained(case: Case) -> None:
    with pytest.raises(KeyboardInterrupt):
        case.hold(number=2, seeds=2, watcher=Interrupts())
    finals = load_finals(case.outcome.study)
    assert finals is not None
    assert [len(result.records) for result in read_results(finals, case.out)] == [1, 0]
    assert winning(case).finalist is None
    results = case.hold(number=2, seeds=2)
    assert winning(case).finalist == results[0]
    # A run that is damaged later was trained all the same.
    (case.out / results[1].finalist.runs[0] / "run.json").write_text("")
    assert winning(case).finalist == results[0]


def winning(case: Case) -> Winner:
    rows = rank(candidates(read_trials(case.outcome.study)), comparable=False)
    found = winner(rows, readable_results(load_finals(case.outcome.study), case.out))
    assert found is not None
    return found


def test_finalists_are_chosen_from_runs_in_the_store_of_a_cluster(case: Case, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    folders = [path for path in case.out.iterdir() if (path / "run.json").exists()]
    before = [result.finalist for result in case.hold(number=2, seeds=1)]
    for folder in folders:
        folder.rename(store / folder.name)
    with pytest.raises(RecordError, match="no such folder"):
        case.hold(number=2, seeds=1)
    assert [result.finalist for result in case.hold(number=2, seeds=1, store=store)] == before
    fetched = {case.outcome.study.get_trials()[each.trial].user_attrs["run"] for each in before}
    assert {folder.name for folder in folders if (case.out / folder.name).exists()} == fetched
