"""What commands read from the texts of their options: recipes, spaces, images, budgets, sizes and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import typer

from budgetnet.common.config import DeviceName
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import default_recipe, find_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.study.choices import require_space_name

if TYPE_CHECKING:
    from budgetnet.study.space import SearchSpace
    from budgetnet.training.progress import Verbosity
    from budgetnet.training.threads import FirstRun, ThreadCount


def read_recipe(text: str | None, *, data: str, epochs: str | None) -> Recipe:
    """Return the recipe with that name or from that file, with its number of epochs overridden if given.

    Args:
        text: name or path; None for the default recipe of the data set.
        data: name of the data set.
        epochs: number of epochs; None for the recipe's own.

    Raises:
        InputError: the name or file does not exist, the file is invalid, or the number of epochs is not a number.
    """
    recipe = find_recipe(default_recipe(data, other="paper") if text is None else text)
    return recipe if epochs is None else recipe.with_epochs(parse_count(epochs, field="--epochs"))


def read_space(text: str) -> SearchSpace:
    """Return the search space with that name or from that file.

    Raises:
        InputError: the name or file does not exist, or the file is invalid.
    """
    require_space_name(text)
    # Imported here because Optuna is slow to import and most commands need no search space.
    from budgetnet.study.space.named import find_space

    return find_space(text)


def image_of(data: str) -> dict[str, Any]:
    """Return the image shape and the number of classes of a data set, as `read_image` does.

    Raises:
        DataError: the data set's name is unknown, or the data set is missing or damaged.
    """
    check_names(data=data)
    from budgetnet.api.inputs import dataset_of

    dataset = dataset_of(data)
    return {"input_shape": dataset.input_shape, "num_classes": dataset.num_classes}


def read_image(input_shape: str | None, classes: str | None) -> dict[str, Any]:
    """Return the image shape and the number of classes as keyword arguments of `SearchSpace.spec`.

    Raises:
        InputError: the shape is not three whole numbers, or a number is outside the range that a spec allows.
    """
    input_shape, classes = input_shape or "3,32,32", classes or "10"
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


def read_budget(**options: str | None) -> Budget:
    """Return the budget set by options, given by the names of its fields.

    Raises:
        InputError: a limit is not a whole number of at least 1.
    """
    budget = Budget.from_mapping(options)
    if budget.device_file is not None:
        _ = budget.device
    return budget


def read_sizes(train_size: str | None, validation_size: str | None) -> dict[str, int | None]:
    """Return the numbers of images as keyword arguments of `TrainingData.prepare`.

    Raises:
        InputError: a number is not whole or below 1.
    """
    texts = {"train_size": train_size, "validation_size": validation_size}
    return {
        name: None if text is None else parse_count(text, field=f"--{name.replace('_', '-')}")
        for name, text in texts.items()
    }


def read_threads(text: str | None) -> ThreadCount | None:
    """Read a number of threads, or ``auto``; None where the option was omitted.

    Raises:
        InputError: it is neither a whole number of at least 1 nor ``auto``.
    """
    from budgetnet.api.inputs import threads_of

    return threads_of(text, field="--threads")


def set_threads_shown(wanted: ThreadCount | None, first: Callable[[], FirstRun | None], *, processes: int = 1) -> None:
    """Set torch's number of threads as `set_threads` does, if requested, and print the number and the reason.

    Raises:
        InputError: the number exceeds the cores available to a process.
    """
    if wanted is not None:
        from budgetnet.training.threads import set_threads

        typer.echo(set_threads(wanted, first, processes=processes), err=True)


def check_names(*, data: str | None = None, device: str | None = None) -> None:
    """Check names before what they stand for is loaded, which takes seconds.

    Raises:
        InputError: there is no such device.
        DataError: the data set's name is unknown.
    """
    if device is not None:
        one_of(device, get_args(DeviceName), field="--device")
    if data is not None:
        from budgetnet.data.names import check_name

        check_name(data)


def read_verbosity(*, quiet: bool, verbose: bool) -> Verbosity | None:
    """Return how much progress to show; None for the default.

    Raises:
        InputError: both options were given.
    """
    if quiet and verbose:
        raise InputError("--quiet", "", "must not be given with --verbose")
    return "quiet" if quiet else "verbose" if verbose else None


def one_of(text: str, choices: Sequence[str], *, field: str) -> str:
    """Return the text if it is one of the choices.

    Raises:
        InputError: the text is not one of the choices.
    """
    if text not in choices:
        raise InputError(field, text, f"must be one of {', '.join(choices)}")
    return text


@contextmanager
def compiling(*, wanted: bool) -> Iterator[None]:
    """Turn errors of torch.compile, enabled by ``--compile``, into one line.

    Raises:
        BudgetnetError: torch.compile does not work on this machine.
    """
    try:
        yield
    except RuntimeError as error:
        # torch.compile raises exceptions of many classes, all defined in its own modules.
        modules = [base.__module__ for base in type(error).__mro__]
        if not wanted or not any(module.startswith(("torch._dynamo", "torch._inductor")) for module in modules):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BudgetnetError(f"--compile: torch.compile does not work on this machine: {first}") from None
