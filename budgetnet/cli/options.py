"""Arguments and options that several verbs share, and how they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from budgetnet.common.documents import parse_count
from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.common.files import is_file_path
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import NAMED, default_recipe, find_recipe
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    from budgetnet.study.space import SearchSpace
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.threads import FirstRun, ThreadCount

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A name from `budgetnet specs`, or a YAML or JSON file.")
]
MaxParams = Annotated[str | None, typer.Option("--max-params", metavar="N", help="Most trainable parameters.")]
MaxMacs = Annotated[
    str | None, typer.Option("--max-macs", metavar="N", help="Most multiply-accumulates for one image.")
]
MaxActivations = Annotated[
    str | None,
    typer.Option("--max-activations", metavar="N", help="Most output elements of convolutions for one image."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SpaceArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="resnet, paper, or a search space as a YAML or JSON file.")
]
InputShape = Annotated[
    str, typer.Option("--input-shape", metavar="C,H,W", help="Channels, height and width of an image, in pixels.")
]
Classes = Annotated[str, typer.Option("--classes", metavar="N", help="Number of classes.")]
Data = Annotated[
    str,
    typer.Option("--data", metavar="DATA", help="digits, cifar10, cifar10:PATH, folder:PATH or arrays:PATH.npz."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help=f"{', '.join(NAMED)}, or a YAML or JSON file. Left out: digits for the digits, else paper.",
    ),
]
Epochs = Annotated[
    str | None,
    typer.Option("--epochs", metavar="N", help="Epochs in place of the recipe's; a longer first cycle is shortened."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything that is sampled.")]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]
Threads = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="N|auto",
        help="Threads of torch on a CPU; auto takes one or all, by a few measured steps. Omitted: all.",
    ),
]
TrainSize = Annotated[
    str | None, typer.Option("--train-size", metavar="N", help="Train on so many of the training images.")
]
ValidationSize = Annotated[
    str | None, typer.Option("--validation-size", metavar="N", help="Validate on so many of the held-out images.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of run folders and of the study's SQLite file.")]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="Where studies live instead: any SQLAlchemy URL."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="tensorboard[:FOLDER] or mlflow[:URI]; again for more. Left out: in OUT, where either is named alone.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)]
On = Annotated[
    str,
    typer.Option(
        "--on", metavar="PART", help="validation, or test: opens the test set once, and writes the opening down."
    ),
]
OtherData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Where the runs' data set is now, or, with --on test, another one of such images and as many classes.",
    ),
]
OwnData = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="Where the run's data set is now, if not where it was.")
]
TestTimeAugmentation = Annotated[
    str, typer.Option("--tta", metavar="HOW", help="Views to average: none, flip, flip-and-shifts; recipe: as it says.")
]


def read_recipe(
    text: str | None, *, data: str, epochs: str | None, other: str = "paper", field: str = "--epochs"
) -> Recipe:
    """The recipe of that name or in that file, for so many epochs; where none is named, that of the digits or another.

    Raises:
        InputError: no such name or file, a file that breaks a rule, or a number of epochs that is none.
    """
    recipe = find_recipe(text or default_recipe(data, other=other))
    return recipe if epochs is None else recipe.with_epochs(parse_count(epochs, field=field))


def read_space(text: str) -> SearchSpace:
    """The search space of that name or in that file.

    Raises:
        InputError: no such name or file, or a file that breaks a rule.
    """
    # Here, because the sampler's library takes a while to load, and most verbs need no space.
    from budgetnet.study.space import SearchSpace
    from budgetnet.study.space.named import NAMED as SPACES
    from budgetnet.study.space.named import named_space

    return SearchSpace.load(text) if text not in SPACES and is_file_path(text) else named_space(text)


def read_image(input_shape: str, classes: str) -> dict[str, Any]:
    """The shape of images and the number of classes, as `SearchSpace.spec` takes them.

    Raises:
        InputError: no three whole numbers, or a number that no specification may have.
    """
    parts = input_shape.split(",")
    if len(parts) != 3:
        raise InputError("--input-shape", input_shape, "must be channels, height and width, such as 3,32,32")
    shape = tuple(parse_count(part, field="--input-shape") for part in parts)
    try:
        ModelSpec.resnet(channels=[1], input_shape=shape, num_classes=parse_count(classes, field="--classes"))
    except InputError as error:
        option = "--classes" if error.field == "num_classes" else "--input-shape"
        raise InputError(option, error.value, error.rule) from None
    return {"input_shape": shape, "num_classes": parse_count(classes, field="--classes")}


def read_budget(max_params: str | None, max_macs: str | None, max_activations: str | None) -> Budget:
    """The budget that the three options describe.

    Raises:
        InputError: a limit is not a whole number of at least 1.
    """
    options = {"--max-params": max_params, "--max-macs": max_macs, "--max-activations": max_activations}
    limits = {
        option[2:].replace("-", "_"): None if text is None else parse_count(text, field=option)
        for option, text in options.items()
    }
    return Budget(**limits)


def read_sizes(train_size: str | None, validation_size: str | None) -> dict[str, int | None]:
    """The numbers of images that the two options ask for, as arguments of `TrainingData.prepare`.

    Raises:
        InputError: a number is not whole or below 1.
    """
    texts = {"train_size": train_size, "validation_size": validation_size}
    return {
        name: None if text is None else parse_count(text, field=f"--{name.replace('_', '-')}")
        for name, text in texts.items()
    }


def read_trackers(texts: Sequence[str] | None, *, out: Path) -> list[Callback]:
    """The trackers that ``--track`` names, ready to be told of runs.

    Args:
        texts: their names, each with its place behind a colon or without one.
        out: folder of run folders, in which they keep what has no place of its own.

    Raises:
        InputError: no such tracker, one whose package is not installed, or a place that it cannot use.
    """
    if not texts:
        return []
    from budgetnet.training.trackers import make_tracker

    return [make_tracker(text, out=out, field="--track") for text in texts]


def read_threads(text: str | None) -> ThreadCount | None:
    """Read a number of threads, or ``auto``; None where the option was omitted.

    Raises:
        InputError: it is neither a whole number of at least 1 nor ``auto``.
    """
    if text is None or text == "auto":
        return cast("ThreadCount | None", text)
    try:
        return parse_count(text, field="--threads")
    except InputError as error:
        raise InputError("--threads", text, f"{error.rule}, or auto") from None


def set_threads_shown(wanted: ThreadCount | None, first: Callable[[], FirstRun | None], *, processes: int = 1) -> None:
    """Set torch's threads as `set_threads` does, where asked for, and show what was set and why.

    Raises:
        InputError: more threads than there are cores for a process.
    """
    if wanted is not None:
        from budgetnet.training.threads import set_threads

        typer.echo(set_threads(wanted, first, processes=processes), err=True)


def one_of(text: str, choices: Sequence[str], *, field: str) -> str:
    """The text, where it is one of those allowed.

    Raises:
        InputError: it is not.
    """
    if text not in choices:
        raise InputError(field, text, f"must be one of {', '.join(choices)}")
    return text


@contextmanager
def compiling(*, wanted: bool) -> Iterator[None]:
    """Tells in one line when torch.compile, asked for by ``--compile``, does not work on this machine.

    Raises:
        BudgetnetError: it does not.
    """
    try:
        yield
    except RuntimeError as error:
        # What it raises are errors of many kinds; all of them come from modules of its own.
        homes = [kind.__module__ for kind in type(error).__mro__]
        if not wanted or not any(home.startswith(("torch._dynamo", "torch._inductor")) for home in homes):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BudgetnetError(f"--compile: torch.compile does not work here: {first}") from None


def require_folder(path: Path, *, field: str) -> None:
    """Refuses a place where no folder can be, or that cannot be written to, before any work is done for it.

    Raises:
        InputError: it is a file, or lies below one, or is closed.
    """
    nearest = next((each for each in (path, *path.absolute().parents) if each.exists()), path)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(field, str(path), "must be a folder that can be written to, or a place for one")


def print_json(value: Any) -> None:
    """Prints plain data as indented JSON."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
