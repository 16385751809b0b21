"""Searches with several objectives, against brute force and against Optuna itself."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note
from search_support import SearchRunner, Watcher, opened_store, optuna_study
from sqlalchemy import create_engine, text
from strategies import examples
from support import PAIR_SPACE, TINY, TINY_SPACE, RunCommand, prepare, tiny_recipe

import budgetnet as bn
from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import SearchContext, make_settings
from budgetnet.study.damage import damaged_trials
from budgetnet.study.finals import choose_finalists
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.objectives import CostName, unbeaten
from budgetnet.study.proposer import Proposals
from budgetnet.study.reading import read_trials
from budgetnet.study.sampling import optuna_sampler
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.study.trials import Trial, front
from budgetnet.visualization.figures import hypervolume_rows

X = optuna.distributions.IntDistribution(0, 999)
SEVERAL: dict[str, Any] = {"objectives": "accuracy,macs", "sampler": "nsga2"}
BY_RATE = {**TINY_SPACE, "recipe": {"learning_rate": {"low": 0.01, "high": 0.3, "log": True}}}


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def loaded(run_search: SearchRunner, name: str = "study") -> optuna.Study:
    """The study as Optuna loads it, by its own storage."""
    return optuna.load_study(study_name=name, storage=run_search.storage)


def beats(one: list[float], other: list[float]) -> bool:
    """Whether values, of which all are minimised, are no worse than others, and better in one of them."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def brute_force(trials: list[FrozenTrial]) -> set[tuple[float, ...]]:
    """The values of the trials that no other beats, of accuracy, which is maximised, and costs."""
    values = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
    lost = [[-accuracy, *costs] for accuracy, *costs in values]
    return {(-one[0], *one[1:]) for one in lost if not any(beats(other, one) for other in lost)}


@examples(300)
@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[st.integers(0, 4)] * width), max_size=14)))
def test_unbeaten_points_match_brute_force(points: list[tuple[int, ...]]) -> None:
    kept = [
        place
        for place, point in enumerate(points)
        if point not in points[:place] and not any(beats(list(other), list(point)) for other in points)
    ]
    assert unbeaten(points) == kept


@pytest.mark.parametrize(
    ("sampler", "costs"),
    [("nsga2", ("macs",)), ("tpe", ("params", "activations")), ("nsga2", ("weights", "peak_memory"))],
)
def test_front_equals_brute_force_and_optunas(
    run_search: SearchRunner, sampler: str, costs: tuple[CostName, ...]
) -> None:
    ways = {"objectives": ("accuracy", *costs), "sampler": sampler}
    run_search(trials=7, space=BY_RATE, ways=ways)
    study = loaded(run_search)
    assert study.directions == [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in costs)]
    words = {"macs": "MACs", "params": "parameters", "activations": "activations"}
    words |= {"weights": "weights", "peak_memory": "peak memory"}
    assert study.metric_names == ["validation accuracy", *(words[name] for name in costs)]
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    for trial in complete:
        facts = trial.user_attrs
        share = facts["validation_correct"] / facts["validation_images"]
        assert trial.values == [share, *(facts[name] for name in costs)]
    assert all(trial.values is None for trial in study.get_trials() if trial.state != TrialState.COMPLETE)
    assert sum(bool(trial.user_attrs.get("trained")) for trial in complete) == 7
    trials = read_trials(study)
    found = front(trials, costs=costs)
    ours = {(each.accuracy, *(each.amount(name) for name in costs)) for each in found}
    assert ours == brute_force(complete) == {tuple(trial.values) for trial in study.best_trials}
    board = rank(candidates(trials, costs=costs), comparable=False)
    assert {row.name for row in board if row.on_front} == {each.name for each in found}
    assert board[0].on_front, "the most accurate one is on the front, also where another has fewer parameters"


