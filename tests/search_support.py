"""A watcher of searches, and a study's question that can be asked again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import TINY_SPACE, prepare, tiny_recipe

from budgetnet.budget import Budget, Verdict
from budgetnet.data import DataSet
from budgetnet.recipe import Recipe
from budgetnet.records import Epoch, RunResult
from budgetnet.search.driver import SearchOutcome, question, search
from budgetnet.search.study import default_storage, open_storage
from budgetnet.space import SearchSpace

MAX_PARAMS = 20_000


class Watcher:
    """Keeps what a search tells."""

    def __init__(self, *, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.turned = 0
        self.networks: list[Verdict] = []
        self.results: list[RunResult | None] = []
        self._stop_at, self._error = stop_at, error

    def turned_away(self) -> None:
        self.turned += 1

    def begun(self, verdict: Verdict, **_: int) -> None:
        self.networks.append(verdict)

    def stepped(self, epoch: int, share: float) -> None: ...

    def epoch_ended(self, _: Epoch) -> None:
        if len(self.networks) == self._stop_at:
            raise self._error

    def ended(self, result: RunResult | None) -> None:
        self.results.append(result)


class Question:
    """A study's question, to be asked again and again."""

    def __init__(self, digits: DataSet, out: Path) -> None:
        self.digits, self.out = digits, out

    def __call__(
        self,
        *,
        trials: int,
        space: dict[str, Any] = TINY_SPACE,
        recipe: Recipe | None = None,
        watcher: Watcher | None = None,
        name: str = "study",
        out: Path | None = None,
        max_params: int | None = MAX_PARAMS,
        **limits: int,
    ) -> SearchOutcome:
        recipe = recipe or tiny_recipe(epochs=1)
        data = prepare(self.digits, recipe)
        budget = Budget(max_params=max_params, **limits)
        settings = question(data, recipe, budget=budget, seed=0, space=SearchSpace(**space))
        storage = open_storage(default_storage(self.out), create=True)
        try:
            return search(
                settings,
                data,
                study_name=name,
                storage=storage,
                out=out or self.out,
                trials=trials,
                observer=watcher or Watcher(),
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()
