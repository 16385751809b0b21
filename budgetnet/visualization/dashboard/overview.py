"""Note and figures of a study: settings, progress, best candidate and commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from budgetnet.common.config import command, has_unnamed_documents
from budgetnet.common.formatting import count_of, percent
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.statistics.intervals import format_with_interval
from budgetnet.study.commands import found_config, location_options
from budgetnet.study.finalists import FinalResult
from budgetnet.study.leaderboard import candidates, rank
from budgetnet.study.objectives import COSTS, shown_costs
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.named import describe_space
from budgetnet.study.trials import Trial, count_outcomes, front, outcome_text
from budgetnet.study.winner import winner
from budgetnet.visualization import figures
from budgetnet.visualization.dashboard.markdown import code, plain, table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_CARD = 450
"""Height of the dashboard's card for a figure, in pixels; it is at least 340 wide."""


class Overview:
    """Overview of a study."""

    def __init__(
        self,
        name: str,
        settings: StudySettings,
        trials: Sequence[Trial],
        finals: Sequence[FinalResult],
        *,
        out: Path,
        storage: str | None,
    ) -> None:
        """Store the data of the overview.

        Args:
            name: name of the study.
            settings: its settings.
            trials: its finished trials.
            finals: its finalists, the best first.
            out: folder of run folders.
            storage: URL of the storage without its password. None: the SQLite file in `out`.
        """
        self._name, self._settings, self._trials, self._finals = name, settings, trials, finals
        self._out, self._storage = out.resolve(), storage

    def note(self) -> str:
        """Return the note on the study."""
        heading = study_heading(self._name)
        chosen = "which also selected each run's best epoch by its loss"
        caveat = f"Accuracies are on the validation images, {chosen}, one seed each."
        parts = [heading, self._best(), *self._front(), f"{self._outcomes()} {caveat}", self._settings_table()]
        return "\n\n".join(
            [*parts, "To show the leaderboard, to serve this dashboard, and to resume the search:", *self._commands()]
        )

    def figures(self) -> list[tuple[str, Figure]]:
        """Return the figures of the study with their ids."""
        settings, trials, note = self._settings, self._trials, f"study {self._name}"
        comparable, costs = settings.data.is_original_cifar10, settings.config.costs
        drawn = [
            (
                f"accuracy-against-{cost}",
                figures.accuracy_front(trials, cost=cost, budget=settings.budget, comparable=comparable, note=note),
            )
            for cost in shown_costs(costs)
        ]
        if costs:
            drawn.append(("hypervolume", figures.hypervolume(trials, costs=costs, budget=settings.budget, note=note)))
        if settings.budget.allowed:
            drawn.append(("budget-use", figures.budget_use(trials, note=note)))
        drawn.append(("candidates-by-rung", figures.rungs(trials, note=note)))
        for _, figure in drawn:
            _fit_card(figure)
        return drawn

    def _best(self) -> str:
        comparable = self._settings.data.is_original_cifar10
        found = candidates(self._trials, costs=self._settings.config.costs)
        rows = rank(found, comparable=comparable, among=count_outcomes(self._trials)["trained"])
        best = winner(rows, self._finals)
        if best is None:
            return "No candidate is fully trained yet."
        kind = "Best finalist" if best.finalist else "Best within the budget"
        accuracy = plain(format_with_interval(best.accuracy, best.interval, images=best.images))
        parts = [
            f"{kind}: **{plain(best.name)} {plain(best.architecture)}** with {accuracy} % at 95 % on {best.images:,} "
            f"validation images and {best.params:,} parameters; run {code(best.run)}."
        ]
        if best.finalist and best.finalist.test and (interval := best.finalist.test_interval):
            mean = plain(format_with_interval(fmean(best.finalist.test), interval, images=best.finalist.test_images))
            parts.append(f"Mean test accuracy over {count_of(len(best.finalist.test), 'seed')}: {mean} %.")
        if comparable:
            published = next(row for row in rows if row.is_reference)
            parts.append(f"Published: {percent(published.accuracy)} % on the test set.")
        return " ".join(parts)

    def _front(self) -> list[str]:
        """Return the front of several objectives as a table; nothing if accuracy is the only one."""
        costs = self._settings.config.costs
        if not costs:
            return []
        shown = shown_costs(costs)
        rows = [
            [
                trial.name,
                f"{percent(trial.accuracy or 0.0, images=trial.images)}",
                *(COSTS[name].text(trial.amount(name) or 0) for name in shown),
                plain(trial.architecture),
            ]
            for trial in front(self._trials, costs=costs)
        ]
        headings = ["front", "accuracy %", *(COSTS[name].heading for name in shown), "architecture"]
        return [table(headings, rows, right=range(1, 2 + len(shown)))]

    def _outcomes(self) -> str:
        return f"{outcome_text(count_outcomes(self._trials))}."

    def _settings_table(self) -> str:
        settings = self._settings
        data, recipe = settings.data, settings.recipe
        budget = settings.budget.in_words({"macs": "MACs"})
        rows = [
            ["budget", f"at most {budget}" if budget else "no limit"],
            ["data", f"{plain(data.name)}: {plain(data.provenance)}"],
            ["images", f"{data.train_images:,} for training, {data.validation_images:,} for validation"],
            ["recipe", f"{plain(describe_recipe(recipe))}, {count_of(recipe.epochs, 'epoch')}"],
            ["space", f"{plain(describe_space(settings.space))}, sizing {settings.config.sizing}"],
            ["sampler, pruner", f"{settings.config.sampler}, {settings.config.pruner}"],
            *([["objectives", ", ".join(settings.config.objectives)]] if settings.config.costs else []),
            ["seed", str(settings.config.seed)],
            ["device", f"{plain(settings.device)}, {settings.precision}"],
        ]
        return table(["setting", ""], rows)

    def _commands(self) -> list[str]:
        config = found_config(self._settings, self._name, out=self._out, storage=self._storage)
        where = location_options(config)
        commands = [
            shlex.join(["budgetnet", subcommand, self._name, *where]) for subcommand in ("leaderboard", "dashboard")
        ]
        if not has_unnamed_documents(config):
            # With more trials than are trained, as the command would end immediately otherwise.
            commands.append(command(config.replace(trials=count_outcomes(self._trials)["trained"] + 10)))
        return list(map(code, commands))


def study_heading(name: str) -> str:
    """Return the heading of a study's note."""
    return f"## Study {plain(name)}"


def _fit_card(figure: Figure) -> None:
    """Fit a figure to its card: short title, legend below, and a minimal template."""
    title = {"text": figure.layout.meta["title"], "font": {"size": 15}, "subtitle": {"text": ""}}
    # At the card's edge and not the plot's, which wide tick labels move to the right.
    title |= {"x": 0.02, "xref": "container", "xanchor": "left"}
    below = {"yref": "container", "y": 0, "yanchor": "bottom", "font": {"size": 11}}
    figure.update_layout(title=title, height=_CARD, legend=below, margin={"t": 44, "b": 8, "l": 8, "r": 16})
    # Keep only the parts of the template for the trace types in use; it is larger than a small figure.
    looks = figure.layout.template.data.to_plotly_json()
    figure.layout.template = {"data": {kind: looks[kind] for kind in {each.type for each in figure.data} & set(looks)}}