def test_over_budget_candidates_have_constraints_and_no_values(run_search: SearchRunner) -> None:
    watcher = Watcher()
    run_search(trials=4, max_params=3_000, space=BY_RATE, ways=SEVERAL, watcher=watcher)
    rejected = [trial for trial in loaded(run_search).get_trials() if trial.user_attrs.get("ended") == "over budget"]
    assert rejected and watcher.turned >= len(rejected)
    assert {(trial.state, trial.values is None) for trial in rejected} == {(TrialState.PRUNED, True)}
    assert all(trial.constraints["params"] > 0 for trial in rejected)
    assert max(trial.params for trial in read_trials(loaded(run_search)) if trial.trained) <= 3_000


def test_duplicates_have_the_values_of_the_trained_trial(run_search: SearchRunner) -> None:
    run_search(trials=2, space=PAIR_SPACE, ways={**SEVERAL, "sampler": "random"})
    pair = loaded(run_search).get_trials()
    values = {trial.user_attrs["candidate"]: trial.values for trial in pair if trial.user_attrs.get("trained")}
    assert len(values) == 2
    assert all(trial.values == values[trial.user_attrs["candidate"]] for trial in pair)


def test_diverged_candidates_have_no_values(run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 12)
    ways = {**SEVERAL, "sampler": "tpe"}
    outcome = run_search(trials=3, space=PAIR_SPACE, recipe=tiny_recipe(learning_rate=1e30), ways=ways)
    assert (outcome.trained, outcome.end) == (2, "exhausted")
    study = loaded(run_search)
    assert {(trial.state, trial.values is None) for trial in study.get_trials()} == {(TrialState.PRUNED, True)}
    assert study.best_trials == []
    assert front(read_trials(study), costs=("macs",)) == []


def proposals_of(run_search: SearchRunner, store: Any, sampler: str) -> Proposals:
    asked: dict[str, Any] = {"space": SearchSpace(**BY_RATE), **SEVERAL, "sampler": sampler, "sizing": "reject"}
    data = prepare(run_search.digits, tiny_recipe(epochs=1))
    settings = make_settings(data, SearchConfig(recipe=tiny_recipe(epochs=1), max_params=20_000, **asked))
    return Proposals(store, settings, data)


@pytest.mark.parametrize("sampler", ["nsga2", "gp", "tpe"])
def test_no_sampler_takes_a_cheap_candidate_without_a_result_for_a_good_one(
    run_search: SearchRunner, sampler: str
) -> None:
    study = run_search(trials=3, space=BY_RATE, ways={**SEVERAL, "sampler": sampler}).study
    with opened_store(study, run_search.out, costs=("macs",)) as store:
        proposals = proposals_of(run_search, store, sampler)
        proposal = proposals.next()
        trial = store.begin(proposal.candidate, run="r", seed=0)
        trial.user_attrs["macs"] = 1
        proposals.stored(proposal, trial)
        store.report(trial, value=0.25, step=1)
        store.finish(trial, value=None, facts={"trained": True, "ended": "diverged", "status": "diverged"})
        assert trial.values is None, "Optuna has no value of a pruned trial with several objectives"
        for _ in range(3):
            proposals.dropped(proposals.next())
    memory = optuna_study(proposals)
    assert memory.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    known = [each.values for each in memory.get_trials() if each.state == TrialState.COMPLETE]
    told = {tuple(trial.values) for trial in loaded(run_search).get_trials(states=(TrialState.COMPLETE,))}
    assert told <= {tuple(each) for each in known}
    best = {tuple(trial.values) for trial in memory.best_trials}
    assert best == {tuple(trial.values) for trial in loaded(run_search).best_trials}
    assert sampler == "tpe" or [0.0, max(each[1] for each in known)] in known


def made_trial(number: int, *values: float, **how: Any) -> FrozenTrial:
    made = optuna.trial.create_trial(values=values or None, params={"x": number}, distributions={"x": X}, **how)
    made.number = number
    return made


def test_tpe_goes_on_where_trials_with_reports_have_no_result() -> None:
    trials = [made_trial(number, 0.5, 10.0 + number, user_attrs={"macs": 10 + number}) for number in range(20)]
    trials += [
        made_trial(number, state=TrialState.PRUNED, intermediate_values={1: 0.25}, user_attrs={"macs": number})
        for number in range(20, 23)
    ]
    sampler = optuna_sampler.OptunaSampler("tpe", {"x": X}, seed=0, every_trial=lambda: trials, costs=("macs",))
    sampler.update(trials, [])
    # Optuna's TPE would raise when it ranks pruned trials by their reports.
    assert 0 <= sampler.ask(23).params["x"] <= X.high


