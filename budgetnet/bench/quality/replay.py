"""Replay of searches on tables: how much worse than the best network is the one that a search finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgetnet.bench.measure import Goal
from budgetnet.bench.quality.problem import Problem
from budgetnet.bench.quality.pruning import PruningRow, replay_pruners
from budgetnet.bench.quality.strategies import STRATEGIES
from budgetnet.bench.quality.tables import MACRO
from budgetnet.common.seeding import derive_seed
from budgetnet.statistics.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TRAININGS = (5, 10, 20, 40)
"""Numbers of trainings after which a search is compared."""
EQUAL = 20
"""Equal cost is the expected cost of this many random candidates."""
_BASELINE, _OURS, _RIVAL = "random", "surrogate", "tpe"
_GOAL_REGRET, _GOAL_RATIO, _GOAL_WORSE = 0.25, 0.5, 0.02


class Row(NamedTuple):
    """Replays of one strategy on the problems of one table."""

    table: str
    strategy: str
    problems: tuple[str, ...]
    """Names of the problems."""
    regrets: NDArray[np.float64]
    """Points below the best candidate within the limit, `(problems, repetitions, TRAININGS and at equal cost)`."""
    trainings: NDArray[np.float64]
    """Trainings at equal cost, `(problems, repetitions)`."""
    seconds: float
    """Time of a training's proposals, rejected and repeated ones included."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean regret over problems and repetitions: after each of `TRAININGS`, and at equal cost."""
        return np.asarray(self.regrets.mean(axis=(0, 1)))

    def interval(self, place: int) -> Interval:
        """Return the 95 % interval of a mean regret; repetitions are independent, the problems are fixed."""
        return mean_interval(self.regrets[:, :, place].mean(axis=0).tolist())

    def better_than(self, other: Row) -> float:
        """Return the share of replays with a smaller regret than another strategy's after `EQUAL` trainings."""
        ours, theirs = (row.regrets[:, :, TRAININGS.index(EQUAL)] for row in (self, other))
        return float(((ours < theirs) + 0.5 * (ours == theirs)).mean())


