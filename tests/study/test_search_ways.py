"""Every sampler, pruner and sizing in real searches: what they learn, whom they end, and that they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState
from search_support import MAX_PARAMS, SearchRunner, Watcher, opened_store, optuna_study
from support import PAIR_SPACE, TINY, TINY_SPACE, prepare, restarts, tiny_recipe

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.runs.records import RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings
from budgetnet.study.proposer import Proposals
from budgetnet.study.pruner import make_pruner
from budgetnet.study.reading import read_trials
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import study_settings
from budgetnet.study.trial_store import Candidate, TrialStore
from budgetnet.study.trials import count_outcomes
from budgetnet.training.trainer import train
from budgetnet.visualization.dashboard.candidates import Candidates

CYCLES = tiny_recipe(epochs=12, schedule=restarts(4, cycle_factor=2))
BY_RATE = {
    **PAIR_SPACE,
    "recipe": {"learning_rate": {"low": 0.01, "high": 0.3, "log": True}},
}


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


@pytest.mark.parametrize("sampler", ["surrogate", "tpe", "gp", "nsga2", "random"])
@pytest.mark.parametrize("sizing", ["fit", "scale", "reject"])
def test_every_sampler_and_sizing_resumes_a_study(run_search: SearchRunner, sampler: str, sizing: str) -> None:
    ways = {"sampler": sampler, "sizing": sizing, "pruner": "none"}
    first = run_search(trials=2, ways=ways).study.get_trials()
    outcome = run_search(trials=4, ways=ways)
    trials = outcome.study.get_trials()
    assert outcome.trained == 4
    assert trials[: len(first)] == first
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert all(trial.user_attrs["params"] <= MAX_PARAMS for trial in complete)
    if sizing != "reject":
        assert len(trials) == len(complete), "nothing is ever turned away"
    if sizing == "scale":
        assert len({trial.params["budget_share"] for trial in trials}) == len(trials)


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_candidates_end_at_rungs_and_nowhere_else(run_search: SearchRunner, pruner: str) -> None:
    outcome = run_search(trials=10, recipe=CYCLES, space=BY_RATE, ways={"sampler": "random", "pruner": pruner})
    trials = outcome.study.get_trials()
    stopped = [trial for trial in trials if trial.user_attrs["status"] == "stopped"]
    assert 0 < len(stopped) < 10
    for trial in trials:
        record = RunFolder(run_search.out / trial.user_attrs["run"]).load()
        assert (record.result.status, record.result.epochs) == (trial.user_attrs["status"], trial.user_attrs["epochs"])
        ended = [epoch for epoch in record.curves if epoch.epoch in (4, 12)]
        assert trial.intermediate_values == {epoch.epoch: epoch.validation_accuracy for epoch in ended}
        if trial in stopped:
            assert (trial.state, trial.user_attrs["cycles"]) == (TrialState.PRUNED, 1)
            assert trial.last_step == 4
            assert trial.user_attrs["ended"] == "pruned after cycle 1 of 2: others were better there"
            assert not RunFolder(record.folder).checkpoint.exists()
        else:
            assert (trial.state, record.result.epochs) == (TrialState.COMPLETE, 12)
    assert count_outcomes(read_trials(outcome.study)) == {
        "trained": 10,
        "pruned": len(stopped),
        "over_budget": 0,
        "duplicate": 0,
        "no_result": 0,
        "running": 0,
        "interrupted": 0,
        "skipped": 0,
    }
    best = max(trial.intermediate_values[4] for trial in trials)
    assert best not in {trial.intermediate_values[4] for trial in stopped}, "nobody better ends"


def test_nobody_ends_early_without_a_pruner(run_search: SearchRunner) -> None:
    outcome = run_search(trials=6, recipe=CYCLES, space=BY_RATE, ways={"sampler": "random", "pruner": "none"})
    assert {trial.user_attrs["epochs"] for trial in outcome.study.get_trials()} == {12}


def test_what_another_study_stopped_is_trained_to_its_end_here(run_search: SearchRunner) -> None:
    ways = {"sampler": "random", "pruner": "asha"}
    pruned = run_search(trials=10, recipe=CYCLES, space=BY_RATE, ways=ways, name="pruned").study.get_trials()
    stopped = [trial for trial in pruned if trial.user_attrs["status"] == "stopped"]
    whole = run_search(
        trials=10, recipe=CYCLES, space=BY_RATE, ways={**ways, "pruner": "none"}, name="whole"
    ).study.get_trials()
    assert [trial.params for trial in whole] == [trial.params for trial in pruned]
    assert [trial.user_attrs["run"] for trial in whole] == [trial.user_attrs["run"] for trial in pruned]
    assert {trial.state for trial in whole} == {TrialState.COMPLETE}
    for trial in whole:
        assert list(trial.intermediate_values) == [4, 12], "also where the run was answered from its record"
    assert stopped


def test_a_stopped_run_is_trained_anew_where_nobody_stops_it(run_search: SearchRunner, digits: DataSet) -> None:
    outcome = run_search(trials=10, recipe=CYCLES, space=BY_RATE, ways={"sampler": "random", "pruner": "asha"})
    stopped = next(trial for trial in outcome.study.get_trials() if trial.user_attrs["status"] == "stopped")
    identity = RunFolder(run_search.out / stopped.user_attrs["run"]).load().identity
    data = prepare(digits, CYCLES)
    pruned = RunFolder(run_search.out / stopped.user_attrs["run"]).load()
    record = train(identity.spec, data, identity.recipe, seed=identity.seed, out=run_search.out)
    assert record.folder.name == stopped.user_attrs["run"]
    kept = RunFolder(record.folder).pruned_after(4).load(weights=False)
    assert (kept.identity, kept.result, kept.curves) == pruned[1:4], "the evidence of the search stays"
    noted = Candidates(outcome.study, study_settings(outcome.study), run_search.out)
    (trial,) = [trial for trial in noted.trials if trial.number == stopped.number]
    assert noted.read(trial).record == kept
    assert (record.result.status, record.result.epochs) == ("complete", 12)
    assert record.curves[3].validation_accuracy == stopped.intermediate_values[4]


@pytest.mark.parametrize(
    ("sampler", "state", "value"), [("gp", TrialState.COMPLETE, 0.25), ("tpe", TrialState.PRUNED, None)]
)
def test_a_sampler_learns_from_what_was_pruned_in_the_way_it_can(
    run_search: SearchRunner, sampler: str, state: TrialState, value: float | None
) -> None:
    ways = {"sampler": sampler, "pruner": "asha", "sizing": "fit"}
    study = run_search(trials=1, recipe=CYCLES, space=BY_RATE, ways=ways).study
    data = prepare(run_search.digits, CYCLES)
    asked: dict[str, Any] = {"space": SearchSpace(**BY_RATE), **ways}
    settings = make_settings(data, SearchConfig(recipe=CYCLES, max_params=MAX_PARAMS, **asked))
    with opened_store(study, run_search.out) as store:
        proposals = Proposals(store, settings, data)
        proposal = proposals.next()
        trial = store.begin(proposal.candidate, run="r", seed=0)
        proposals.stored(proposal, trial)
        store.report(trial, value=0.25, step=4)
        store.finish(trial, value=None, facts={"trained": True, "ended": "pruned", "status": "stopped"})
        proposals.next()
    mirrored = optuna_study(proposals).get_trials()
    assert [trial.state for trial in mirrored] == [TrialState.COMPLETE, state, TrialState.RUNNING]
    assert mirrored[1].intermediate_values == {4: 0.25}
    assert mirrored[1].values == (None if value is None else [value])


def test_a_resumed_candidate_is_compared_again_and_counts_once(run_search: SearchRunner) -> None:
    ways = {"sampler": "random", "pruner": "asha"}
    study = run_search(trials=1, recipe=CYCLES, space=BY_RATE, ways=ways).study
    (first,) = study.get_trials()
    data = prepare(run_search.digits, CYCLES)
    asked: dict[str, Any] = {"space": SearchSpace(**BY_RATE), "max_params": MAX_PARAMS, **ways}
    settings = make_settings(data, SearchConfig(recipe=CYCLES, **asked))
    with opened_store(study, run_search.out, pruner=make_pruner("asha", CYCLES)) as store:
        proposals = Proposals(store, settings, data)

        def begin() -> FrozenTrial:
            proposal = proposals.next()
            trial = store.begin(proposal.candidate, run="r", seed=0)
            proposals.stored(proposal, trial)
            return trial

        reached = first.intermediate_values[4]
        interrupted = begin()
        assert store.report(interrupted, value=reached - 0.1, step=4), "the second of two"
        store.interrupt(interrupted)
        resumed = begin()
        assert store.reported_before(resumed) == (4,)
        assert store.report(resumed, value=reached - 0.1, step=4), "also after it was resumed"
        store.finish(resumed, value=None, facts={"trained": True, "ended": "pruned", "status": "stopped"})
        assert store.report(begin(), value=reached - 0.05, step=4), "the second of three, not of four"
        store.flush()
    assert study.get_trials()[resumed.number].user_attrs["retry_of"] == interrupted.number


def test_median_pruner_decides_as_optunas_on_the_stored_study_with_duplicates(run_search: SearchRunner) -> None:
    ways = {"sampler": "random", "pruner": "median"}
    recipe = tiny_recipe(epochs=2, schedule=restarts(1))
    study = run_search(trials=1, recipe=recipe, space=BY_RATE, ways=ways).study
    first = study.get_trials()[0].intermediate_values[1]
    oracle = MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    settings, data = study_settings(study), prepare(run_search.digits, recipe)
    decisions = []
    for resumed in (False, True):
        with opened_store(study, run_search.out, pruner=make_pruner("median", recipe)) as store:
            proposals = Proposals(store, settings, data)
            for difference in () if resumed else (-0.2, -0.1, 0.1, 0.2):
                candidate = proposals.next().candidate
                trial = store.begin(candidate, run="r", seed=0)
                store.report(trial, value=first + difference, step=1)
                store.finish(trial, value=first + difference, facts={"trained": True, "status": "complete"})
                if difference > 0:
                    store.duplicate(candidate)
            # Worse than the median only with the duplicates, which are of the better half.
            late = store.begin(proposals.next().candidate, run="r", seed=0)
            decisions.append(store.report(late, value=first + 0.05, step=1))
            store.flush()
            assert decisions[-1] == oracle.prune(study, study.get_trials()[late.number])
            store.interrupt(late)
    assert decisions == [True, True]


def test_enqueued_networks_are_trained_first_and_once(run_search: SearchRunner) -> None:
    mine = TINY.replace(name="mine")
    other = TINY.replace(channels=[16], name="other")
    watcher = Watcher()
    outcome = run_search(trials=3, enqueued=(mine, other, mine), watcher=watcher)
    trials = [trial for trial in outcome.study.get_trials() if trial.user_attrs.get("trained")]
    assert [trial.user_attrs["architecture"] for trial in trials[:2]] == ["mine", "other"]
    assert ["enqueued" in trial.user_attrs for trial in trials] == [True, True, False]
    assert [trial.params for trial in trials[:2]] == [{}, {}]
    again = run_search(trials=5, enqueued=(mine, other), watcher=watcher)
    assert sum("enqueued" in trial.user_attrs for trial in again.study.get_trials()) == 2
    for trial in trials[:2]:
        record = RunFolder(run_search.out / trial.user_attrs["run"]).load()
        assert record.identity.spec.digest == trial.user_attrs["spec"]


def test_interrupted_enqueued_network_resumes(run_search: SearchRunner) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=2, enqueued=(TINY,), watcher=Watcher(stop_at=1), recipe=tiny_recipe(epochs=2))
    outcome = run_search(trials=2, recipe=tiny_recipe(epochs=2))
    retry = next(trial for trial in outcome.study.get_trials() if trial.user_attrs.get("retry_of") == 0)
    assert retry.user_attrs["trained"]
    assert retry.user_attrs["enqueued"] == outcome.study.get_trials()[0].user_attrs["enqueued"]


def test_when_the_time_is_up_the_candidate_in_training_waits(run_search: SearchRunner) -> None:
    class Clock(Watcher):
        """Lets the time run out within the second candidate."""

        now = 0.0

        def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
            self.now = 100.0 if len(self.networks) == 2 else 0.0

    watcher = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("budgetnet.study.driver.time.time", lambda: watcher.now)
        outcome = run_search(trials=4, watcher=watcher, deadline=50.0)
        assert (outcome.end, outcome.trained) == ("time", 1)
        assert run_search(trials=4, watcher=watcher, deadline=50.0).end == "time", "which is up before anything begins"
    ended = [trial.user_attrs.get("ended") for trial in outcome.study.get_trials() if "run" in trial.user_attrs]
    assert ended == ["its only epoch", "interrupted"]
    outcome = run_search(trials=4, deadline=None)
    assert (outcome.end, outcome.trained) == ("done", 4)
    assert not [trial for trial in outcome.study.get_trials() if trial.state == TrialState.RUNNING]


def test_time_that_is_up_once_the_last_candidate_is_trained_does_not_matter(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(Watcher):
        """Lets the time run out at the end of the second run."""

        now = 0.0

        def on_run_end(self, result: RunResult, *, worker: int) -> None:
            super().on_run_end(result, worker=worker)
            self.now = 100.0 if len(self.results) == 2 else 0.0

    watcher = Clock()
    monkeypatch.setattr("budgetnet.study.driver.time.time", lambda: watcher.now)
    outcome = run_search(trials=2, watcher=watcher, deadline=50.0)
    assert (outcome.end, outcome.trained) == ("done", 2)


def test_time_that_is_up_before_the_first_step_leaves_nothing_running(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def begin_late(self: TrialStore, candidate: Candidate, **options: Any) -> FrozenTrial:
        clock[0] = 100.0
        return begin(self, candidate, **options)

    begin = TrialStore.begin
    monkeypatch.setattr(TrialStore, "begin", begin_late)
    monkeypatch.setattr("budgetnet.study.driver.time.time", lambda: clock[0])
    outcome = run_search(trials=1, max_params=None, deadline=50.0)
    (trial,) = outcome.study.get_trials()
    assert (outcome.end, trial.state, trial.user_attrs["ended"]) == ("time", TrialState.FAIL, "interrupted")


def test_widths_are_not_fitted_without_a_limit(run_search: SearchRunner) -> None:
    with pytest.raises(InputError, match="sizing = 'fit': needs a limit"):
        run_search(trials=1, max_params=None, ways={"sizing": "fit"})


def test_a_study_asked_in_another_way_is_another_study(run_search: SearchRunner, digits: DataSet) -> None:
    recipe = tiny_recipe()
    data = prepare(digits, recipe)
    config = SearchConfig(recipe=recipe, max_params="1M", space=SearchSpace(**TINY_SPACE))
    plain = make_settings(data, config)
    changes: list[dict[str, Any]] = [{"sizing": "scale"}, {"sampler": "gp"}, {"pruner": "none"}]
    for change in changes:
        other = make_settings(data, config.replace(**change))
        assert other.digest != plain.digest
        ((field, value),) = change.items()
        assert plain.differences(other) == [f"{field} {getattr(config, field)}, not {value}"]