def test_a_long_study_keeps_its_front_for_tpe() -> None:
    front_first = [made_trial(number, 0.3 + number / 100, 10 + number) for number in range(10)]
    # More accurate than these, but more expensive than another one of their accuracy.
    beaten = [made_trial(number, 0.5, 1_000 + number) for number in range(10, 499)]
    kept = optuna_sampler._kept([*front_first, *beaten, made_trial(499, 0.5, 100)], ("macs",))
    assert len(kept) == optuna_sampler.REMEMBERED
    assert [each.number for each in kept[:10]] == list(range(10))
    assert [each.number for each in kept[-270:]] == list(range(230, 500))


def test_repeated_interrupted_and_longer_searches_resume(run_search: SearchRunner) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=3, space=BY_RATE, ways=SEVERAL, watcher=Watcher(stop_at=2))
    stopped = loaded(run_search).get_trials()
    watcher = Watcher()
    run_search(trials=3, space=BY_RATE, ways=SEVERAL, watcher=watcher)
    ended = loaded(run_search).get_trials()
    assert ended[0] == stopped[0]
    assert stopped[-1].user_attrs["ended"] == "interrupted"
    assert ended[len(stopped)].user_attrs["run"] == stopped[-1].user_attrs["run"]
    assert len(watcher.networks) == 2, "the interrupted one and the third"
    assert run_search(trials=3, space=BY_RATE, ways=SEVERAL).study.get_trials() == ended
    more = run_search(trials=4, space=BY_RATE, ways=SEVERAL).study.get_trials()
    assert more[: len(ended)] == ended
    whole = SearchRunner(run_search.digits, run_search.out / "whole")
    values = [trial.values for trial in whole(trials=4, space=BY_RATE, ways=SEVERAL).study.get_trials() if trial.values]
    assert [trial.values for trial in more if trial.values] == values, "as if it had not been interrupted"


def test_two_workers_fill_one_front(run_search: SearchRunner) -> None:
    run_search(trials=4, space=BY_RATE, ways=SEVERAL, workers=2)
    study = loaded(run_search)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert len({trial.user_attrs["run"] for trial in complete}) == 4
    assert brute_force(complete) == {tuple(trial.values) for trial in study.best_trials}


@pytest.mark.parametrize("objectives", ["accuracy", "accuracy,params", "accuracy,macs,params"])
def test_other_objectives_are_another_study(run_search: SearchRunner, objectives: str) -> None:
    run_search(trials=1, space=PAIR_SPACE, ways=SEVERAL)
    with pytest.raises(RecordError, match=r"^study = 'study': was made with objectives \['accuracy', 'macs'\], not "):
        run_search(trials=1, space=PAIR_SPACE, ways={**SEVERAL, "objectives": objectives})


def test_a_study_that_was_killed_before_it_had_settings_gets_those_of_its_directions(run_search: SearchRunner) -> None:
    open_storage(run_search.storage, create=True)
    optuna.create_study(storage=run_search.storage, study_name="study", directions=["maximize", "minimize"])
    with pytest.raises(RecordError, match="was not made by budgetnet; choose another study name"):
        run_search(trials=1, space=PAIR_SPACE)
    run_search(trials=1, space=PAIR_SPACE, ways=SEVERAL)
    assert loaded(run_search).metric_names == ["validation accuracy", "MACs"]


def test_a_missing_or_wrong_value_of_a_cost_is_damage(run_search: SearchRunner) -> None:
    study = run_search(trials=3, space=BY_RATE, ways=SEVERAL).study
    trials = [trial for trial in study.get_trials() if trial.user_attrs.get("trained")]
    first, second = trials[0], trials[1]
    engine = create_engine(run_search.storage)
    with engine.begin() as connection:
        for statement in (
            f"DELETE FROM trial_values WHERE objective = 1 AND trial_id = {first._trial_id}",
            f"UPDATE trial_values SET objective = 2 WHERE objective = 1 AND trial_id = {second._trial_id}",
        ):
            connection.execute(text(statement))
    engine.dispose()
    reopened = optuna.load_study(study_name="study", storage=open_storage(run_search.storage, create=False))
    damages = damaged_trials(reopened)
    assert damages == {
        first.number: "value of objective 1 = None: must be a number of at least 0",
        second.number: "objective = 2: must be 1",
    }
    assert {trial.number for trial in read_trials(reopened)}.isdisjoint(damages)