class QualityBenchmark(NamedTuple):
    """Replays of strategies on tables."""

    environment: dict[str, Any]
    repetitions: dict[str, int]
    """Replays of each problem, by strategy."""
    seed: int
    rows: list[Row]
    pruning: list[PruningRow]
    """Replays of pruners on tables that have the accuracy of every epoch."""

    def row(self, table: str, strategy: str) -> Row | None:
        """Return the replays of a strategy on a table, if there are any."""
        return next((row for row in self.rows if (row.table, row.strategy) == (table, strategy)), None)

    @property
    def tables(self) -> list[str]:
        """Names of the tables, in order."""
        return list(dict.fromkeys(row.table for row in self.rows))

    def better_than_random(self, row: Row) -> float | None:
        """Return the share of replays that beat random candidates; None if these were not replayed as often."""
        random = self.row(row.table, _BASELINE)
        return None if random is None or random.regrets.shape != row.regrets.shape else row.better_than(random)

    @property
    def figure(self) -> Figure:
        """Mean regret of every strategy by number of trainings, as a figure."""
        from budgetnet.visualization.figures.regret import RegretLine, regret_lines

        lines = []
        for row in self.rows:
            low, high = zip(*(row.interval(place) for place in range(len(TRAININGS))), strict=True)
            mean = tuple(row.mean[: len(TRAININGS)].tolist())
            lines.append(RegretLine(row.table, STRATEGIES[row.strategy][0], TRAININGS, mean, low, high))
        return regret_lines(lines, note="points below the best network within the limit; 95 % intervals over replays")

    @property
    def goals(self) -> list[Goal]:
        """Goals of the surrogate sampler, as far as the strategies that it is compared with were replayed."""
        goals = []
        place = TRAININGS.index(EQUAL)
        for table in self.tables:
            ours, random, rival = (self.row(table, name) for name in (_OURS, _BASELINE, _RIVAL))
            if ours is None:
                continue
            if table == MACRO:
                regret = float(ours.mean[place])
                goals.append(Goal.at_most(f"{table}: regret after {EQUAL} trainings", "points", regret, _GOAL_REGRET))
                if rival is not None:
                    # Not their ratio: TPE may have found the best candidate in every replay.
                    goal, most = f"{table}: regret at equal cost, half of TPE's", _GOAL_RATIO * float(rival.mean[-1])
                    goals.append(Goal.at_most(goal, "points", float(ours.mean[-1]), most))
            elif random is not None:
                worse = float((ours.mean - random.mean)[place])
                goals.append(Goal.at_most(f"{table}: regret beyond that of random", "points", worse, _GOAL_WORSE))
        return goals

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; regrets in points, times in seconds."""
        return {
            "benchmark": "quality",
            "environment": self.environment,
            "repetitions": self.repetitions,
            "seed": self.seed,
            "rows": [self._row_mapping(row) for row in self.rows],
            "pruning": [row.to_mapping() for row in self.pruning],
            "goals": [goal._asdict() for goal in self.goals],
        }

    def _row_mapping(self, row: Row) -> dict[str, Any]:
        labels = [*map(str, TRAININGS), "equal cost"]
        return {
            "table": row.table,
            "strategy": row.strategy,
            "regret": dict(zip(labels, row.mean.tolist(), strict=True)),
            "interval": {label: list(row.interval(place)) for place, label in enumerate(labels)},
            "by_problem": {
                name: dict(zip(labels, regrets.mean(axis=0).tolist(), strict=True))
                for name, regrets in zip(row.problems, row.regrets, strict=True)
            },
            "trainings_at_equal_cost": float(row.trainings.mean()),
            "better_than_random": self.better_than_random(row),
            "seconds_per_training": row.seconds,
        }


def run(
    problems: Sequence[Problem],
    strategies: Iterable[str],
    *,
    repetitions: Callable[[str], int],
    seed: int,
    progress: Callable[[str], None],
) -> QualityBenchmark:
    """Replay searches.

    One training seed judges the candidates of a replay; the mean over all seeds is the truth that its choice is
    measured by.

    Args:
        problems: tables with limits.
        strategies: names of `STRATEGIES`.
        repetitions: returns the replays of each problem for a strategy.
        seed: seed of the replays; repetition n of every strategy has the same judge.
        progress: called with a description of each step.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    names = list(strategies)
    rows = []
    for table in dict.fromkeys(problem.table for problem in problems):
        own = [problem for problem in problems if problem.table == table]
        for name in names:
            count = repetitions(name)
            regrets, trainings, trained, start = [], [], 0, time.perf_counter()
            for problem in own:
                progress(f"{table} {problem.name}: {name}")
                replays = [replay(problem, name, seed=seed, repetition=each) for each in range(count)]
                regrets.append([each.regrets for each in replays])
                trainings.append([each.trainings for each in replays])
                trained += sum(each.total for each in replays)
            seconds = (time.perf_counter() - start) / trained
            labels = tuple(problem.name for problem in own)
            rows.append(Row(table, name, labels, np.array(regrets), np.array(trainings), seconds))
    environment = describe_environment(torch.device("cpu"))
    pruning = []
    for problem in problems:
        if problem.curves is not None:
            progress(f"{problem.table} {problem.name}: pruning")
            pruning += replay_pruners(problem, TRAININGS, count=repetitions(_BASELINE), seed=seed)
    return QualityBenchmark(environment, {name: repetitions(name) for name in names}, seed, rows, pruning)


class Replay(NamedTuple):
    """One search on a table."""

    regrets: list[float]
    """Regret after each of `TRAININGS`, and at equal cost."""
    trainings: int
    """Trainings at equal cost."""
    total: int
    """All trainings of the replay."""


def replay(problem: Problem, strategy: str, *, seed: int, repetition: int) -> Replay:
    """Search a table until there were enough trainings and enough was spent.

    Args:
        problem: the table with a limit.
        strategy: name of the strategy.
        seed: seed of all replays.
        repetition: number of this one.
    """
    judge = problem.accuracy[:, repetition % problem.accuracy.shape[1]]
    budget = EQUAL * float(problem.cost[problem.within].mean())
    search = STRATEGIES[strategy][1](problem, derive_seed(seed, strategy, repetition) % 2**32)
    chosen: list[int] = []
    spent = [0.0]
    answer: float | None = None
    while len(chosen) < TRAININGS[-1] or spent[-1] < budget:
        try:
            candidate = next(search) if answer is None else search.send(answer)
        except StopIteration:
            break
        answer = float(judge[candidate])
        chosen.append(candidate)
        spent.append(spent[-1] + float(problem.cost[candidate]))
    affordable = max(1, int(np.searchsorted(spent, budget, side="right")) - 1)
    counts = [*TRAININGS, affordable]
    return Replay([problem.regret(judge, chosen[:count]) for count in counts], affordable, len(chosen))
