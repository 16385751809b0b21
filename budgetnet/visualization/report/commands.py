"""The commands that ask a study's question again, written out from what its settings and records say."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from budgetnet.model.budget import LIMITS
from budgetnet.model.zoo import ENTRIES
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.study.finalists import Finals
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.named import NAMED as SPACES
from budgetnet.study.space.named import named_space
from budgetnet.study.storage import shown_url
from budgetnet.study.trials import Trial
from budgetnet.visualization.report.content import Command


def commands(
    study: str,
    settings: StudySettings,
    trials: Sequence[Trial],
    finals: Finals | None,
    *,
    out: Path,
    storage: str | None,
    best_run: str | None,
    shown: Sequence[str] = (),
) -> list[Command]:
    """What made a study, shows it and makes its best network again.

    Options that change no result, such as the number of workers, are left out. What came from a file has a name in
    capitals where no run folder holds it; a password in a URL is left out.

    Args:
        study: its name.
        settings: its question.
        trials: what came of it.
        finals: its finalists, if it has any.
        out: its folder of run folders.
        storage: URL of its storage, where that is not the file in that folder.
        best_run: name of the best candidate's run folder.
        shown: options that say what else the report shows.
    """
    where = ["--out", str(out)] + ([] if storage is None else ["--storage", shown_url(storage)])
    search = ["budgetnet", "search", *_question(settings, trials, out), *_finals(finals, out)]
    found = [
        Command("made it, and goes on where it stopped", _line([*search, "--study", study, *where])),
        Command("shows it in a terminal", _line(["budgetnet", "leaderboard", study, *where])),
        Command("makes this page again", _line(["budgetnet", "report", study, "-o", "report.html", *where, *shown])),
    ]
    if best_run is not None and _kept(out / best_run / "spec.yaml"):
        folder = out / best_run
        again = ["budgetnet", "train", str(folder / "spec.yaml"), "--recipe", str(folder / "recipe.yaml")]
        again += [*_data(settings), "--seed", str(settings.seed), "--device", settings.device, "--out", "again"]
        found.append(Command("trains its best network again, in a folder of its own", _line(again)))
    return found


def _line(words: Sequence[str]) -> str:
    return shlex.join(words)


def _kept(path: Path) -> bool:
    return path.is_file()


def _data(settings: StudySettings) -> list[str]:
    data = settings.data
    sizes = ["--train-size", str(data.train_images), "--validation-size", str(data.validation_images)]
    return ["--data", data.name, *sizes]


def _question(settings: StudySettings, trials: Sequence[Trial], out: Path) -> list[str]:
    words: list[str] = []
    for limit in LIMITS:
        allowed = getattr(settings.budget, f"max_{limit}")
        words += [] if allowed is None else [f"--max-{limit}", str(allowed)]
    words += _data(settings)
    ranked = next((trial.run for trial in trials if trial.by_hand and trial.run), None)
    words += _recipe("--recipe", "--epochs", settings.recipe, None if ranked is None else out / ranked)
    words += ["--space", _space(settings), "--sizing", settings.sizing, "--sampler", settings.sampler]
    words += ["--pruner", settings.pruner, "--seed", str(settings.seed), "--device", settings.device]
    for trial in trials:
        if trial.by_hand and trial.fate != "repeated":
            words += ["--enqueue", _network(trial, out)]
    return [*words, "--trials", str(sum(trial.trained for trial in trials) or 1)]


def _recipe(option: str, length: str, recipe: Recipe, folder: Path | None) -> list[str]:
    """The option that names a recipe, with its number of epochs where that is not the named one's."""
    # Finals are judged on the images that judged the search, whatever split their recipe names.
    split = {"validation_fraction": recipe.validation_fraction, "split_seed": recipe.split_seed}
    for name, plain in NAMED.items():
        named = plain.model_copy(update=split) if option == "--final-recipe" else plain
        if named.digest == recipe.digest:
            return [option, name]
        if named.for_epochs(recipe.epochs).digest == recipe.digest:
            return [option, name, length, str(recipe.epochs)]
    if folder is not None and _kept(folder / "recipe.yaml"):
        return [option, str(folder / "recipe.yaml")]
    return [option, "RECIPE.yaml"]


def _space(settings: StudySettings) -> str:
    known = settings.space.model_dump(exclude={"name"})
    for name in SPACES:
        if named_space(name).model_dump(exclude={"name"}) == known:
            return name
    return "SPACE.yaml"


def _network(trial: Trial, out: Path) -> str:
    if trial.architecture in ENTRIES:
        return trial.architecture
    kept = None if trial.run is None else out / trial.run / "spec.yaml"
    return "SPEC.yaml" if kept is None or not _kept(kept) else str(kept)


def _finals(finals: Finals | None, out: Path) -> list[str]:
    if finals is None or not finals.finalists:
        return []
    each = finals.finalists
    # The best network made by hand is appended where it is not among those asked for, and so would be again.
    wanted = len(each) - 1 if each[-1].by_hand and len(each) > 1 else len(each)
    words = ["--finalists", str(wanted), "--final-seeds", str(len(finals.seeds))]
    # The recipe of a network made by hand is the one that was asked for; a search may have chosen values for others.
    plain = next((one for one in each if one.by_hand), each[0])
    return [*words, *_recipe("--final-recipe", "--final-epochs", plain.recipe, out / plain.runs[0])]