def test_finalists_are_the_most_accurate_on_the_front(run_search: SearchRunner) -> None:
    outcome = run_search(trials=6, space=BY_RATE, ways=SEVERAL, enqueued=(TINY,))
    recipe = tiny_recipe(epochs=1)
    asked: dict[str, Any] = {"space": SearchSpace(**BY_RATE), **SEVERAL, "sizing": "reject"}
    data = prepare(run_search.digits, recipe)
    settings = make_settings(data, SearchConfig(recipe=recipe, max_params=20_000, **asked))
    context = SearchContext(
        settings, data, "study", open_storage(default_storage(run_search.out), create=True), run_search.out
    )
    trials = loaded(run_search).best_trials
    ordered = [trial.number for trial in sorted(trials, key=lambda trial: -trial.values[0])]
    (enqueued,) = [trial.number for trial in read_trials(outcome.study) if trial.enqueued]
    for number in (1, 2, 99):
        finals = choose_finalists(outcome.study, context, number=number, seeds=1, recipe=recipe)
        chosen = [each.trial for each in finals.finalists]
        best = ordered[:number]
        assert chosen == [*best, *([] if enqueued in best else [enqueued])]


def row(number: int, accuracy: float, macs: int, params: int = 1) -> Trial:
    return Trial(number, "complete", "net", "0" * 64, params, macs, 1, 0.5, accuracy=accuracy, correct=1, images=2)


def test_equally_accurate_candidates_on_the_front_are_ranked_first() -> None:
    small, fast = row(0, 0.5, macs=9, params=1), row(1, 0.5, macs=3, params=2)
    assert [each.name for each in rank(candidates([small, fast], costs=("macs",)), comparable=False)] == ["#1", "#0"]
    assert [each.name for each in rank(candidates([small, fast]), comparable=False)] == ["#0", "#1"]


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=7))
def test_hypervolume_matches_counted_cells(drawn: list[tuple[int, int, int]]) -> None:
    trials = [row(number, accuracy / 5, macs, params) for number, (accuracy, macs, params) in enumerate(drawn)]
    budget = bn.Budget(max_params=None, max_macs=5, max_activations=None)
    found = hypervolume_rows(trials, costs=("macs", "params"), budget=budget)
    most = max(params for _, _, params in drawn)
    assert found.reference == {"macs": 5, "params": most}
    for count, each in enumerate(found.rows, 1):
        covered = sum(
            any(accuracy > a and macs <= m and params <= p for accuracy, macs, params in drawn[:count])
            for a, m, p in product(range(5), range(5), range(most))
        )
        assert each.share == pytest.approx(covered / (25 * most))


