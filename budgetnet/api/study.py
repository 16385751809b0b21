"""Studies for notebooks: candidates, leaderboard, data frames and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.api.leaderboard import Leaderboard
from budgetnet.api.trained_candidate import TrainedCandidate
from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.formatting import count_of
from budgetnet.model.budget import Budget
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.study.finalists import FinalResult, load_finals, read_results
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.objectives import CostName, shown_costs
from budgetnet.study.reading import read_trials
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors, study_settings
from budgetnet.study.trials import Trial, count_outcomes, front, outcome_text
from budgetnet.study.winner import winner

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.storages import RDBStorage
    from plotly.graph_objects import Figure


class Study:
    """A study, finished or still running; every access reads its storage."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, out: Path) -> None:
        self._study, self._storage, self.out = study, storage, out

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def settings(self) -> StudySettings:
        """Settings of the search: space, budget, recipe, data and config.

        Raises:
            RecordError: the study was not made by budgetnet, or by a newer version.
        """
        with storage_errors(self._storage):
            return study_settings(self._study)

    @property
    def budget(self) -> Budget:
        """Budget of the candidates."""
        return self.settings.budget

    def trials(self) -> list[Trial]:
        """Return every trial in order, including rejected (over budget) and running ones."""
        with storage_errors(self._storage):
            return read_trials(self._study)

    def count_outcomes(self) -> dict[str, int]:
        """Return the number of candidates by outcome, such as ``trained``, ``pruned`` and ``over_budget``.

        A candidate that was interrupted and resumed is counted once.
        """
        return count_outcomes(self.trials())

    def frame(self) -> pd.DataFrame:
        """Return one row for each trial, by number; sampled values are in columns that begin with ``sampled.``.

        Bytes of weights and of peak memory, and latency, have columns where the study limits or minimises them.
        """
        import pandas as pd

        lines = []
        for trial in self.trials():
            line = trial._asdict()
            line["reports"] = dict(line["reports"])
            line |= line.pop("needs")
            line |= {f"sampled.{name}": value for name, value in sorted(line.pop("sampled").items())}
            lines.append(line)
        columns = [name for name in Trial._fields if name not in ("sampled", "needs")]
        sampled = sorted({name for line in lines for name in line} - set(columns))
        frame = pd.DataFrame(lines, columns=[*columns, *sampled])
        whole = dict.fromkeys(("correct", "images", "epochs", "cycles", "train_flops", "seed"), "Int64")
        return frame.astype(whole).set_index("number")

    def leaderboard(self) -> Leaderboard:
        """Rank the fully trained candidates, on original CIFAR-10 with the published result among them."""
        trials, settings = self.trials(), self.settings
        rows = rank(
            candidates(trials, costs=settings.config.costs),
            comparable=settings.data.is_original_cifar10,
            among=count_outcomes(trials)["trained"],
        )
        return Leaderboard.of(rows, title=self.name)

    def front(self, *, cost: CostName | None = None) -> list[TrainedCandidate]:
        """Return the Pareto front of accuracy and cost, cheapest first.

        Args:
            cost: ``params``, ``macs``, ``activations``, or ``weights``, ``peak_memory`` or ``latency`` if the search
                limited or minimised it. Default: all costs that the search minimised, or ``params`` if accuracy was its
                only objective.

        Raises:
            InputError: the cost is none of these, or the trials do not have it.
        """
        costs = (self.settings.config.costs or ("params",)) if cost is None else (cost,)
        return [self._candidate(trial) for trial in front(self.trials(), costs=costs)]

    def best(self) -> TrainedCandidate:
        """Return the best network: the best finalist's, or without finals the candidate of highest validation accuracy.

        Of a finalist's runs it is the one of highest validation accuracy. Ties go to the network with fewer parameters.

        Raises:
            RecordError: no candidate is fully trained yet, or a finalist's run folder is damaged.
        """
        trials = self.trials()
        found = winner(rank(candidates(trials, costs=self.settings.config.costs), comparable=False), self.finals())
        if found is None:
            raise RecordError("study", self.name, "has no fully trained candidate yet")
        trial = next((trial for trial in trials if trial.name == found.trial), None)
        if trial is None:
            raise RecordError("study", self.name, f"its best network is that of trial {found.trial}, which is damaged")
        return TrainedCandidate(trial, self.out / found.run)

    def finals(self) -> list[FinalResult]:
        """Return the finalists' results, best first; empty if no finalists were trained.

        Raises:
            RecordError: a run folder is damaged.
        """
        with storage_errors(self._storage):
            finals = load_finals(self._study)
        return read_results(finals, self.out) if finals else []

    def __getitem__(self, which: int | str) -> TrainedCandidate:
        """Return a candidate by the number of its trial or by its name: ``study[12]`` or ``study["#12"]``.

        Raises:
            InputError: the trial does not exist, or was not fully trained.
        """
        found = [trial for trial in self.trials() if which in (trial.number, trial.name)]
        if not found:
            raise InputError("trial", which, f"must be a trial of study {self.name}")
        if found[0].outcome != "complete":
            raise InputError("trial", which, f"must be fully trained, but is {found[0].outcome}")
        return self._candidate(found[0])

    def _candidate(self, trial: Trial) -> TrainedCandidate:
        return TrainedCandidate(trial, self.out / (trial.run or ""))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that `figure` draws."""
        return tuple(self._drawers())

    def figure(self, name: str) -> Figure:
        """Draw a figure of the study.

        Args:
            name: ``front``, ``macs``, ``budget``, ``rungs``, ``importance``, ``effects`` or ``curves``; of a search
                with several objectives also ``hypervolume`` and each cost that it minimises, such as ``activations``.

        Raises:
            InputError: the figure does not exist.
            RecordError: ``curves`` without a fully trained candidate.
        """
        drawers = self._drawers()
        if name not in drawers:
            raise InputError("figure", name, f"must be one of {', '.join(drawers)}")
        return drawers[name]()

    def _drawers(self) -> dict[str, Callable[[], Figure]]:
        from budgetnet.study.feature_effects import feature_effects
        from budgetnet.study.importance import parameter_importance
        from budgetnet.visualization import figures

        def front_by(cost: CostName) -> Callable[[], Figure]:
            def draw() -> Figure:
                settings = self.settings
                return figures.accuracy_front(
                    self.trials(),
                    cost=cost,
                    budget=settings.budget,
                    comparable=settings.data.is_original_cifar10,
                    note=self.name,
                )

            return draw

        costs = self.settings.config.costs
        of_front: dict[str, Callable[[], Figure]] = {
            ("front" if cost == "params" else cost): front_by(cost) for cost in shown_costs(costs)
        }
        if costs:
            of_front["hypervolume"] = lambda: figures.hypervolume(
                self.trials(), costs=costs, budget=self.budget, note=self.name
            )
        of_budget = {"budget": lambda: figures.budget_use(self.trials(), note=self.name)} if self.budget.allowed else {}
        return {
            **of_front,
            **of_budget,
            "rungs": lambda: figures.rungs(self.trials(), note=self.name),
            "importance": lambda: figures.importance(parameter_importance(self._study), note=f"{self.name}; PED-ANOVA"),
            "effects": lambda: figures.effects(feature_effects(self._study, self.settings), note=self.name),
            "curves": lambda: self.best().curves(),
        }

    def __iter__(self) -> Iterator[TrainedCandidate]:
        """Iterate over the fully trained candidates, in the order of their trials."""
        return iter([self._candidate(trial) for trial in self.trials() if trial.outcome == "complete"])

    def __repr__(self) -> str:
        return f"Study({self.name}: {outcome_text(self.count_outcomes())})"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import study_html

        settings = self.settings
        facts = {
            "budget": f"at most {settings.budget.in_words()}" if settings.budget.allowed else "",
            "data": f"{settings.data.name}: {settings.data.provenance}",
            "images": f"{settings.data.train_images:,} training, {settings.data.validation_images:,} validation",
            "recipe": f"{describe_recipe(settings.recipe)}, {count_of(settings.recipe.epochs, 'epoch')}",
            "seed": str(settings.config.seed),
        }
        return study_html(self.leaderboard(), title=self.name, facts=facts, counts=self.count_outcomes())


def open_study(name: str | None = None, *, out: Path | str = "runs", storage: str | None = None) -> Study:
    """Open a study made by `search` or ``budgetnet search``, which may still be running.

    Args:
        name: name of the study. Default: the most recent one.
        out: folder of run folders.
        storage: URL of the studies' storage. Default: the SQLite file in `out`.

    Raises:
        InputError: the URL is malformed.
        RecordError: the study or the storage does not exist.
    """
    folder = Path(out)
    kept = open_storage(storage or default_storage(folder), create=False)
    with storage_errors(kept):
        return Study(find_study(kept, name), kept, folder)
