"""Studies written down by hand, with candidates of every outcome, for what only reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from record_support import data_record

from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunResult, TestResult
from budgetnet.runs.store import RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.finalists import Finalist, Finals, store_finals
from budgetnet.study.lock import StudyLock
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.named import named_space
from budgetnet.study.storage import default_storage, open_storage, open_study
from budgetnet.visualization.report import Report, collect

IMAGES = 10_000
STUDIES = Path(__file__).parents[1] / "studies"
HOSTILE = "<script>alert('x')</script>&\"</table>"
DIGITS = data_record(name="digits", provenance="scikit-learn's bundled digits", is_original_cifar10=False)
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"torch": "2.15.0"},
    "processor": "a processor",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
}


def network(*channels: int) -> ModelSpec:
    return ModelSpec.resnet(channels=list(channels), blocks=[1] * len(channels))


def write_run(
    folder: RunFolder,
    identity: RunIdentity,
    *,
    correct: int,
    test: int | None = None,
    environment: Mapping[str, Any] = ENVIRONMENT,
) -> None:
    """A run of two epochs as a search would have left it, without its weights."""
    folder.record_environment(dict(environment), first_epoch=1)
    folder.begin(identity)
    images, classes = identity.data.validation_images, identity.spec.num_classes
    share = correct / images
    folder.write_curves([Epoch(number, number, 0.1, 1.0, share / 2, 1.0, share, 1.0) for number in (1, 2)])
    folder.finish(
        RunResult(
            status="complete",
            reason="all 2 epochs",
            **identity.spec.cost._asdict(),
            epochs=2,
            cycles=2,
            best_epoch=2,
            validation_loss=1.0,
            validation_correct=correct,
            validation_images=images,
            seconds=2.0,
        ),
        # All images are of the first class, and the wrong ones are taken for the second.
        confusion=[[correct, images - correct, *[0] * (classes - 2)], *([0] * classes for _ in range(classes - 1))],
    )
    if test is not None:
        folder.write_test(TestResult(loss=0.25, correct=test, images=10_000, reason="a test"))


class WrittenStudy:
    """A study whose trials a test writes down one by one."""

    def __init__(self, out: Path, *, name: str = "study", data: DataRecord = DIGITS, **limits: int | None) -> None:
        self.out, self.recipe = out, named_recipe("paper")
        self.budget = Budget(**(limits or {"max_params": 100_000, "max_macs": 25_000_000}))
        self.settings = StudySettings(
            config=SearchConfig(recipe="paper", data=data.name, **self.budget.to_mapping()),
            space=named_space("resnet"),
            recipe=self.recipe,
            data=data,
            device="cpu",
            precision="float32",
        )
        storage = open_storage(default_storage(out), create=True)
        self.study: optuna.Study = open_study(storage, name, self.settings)

    @contextmanager
    def searched(self) -> Iterator[None]:
        """Hold the lock of the study, as a running search does."""
        storage = open_storage(default_storage(self.out), create=False)
        with StudyLock(storage, self.study.study_name, self.out).held():
            yield

    def identity(self, spec: ModelSpec, *, seed: int = 0, recipe: Recipe | None = None) -> RunIdentity:
        data = self.settings.data
        return RunIdentity(spec=spec, recipe=recipe or self.recipe, data=data, seed=seed, device="cpu")

    def add(
        self, spec: ModelSpec, state: TrialState, *, value: float | None = None, label: str = "", **facts: Any
    ) -> int:
        """Writes a trial down; gives its number."""
        cost, reports = spec.cost, facts.pop("reports", {})
        limits = self.budget.limits(cost)
        kept: dict[str, Any] = {"architecture": label or spec.label, "candidate": spec.digest, "spec": spec.digest}
        kept |= {**cost._asdict(), "blocks": 1, "budget_used": self.budget.share_used(cost), **facts}
        trial = create_trial(
            state=state,
            value=value,
            constraints={limit.limit: limit.violation for limit in limits},
            intermediate_values=reports,
            user_attrs=kept,
        )
        trial.datetime_start = datetime(2026, 1, 1)
        self.study.add_trial(trial)
        return len(self.study.get_trials(deepcopy=False)) - 1

    def complete(self, spec: ModelSpec, correct: int, *, folder: bool = True, **facts: Any) -> int:
        """A candidate that was trained to its end, with its run folder."""
        identity = self.identity(spec)
        run = facts.pop("run", identity.run_id)
        if folder:
            write_run(RunFolder(self.out / run), identity, correct=correct)
        share = correct / IMAGES
        ends = {"ended": "all 2 epochs", "status": "complete", "validation_correct": correct}
        known = {**self._trained(run, epochs=2), **ends, "validation_images": IMAGES, "reports": {1: share, 2: share}}
        return self.add(spec, TrialState.COMPLETE, value=share, **{**known, **facts})

    def pruned(self, spec: ModelSpec, correct: int, *, cycle: int) -> int:
        """A candidate that was pruned at the end of a cycle."""
        ended = f"pruned after cycle {cycle} of 2: others were better there"
        facts = {**self._trained("gone", epochs=cycle), "ended": ended, "status": "stopped"}
        reports = dict.fromkeys(range(1, cycle + 1), correct / IMAGES)
        judged = {"validation_correct": correct, "validation_images": IMAGES, "reports": reports}
        return self.add(spec, TrialState.PRUNED, **{**facts, "cycles": cycle, **judged})

    def _trained(self, run: str, *, epochs: int) -> dict[str, Any]:
        return {"trained": True, "run": run, "seed": 0, "epochs": epochs, "cycles": epochs, "seconds": 1.5 * epochs}

    def finals(self, number: int, specs: dict[int, ModelSpec], *, tests: list[int], apart: int = 0) -> None:
        """Finalists, each trained with as many seeds as there are results on the test set.

        `apart` is the number of validation images that each seed classifies rightly beyond those of the one before.
        """
        finalists = []
        for trial, spec in list(specs.items())[:number]:
            runs = []
            for seed, test in enumerate(tests):
                identity = self.identity(spec, seed=seed)
                correct = 9_000 + trial + apart * seed
                write_run(RunFolder(self.out / identity.run_id), identity, correct=correct, test=test + trial)
                runs.append(identity.run_id)
            finalists.append(Finalist(trial=trial, name=f"#{trial}", spec=spec, recipe=self.recipe, runs=tuple(runs)))
        seeds = tuple(range(len(tests)))
        store_finals(self.study, Finals(finalists=tuple(finalists), seeds=seeds, recipe=self.recipe))


def every_outcome(out: Path, **options: Any) -> WrittenStudy:
    """A study with three candidates that are ranked and one of every other outcome, and two finalists."""
    study = WrittenStudy(out, **options)
    first, second, third = network(16), network(16, 24), network(24)
    study.complete(first, 9_000)
    study.complete(second, 9_300)
    study.complete(third, 9_100)
    study.pruned(network(8), 5_000, cycle=1)
    study.pruned(network(8, 8), 6_000, cycle=2)
    study.pruned(network(8, 16), 6_500, cycle=2)
    study.add(network(128, 128), TrialState.PRUNED, ended="over budget")
    study.add(network(32, 48), TrialState.PRUNED, ended="over budget")
    diverged: dict[str, Any] = {"trained": True, "run": "diverged", "seed": 0, "epochs": 1, "cycles": 0, "seconds": 1.0}
    study.add(network(12), TrialState.PRUNED, ended="the loss was no finite number in epoch 2", **diverged)
    study.add(network(14), TrialState.PRUNED, ended="out of memory", run="large", seed=0)
    study.add(second, TrialState.COMPLETE, value=0.93, ended="duplicate", reports={1: 0.93, 2: 0.93})
    study.add(network(18), TrialState.RUNNING, run="under-way", seed=0)
    study.add(network(20), TrialState.FAIL, ended="interrupted", run="broken", seed=0)
    study.add(network(10), TrialState.FAIL, ended="RuntimeError: what broke", run="broken", seed=0)
    study.finals(2, {1: second, 2: third}, tests=[9_200, 9_240])
    return study


def report_of(study: WrittenStudy, **options: Any) -> Report:
    return collect(study.study, out=study.out, **options)


class Elements(HTMLParser):
    """A page's elements as a browser would see them before any script has run, and its words outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._silent = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._silent = self._silent and tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)
        elif self.found[-1][0] == "script":
            self.scripts[-1] += data


def text_of(page: str) -> str:
    return " ".join(" ".join(Elements(page).words).split())