def test_the_front_is_printed_drawn_and_reported(tell: RunCommand, tmp_path: Path) -> None:
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    SearchSpace(**BY_RATE).save(tmp_path / "space.yaml")
    out = str(tmp_path / "runs")
    options = ["--space", str(tmp_path / "space.yaml"), "--recipe", str(tmp_path / "recipe.yaml"), "--trials", "5"]
    options += ["--max-params", "20k", "--train-size", "64", "--validation-size", "40", "--device", "cpu"]
    answer = tell("search", *options, "--objectives", "accuracy,activations", "--study", "mine", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    study = bn.open_study("mine", out=out)
    kept = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'runs' / 'studies.db'}")
    ordered = [f"#{trial.number}" for trial in sorted(kept.best_trials, key=lambda trial: trial.values[1])]
    assert [each.trial.name for each in study.front()] == ordered
    _, _, table = answer.out.partition("front: accuracy against activations")
    shown, _, _ = table.partition("front: no other candidate")
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("│ #")] == ordered
    for trial in study.front():
        assert f"{trial.trial.activations:,}" in shown
        assert f"{trial.trial.macs:,}" in shown
    assert "--objectives accuracy,activations" in answer.out
    facts = json.loads(tell("leaderboard", "mine", "--out", out, "--json").out)
    assert facts["objectives"] == ["accuracy", "activations"]
    assert {each["name"] for each in facts["rows"] if each["on_front"]} == set(ordered)
    assert set(study.leaderboard().frame().query("on_front")["name"]) == set(ordered)
    assert {"activations", "hypervolume"} < set(study.figures)
    assert f"After {len(study.trials())} complete" in study.figure("hypervolume").layout.meta["alt"]
    assert "front</th>" in study._repr_html_()
    page = bn.report("mine", out=out, to=tmp_path / "report.html").path.read_text()
    assert "Front of accuracy and activations" in page
    assert "Hypervolume of the front" in page
    note = " ".join(get_note(kept).split())
    assert all(f"| {name} |" in note for name in ordered)
    assert "| objectives | accuracy, activations |" in note


def test_bytes_of_the_deployed_network_are_minimised_printed_and_drawn(tell: RunCommand, tmp_path: Path) -> None:
    options: dict[str, Any] = {"trials": 4, "space": BY_RATE, "recipe": tiny_recipe(epochs=1), "device": "cpu"}
    options |= {"train_size": 64, "validation_size": 40, "max_params": "20k", "max_weights": "30K", "sampler": "random"}
    options |= {"weight_precision": "float16", "out": tmp_path / "runs", "study": "mine"}
    study = bn.search(objectives="accuracy,weights,peak_memory", **options)
    for each in study:
        needs = {"weights": weight_bytes(each.spec, "float16"), "peak_memory": peak_memory(each.spec)}
        assert each.trial.needs == needs
        assert {name: each.trial.amount(name) for name in ("weights", "peak_memory")} == needs
    shown = tell("leaderboard", "mine", "--out", str(tmp_path / "runs")).out
    rows = json.loads(tell("leaderboard", "mine", "--out", str(tmp_path / "runs"), "--json").out)["rows"]
    board, _, table = shown.partition("front: accuracy against weights and peak memory")
    drawn = study.figure("peak_memory")
    note = " ".join(get_note(loaded_from(tmp_path)).split())
    page = bn.report("mine", out=tmp_path / "runs", to=tmp_path / "report.html").path.read_text()
    assert len(study.front()) < len(list(study))
    for each in study:
        assert all(short_bytes(need) in board for need in each.trial.needs.values()), "no number is cut"
    for each in study.front():
        size = each.trial.needs["peak_memory"]
        assert short_bytes(size) in table
        assert f"| {short_bytes(size)} |" in note
        assert f'<td class="n">{size / 1024:,.1f}</td>' in page
        assert size in [row["peak_memory"] for row in rows]
    sizes = sorted(each.trial.needs["peak_memory"] / 1024 for each in study)
    assert sorted(x for trace in drawn.data for x in trace.x) == sizes
    assert drawn.layout.xaxis.title.text == "peak memory, KiB (logarithmic)"
    ticks = drawn.layout.xaxis.tickvals
    assert ticks is None or (ticks[0] <= sizes[0] and sizes[-1] <= ticks[-1])
    assert "30.00 KiB weights and " in study.figure("hypervolume").layout.meta["alt"]
    assert "no more weights and peak memory" in shown
    with pytest.raises(InputError, match=r"^cost = 'latency': must be limited or minimised by the study$"):
        study.front(cost="latency")


def loaded_from(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="mine", storage=f"sqlite:///{folder / 'runs' / 'studies.db'}")


def test_one_objective_shows_no_front(tell: RunCommand, run_search: SearchRunner) -> None:
    run_search(trials=1, space=PAIR_SPACE)
    answer = tell("leaderboard", "--out", str(run_search.out))
    assert "front" not in answer.out
    rows = json.loads(tell("leaderboard", "--out", str(run_search.out), "--json").out)["rows"]
    assert [each["on_front"] for each in rows] == [None]
